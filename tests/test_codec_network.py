"""Films as networks: decoders compute exactly what the definition says, in integers, and fits agree with them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import tiny_films
import torch
from program import Program, assert_one_line
from tiny_films import LIMIT, read
from tolerances import CODEC_ESTIMATE, CODEC_TARGET, GRADIENTS, NETWORK_SAMPLES

from fields.codec import network
from fields.codec.bitstream import BitstreamError, Container, pack
from fields.codec.film_file import NETWORK, FilmHeader, decoded_frames, digest, open_film, write_film
from fields.codec.fitting import Effort, Target
from fields.codec.network import NetworkShape
from fields.codec.network_fit import NetworkFilmFit, Synthesis, shape_for
from scenes.film import read_film
from scenes.scene import LoadOptions

SMALL = NetworkShape(21, 30, 7, 2, 8)
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def fieldfit() -> Iterator[Program]:
    with Program() as program:
        yield program


def integers(shape: NetworkShape, seed: int = 0) -> dict[str, np.ndarray]:
    g = np.random.default_rng(seed)
    found = {}
    for name, size in shape.sizes.items():
        most = 2 ** network.bits_of(name) - 1
        found[name] = np.clip(np.rint(0.3 * most * g.standard_normal(size)), -most, most).astype(np.int32)
    return found


def fitted(frames: np.ndarray, target: Target | None = None, steps: int = 60) -> NetworkFilmFit:
    fit = NetworkFilmFit(frames, tiny_films.RATE, target or Target(50.0), Effort(steps=steps))
    return tiny_films.followed(fit)


# The definition -------------------------------------------------------------------------------------------------------


def by_definition(shape: NetworkShape, q: dict[str, np.ndarray], frame: int) -> np.ndarray:
    """docs/format.md, with integers of Python and one operation on floats after the other."""
    n = shape.frames

    def at(tensor: np.ndarray) -> np.ndarray:
        """Over time, along the second axis."""
        k = max(n - 1, 1)
        j, r = divmod(frame * (tensor.shape[1] - 1), k)
        last = min(j + 1, tensor.shape[1] - 1)
        mix = [float(a) + float(b - a) * (r / k) for a, b in zip(tensor[:, j].flat, tensor[:, last].flat, strict=True)]
        return np.array(mix, object).reshape(tensor[:, j].shape)

    def convolved(x: np.ndarray, filters: np.ndarray) -> np.ndarray:
        padded = np.pad(x, ((0, 0), (1, 1), (1, 1)), constant_values=0)
        windows = [padded[:, y : y + x.shape[1], z : z + x.shape[2]] for y in range(3) for z in range(3)]
        taps = filters.reshape(*filters.shape[:2], 9).astype(object)
        return np.array([sum((w[i] * f[i, t] for i in range(len(x)) for t, w in enumerate(windows))) for f in taps])

    whole = np.vectorize(lambda v: math.floor(8 * v + 0.5), otypes=[object])
    x = np.concatenate([whole(at(q["latents0"])), whole(at(q["latents1"]))])
    for i in range(shape.doublings):
        x = convolved(x, q[f"weights{i}"])
        c, (h, w) = len(x) // 4, x.shape[1:]
        x = x.reshape(c, 2, 2, h, w).transpose(0, 3, 1, 4, 2).reshape(c, 2 * h, 2 * w)
        scale, shift = at(q[f"scale{i}"]), at(q[f"shift{i}"])
        made = []
        for plane, s, t in zip(x, scale, shift, strict=True):
            size = plane.size
            centred = plane - sum(plane.flat) // size
            e = int(max(abs(v) for v in centred.flat)).bit_length()
            cut = [v >> max(e - min(15, (53 - size.bit_length()) // 2), 0) for v in centred.flat]
            norm = math.sqrt(sum(v * v for v in cut) / size + 1)
            values = [(v / norm) * (s * (2 / 128) + 1) + t * (2 / 128) for v in cut]
            active = [math.floor(v * min(max(v + 3, 0), 6) / 6 * 256 + 0.5) for v in values]
            made.append(np.array(active, object).reshape(plane.shape))
        x = np.array(made)
    x = convolved(x, q["weights"])[:, : shape.height, : shape.width]
    shown = np.empty(x.shape)
    for index, v in np.ndenumerate(x):
        shown[index] = math.floor(255 * (v / 2**17 + (int(q["bias"][index[0]]) / 128 + 0.5)) + 0.5)
    return shown.clip(0, 255).astype(np.uint8).transpose(1, 2, 0)


@pytest.mark.parametrize("shape", [SMALL, NetworkShape(5, 8, 1, 1, 4), NetworkShape(40, 14, 3, 1, 5)], ids=str)
def test_decoders_compute_the_definition(shape: NetworkShape) -> None:
    q = integers(shape)
    for frame, found in enumerate(network.decoded(shape, q)):
        assert (found == by_definition(shape, q, frame)).all()
        assert np.unique(found).size > 3


def test_any_number_of_threads_decodes_the_same() -> None:
    q, seen = integers(SMALL, 3), []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        seen.append(np.stack(list(network.decoded(SMALL, q))))
    assert (seen[0] == seen[1]).all()


def test_the_float_network_agrees_with_decoders() -> None:
    """But for values between layers, which decoders round to 256ths."""
    model = Synthesis(SMALL, seed=1)
    with torch.no_grad():
        for name, value in model.values.items():
            value.copy_(0.3 * torch.randn(value.shape, generator=torch.Generator().manual_seed(len(name))))
        made = model(list(range(SMALL.frames))).clamp(0, 1).permute(0, 2, 3, 1).numpy()
    expected = np.stack(list(network.decoded(SMALL, model.integers())))
    NETWORK_SAMPLES.check(torch.from_numpy(255 * made), torch.from_numpy(expected))


def test_gradients_are_those_of_values_that_are_not_rounded() -> None:
    """Where weights are multiples of a step already, rounding changes nothing, and float64 differences tell."""
    shape = NetworkShape(14, 15, 2, 1, 4)
    model = Synthesis(shape, seed=2).double()
    with torch.no_grad():
        for name, value in model.values.items():
            value.copy_(torch.from_numpy(integers(shape, 5)[name]) / 2.0 ** network.bits_of(name))
    model([0, 1]).square().sum().backward()
    plain = Synthesis(shape, seed=2).double()
    plain.load_state_dict(model.state_dict())
    plain.rounded = lambda name: plain.values[name]  # type: ignore[method-assign]
    for name, value in model.values.items():
        assert value.grad is not None
        direction = torch.randn(value.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        sums = []
        for sign in (1, -1):
            with torch.no_grad():
                plain.values[name] += sign * 1e-6 * direction
                sums.append(plain([0, 1]).square().sum().item())
                plain.values[name] -= sign * 1e-6 * direction
        assert GRADIENTS.allows((value.grad * direction).sum().item(), (sums[0] - sums[1]) / 2e-6)


def test_what_is_written_is_read() -> None:
    q = integers(SMALL, 7)
    data, bits = network.write(SMALL, q)
    assert list(data[:2]) == [SMALL.latents, SMALL.hidden]
    found = network.read(SMALL, data[2:])
    assert found.keys() == q.keys()
    assert all((found[name] == q[name]).all() for name in q)
    assert CODEC_ESTIMATE.allows(bits / 8, len(data))


def test_sizes_follow_bits() -> None:
    for bits in (1e4, 1e5, 1e6):
        shape = shape_for(144, 176, 100, bits)
        assert shape.doublings == 4 and shape.base == (9, 11)
        assert 0.5 < shape.n_weights * 4 / bits < 2 or bits == 1e4
    assert shape_for(144, 176, 100, 1e4) == NetworkShape(144, 176, 100, 1, 4)


# Files ----------------------------------------------------------------------------------------------------------------


def test_a_film_comes_back() -> None:
    frames = tiny_films.moving(12, 40, 52)
    fit = fitted(frames, steps=300)
    packed = fit.pack()
    assert open_film(packed.data, LIMIT)[0].kind == NETWORK
    assert (read(packed.data) == fit.groups[0].decoded).all()
    assert packed.psnr > 22
    assert CODEC_ESTIMATE.allows(packed.estimated, len(packed.data))


def test_the_same_film_gives_the_same_file() -> None:
    frames = tiny_films.moving(4, 20, 24)
    assert fitted(frames).pack().data == fitted(frames).pack().data


def test_groups_are_fitted_and_decoded_by_themselves() -> None:
    frames = tiny_films.moving(131, 9, 10)
    packed = fitted(frames, steps=80).pack()
    header, container = open_film(packed.data, LIMIT)
    whole = read(packed.data)
    broken = Container(container.header, {}, (b"?" * 40, container.groups[1]))
    assert header.n_groups() == 2
    assert (np.stack(list(decoded_frames(header, broken, 129, 131))) == whole[129:]).all()


def test_a_size_is_reached() -> None:
    packed = fitted(tiny_films.moving(16, 48, 64), Target(bits=8 * 6000.0), steps=1200).pack()
    assert CODEC_TARGET.allows(8.0 * len(packed.data), 8 * 6000.0)


def test_more_quality_takes_more_bytes() -> None:
    frames = tiny_films.moving(8, 40, 52)
    packed = [fitted(frames, Target(psnr=psnr), steps=400).pack() for psnr in (20.0, 40.0)]
    assert len(packed[0].data) < 0.8 * len(packed[1].data)
    assert packed[0].psnr < packed[1].psnr - 1


def test_golden_networks_decode_for_ever() -> None:
    folder = Path(__file__).with_name("golden") / "films"
    frames = read((folder / "network.ff").read_bytes())
    assert [*frames.shape, digest(frames).hex()] == json.loads((folder / "samples.json").read_text())["network"]


def test_what_is_refused() -> None:
    frames = tiny_films.moving(3, 20, 24)
    fit = fitted(frames, steps=40)
    payload, header = fit.groups[0].payload, fit.header

    def refused(header: FilmHeader, group: bytes) -> str:
        with pytest.raises(BitstreamError) as caught:
            read(pack(Container(header.to_bytes(), {}, (group,))))
        return str(caught.value)

    assert "no or too many channels" in refused(header, payload[:32] + b"\0" + payload[33:])
    assert "no or too many channels" in refused(header, payload[:33] + b"\xff" + payload[34:])
    assert "weights in" in refused(header, payload[:32] + b"\x40\x40" + payload[34:])
    assert "checksum does not match" in refused(header, bytes(32) + payload[32:])
    assert "followed by something else" in refused(header, payload + b"\1" * 20)
    assert "more samples" in refused(FilmHeader(1200, 20, 128, header.rate, NETWORK), payload)
    assert "out of range" in refused(header, payload[:34] + b"\x06" + payload[35:])
    assert write_film(header, [payload], None) == fit.pack().data


def test_from_a_film_to_a_film(fieldfit: Program, tmp_path: Path) -> None:
    tiny_films.save_film(tmp_path / "in.mkv", tiny_films.moving(6, 20, 30), sound=True)
    done = fieldfit(tmp_path, "compress", "in.mkv", "out.ff", "--field", "cam", "--minutes", "0.03")
    assert done.code == 0, done.stderr
    assert "6 frames" in done.stdout
    done = fieldfit(tmp_path, "info", "out.ff")
    assert (
        "compressed film of networks" in done.stdout
        and "multiplications a pixel" in done.stdout
        and "all checksums match" in done.stdout
    ), done
    assert fieldfit(tmp_path, "decompress", "out.ff", "out.mkv").code == 0
    film = read_film(tmp_path / "out.mkv", LoadOptions())
    assert (film.frames == read((tmp_path / "out.ff").read_bytes())).all()
    assert Fraction(film.fps).limit_denominator(1000) == tiny_films.RATE
    (tmp_path / "in.png").write_bytes(b"")
    assert_one_line(fieldfit(tmp_path, "compress", "in.png", "out.ff", "--field", "cam"), 2, "--field cam", "for films")
