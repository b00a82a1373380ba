"""What fits of films have in common: groups of frames, fitted one after the other, that become a file."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import Generic, Protocol, TypeVar

from fields.codec.film_file import FilmHeader, Frames, write_film
from fields.codec.fitting import Effort, Target


class Group(Protocol):
    """Of frames, when it is fitted."""

    frames: Frames
    decoded: Frames
    payload: bytes
    estimated: float
    """Bytes."""

    @property
    def psnr(self) -> float:
        """dB, the mean of frames."""
        ...


G = TypeVar("G", bound=Group)


@dataclass
class PackedFilm:
    """A finished file."""

    data: bytes
    psnr: float
    """dB, the mean over frames as they are decoded."""
    estimated: float
    """Bytes that the file should have by the models that were fitted."""


@dataclass
class GroupedFilm(Generic[G]):
    """A film to be fitted. `pack` makes the file when all groups are."""

    frames: Frames
    rate: Fraction
    target: Target = field(default_factory=Target)
    effort: Effort = field(default_factory=Effort)
    seed: int = 0
    sound: bytes | None = None
    header: FilmHeader = field(init=False)
    groups: list[G] = field(init=False, default_factory=list)

    @property
    def bits(self) -> float | None:
        """Of the target, what is left for frames."""
        return None if self.target.bits is None else max(self.target.bits - 8.0 * len(self.sound or b""), 8.0)

    def pack(self) -> PackedFilm:
        """The file of a film all of whose groups are fitted."""
        data = write_film(self.header, [g.payload for g in self.groups], self.sound)
        around = len(data) - sum(len(g.payload) for g in self.groups)
        psnr = sum(g.psnr * len(g.frames) for g in self.groups) / self.header.frames
        return PackedFilm(data, psnr, around + sum(g.estimated for g in self.groups))
