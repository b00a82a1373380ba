"""`fieldfit fields`, and what the names it lists stand for."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
from program import Program, assert_one_line
from tiny_runs import write_image, write_tetrahedron

from fields.commands.fields import GOOD_FOR, described
from fields.encodings import EncodingConfig
from fields.encodings.configs import Coordinates
from fields.networks import GLU, MFN, MLP, Bottleneck, Harmonics, NetworkConfig
from fields.presets import EncodingName, FieldName, NetworkName, encoding_named, network_named, pair_of
from fields.run import Run

OF_SWITCHES = set(get_args(NetworkConfig)) - {Harmonics}  # which is of colours alone, and of no signal's values
STEPS = ("--steps", "2", "--fit.batch", "64")


@pytest.fixture(scope="module")
def fieldfit() -> Iterator[Program]:
    with Program() as program:
        yield program


def test_every_name_is_listed_once_with_a_line(fieldfit: Program, tmp_path: Path) -> None:
    done = fieldfit(tmp_path, "fields")
    assert done.code == 0, done.stderr
    sections = re.split(r"^\S.*:\n", done.stdout, flags=re.MULTILINE)[1:]
    for section, names in zip(sections, (EncodingName, NetworkName, FieldName), strict=True):
        listed = re.findall(r"^  (\S+) +\w.{9}", section, re.MULTILINE)
        assert listed == list(get_args(names))
    assert max(map(len, done.stdout.splitlines())) <= 118


def test_every_configuration_has_a_name() -> None:
    assert {type(encoding_named(name)) for name in get_args(EncodingName)} == set(get_args(EncodingConfig))
    assert {type(network_named(name)) for name in get_args(NetworkName)} == OF_SWITCHES


def test_what_is_told_of_a_name_is_told_of_one_that_exists() -> None:
    assert set(GOOD_FOR) <= {*get_args(EncodingName), *get_args(NetworkName), *get_args(FieldName)}


def test_a_line_says_what_is_not_the_default() -> None:
    assert described(MLP()) == "A perceptron with equal hidden layers"
    assert described(MLP(activation="sine")).endswith("; activation sine")


def test_pairs_are_of_known_parts() -> None:
    for name in get_args(FieldName):
        encoding, network = pair_of(name)
        assert encoding in (None, *get_args(EncodingName)) and network in (None, *get_args(NetworkName))


@pytest.mark.parametrize(
    ("arguments", "encoding", "network"),
    [
        (("a.png", "--network", "mfn"), Coordinates, MFN),
        (("a.png", "--field", "mfn"), Coordinates, MFN),
        (("a.obj", "--field", "siren"), Coordinates, MLP),
        (("a.obj", "--encoding", "hash", "--network", "bottleneck"), None, Bottleneck),
        (("a.png", "--encoding", "frequency", "--network", "glu"), None, GLU),
    ],
)
def test_fit_takes_the_names(
    fieldfit: Program, tmp_path: Path, arguments: tuple[str, ...], encoding: type | None, network: type
) -> None:
    write_image(tmp_path / "a.png")
    write_tetrahedron(tmp_path / "a.obj")
    done = fieldfit(tmp_path, "fit", *arguments, *STEPS)
    assert done.code == 0, done.stderr
    field = Run.open(tmp_path / "runs" / "a").config.field
    assert encoding is None or isinstance(field.encoding, encoding)
    assert isinstance(vars(field)["network"], network)


def test_a_published_pair_leaves_no_choice_of_parts(fieldfit: Program, tmp_path: Path) -> None:
    write_image(tmp_path / "a.png")
    done = fieldfit(tmp_path, "fit", "a.png", "--field", "mfn", "--network", "mlp")
    assert_one_line(done, 2, "--field mfn", "leave out")
    assert_one_line(fieldfit(tmp_path, "fit", "a.png", "--field", "siern"), 2, "--field siern", "siren")
    for network in ("bottleneck", "glu"):
        done = fieldfit(tmp_path, "fit", "a.png", "--encoding", "coordinates", "--network", network)
        assert_one_line(done, 1, f"--network {network}", "--encoding hash")
    assert fieldfit(tmp_path, "fit", "a.png", "--field", "ngp", *STEPS).code == 0
    again = fieldfit(tmp_path, "fit", "runs/a", "--field", "ngp")
    assert_one_line(again, 1, "--field", "start another run")
