"""The format is what docs/format.md says: a decoder written from the document alone, on constriction's range coder."""

from __future__ import annotations

from pathlib import Path

import another_decoder
import numpy as np
import pytest

from fields.codec.image_file import read_image
from fields.kernels.native import core

GOLDEN = sorted(Path(__file__).with_name("golden").glob("*.ff"))


@pytest.mark.parametrize("file", GOLDEN, ids=lambda file: file.stem)
def test_the_document_is_enough_to_decode_a_picture(file: Path) -> None:
    data = file.read_bytes()
    _, ours = read_image(data, max_pixels=1 << 20)
    assert (another_decoder.decode(data) == ours).all()


def test_constriction_reads_what_is_written_and_writes_what_is_read() -> None:
    groups = [(200, 5, 3), (200, 24, 63), (200, 50, 2047), (1400, 63, 2047), (1, 0, 1)]
    g = np.random.default_rng(0)
    spreads = np.repeat([0.3, 1, 30, 900, 0.1], [n for n, _, _ in groups])
    limits = np.repeat([most for _, _, most in groups], [n for n, _, _ in groups])
    values = np.rint(g.laplace(0, spreads)).clip(-limits, limits).astype(np.int32)
    ours, theirs = core().codec_write_integers(groups, values), another_decoder.encode_integers(groups, values)
    assert (another_decoder.decode_integers(groups, ours) == values).all()
    back = np.zeros_like(values)
    assert core().codec_read_integers(groups, theirs.rstrip(b"\0"), back)
    assert (back == values).all()
    assert ours[: len(theirs) - 8] == theirs[:-8]  # word for word, up to how a stream is ended
    assert len(ours) <= len(theirs)
