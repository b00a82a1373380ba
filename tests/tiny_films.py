"""Small films that move, with sound or without.

python tests/tiny_films.py     # makes the golden films of the codec anew: only for a new version of the format
"""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import TypeVar

import numpy as np
from tiny_pictures import waves

from fields.codec.film import FilmFit
from fields.codec.film_file import decoded_frames, digest, open_film
from fields.codec.fitting import Effort, Target
from fields.codec.network_fit import NetworkFilmFit

RATE = Fraction(25)
LIMIT = 10_000_000
"""Pixels."""
F = TypeVar("F", FilmFit, NetworkFilmFit)
GOLDEN = {"film": (20, 19, 26), "single-frame": (1, 8, 9), "network": (6, 22, 27)}


def moving(n: int, height: int, width: int) -> np.ndarray:
    """[n, height, width, 3], uint8: a picture that moves to the left, more than a pixel every two frames."""
    whole = waves(height, width + n, 3, np.uint8)
    return np.stack([whole[:, (2 * i) // 3 : (2 * i) // 3 + width] for i in range(n)])


def read(data: bytes) -> np.ndarray:
    """All frames of a compressed film."""
    header, container = open_film(data, LIMIT)
    return np.stack(list(decoded_frames(header, container, 0, header.frames)))


def followed(fit: F) -> F:
    """Fitted, as its progress says."""
    parts = [step.part for step in fit.steps()]
    assert parts == sorted(parts)
    assert abs(parts[-1] - 1) < 1e-6
    return fit


def save_film(path: Path, frames: np.ndarray, *, sound: bool, late: int = 0) -> None:
    """In FFV1, whose samples come back as they are, with a tone in PCM, which begins so many frames before them."""
    import av

    with av.open(str(path), "w", format="avi" if path.suffix == ".avi" else "matroska") as target:
        video = target.add_stream("ffv1", rate=RATE)
        assert isinstance(video, av.VideoStream)
        video.width, video.height, video.pix_fmt = frames.shape[2], frames.shape[1], "bgr0"
        audio = target.add_stream("pcm_s16le", rate=8000, layout="mono") if sound else None
        for i, frame in enumerate(frames):
            made = av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format="bgr0")
            made.pts, made.time_base = late + i, 1 / RATE
            target.mux(video.encode(made))
        target.mux(video.encode(None))
        if audio is not None:
            assert isinstance(audio, av.AudioStream)
            tone = (8000 * np.sin(np.arange(int(8000 * (late + len(frames)) / RATE)) / 5)).astype(np.int16)[None]
            for begin in range(0, tone.shape[1], 400):
                heard = av.AudioFrame.from_ndarray(tone[:, begin : begin + 400].copy(), "s16", "mono")
                heard.sample_rate, heard.pts, heard.time_base = 8000, begin, Fraction(1, 8000)
                target.mux(audio.encode(heard))
            target.mux(audio.encode(None))


def main() -> None:
    folder = Path(__file__).with_name("golden") / "films"
    folder.mkdir(exist_ok=True)
    told = {}
    for name, size in GOLDEN.items():
        frames = moving(*size)
        kind = NetworkFilmFit if name == "network" else FilmFit
        sound = b"carried over as it is" if name == "film" else None
        target = Target(bits=8 * 900.0) if name == "network" else Target(60.0)
        fit = kind(frames, RATE, target, Effort(steps=60 if name != "network" else 400), sound=sound)
        for _ in fit.steps():
            pass
        packed = fit.pack()
        (folder / f"{name}.ff").write_bytes(packed.data)
        told[name] = [*frames.shape, digest(np.concatenate([g.decoded for g in fit.groups])).hex()]
        print(name, len(packed.data), f"{packed.psnr:.2f} dB")
    (folder / "samples.json").write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
