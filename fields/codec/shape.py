"""Sizes of the codec's model that everything agrees on."""

from __future__ import annotations

from dataclasses import dataclass

LEVELS = 7
"""Of the pyramid of latents; each has half as many rows and columns as the one before."""
CAUSAL = (
    *((0, -1), (0, -2), (0, -3)),
    *((-1, dx) for dx in range(-3, 4)),
    *((-2, dx) for dx in range(-2, 3)),
    (-3, 0),
)
"""Where the neighbours of a latent lie that come before it: rows, columns."""
CONTEXT = len(CAUSAL) + 4
"""What the context network sees: those neighbours, and four values of the coarser level."""
CONTEXT_HIDDEN = 16
HIDDEN = 40
"""Neurons of the synthesis network."""
TAPS = 4
"""Of the filter that doubles a level."""
SCALE = 16.0
"""The synthesis makes values from 0 to this."""
UNIT = 256
"""Decoders compute with multiples of one over this, between layers."""


@dataclass(frozen=True)
class CodecShape:
    """Of a picture and of the network that synthesises it."""

    height: int
    width: int
    channels: int
    hidden: int = HIDDEN
    known: int = 0
    """Planes that the synthesis sees beside the latents: none, or a prediction of each channel, to which it adds."""

    @property
    def levels(self) -> list[tuple[int, int]]:
        """Rows and columns of each level."""
        return [(-(-self.height >> i), -(-self.width >> i)) for i in range(LEVELS)]

    @property
    def n_latents(self) -> int:
        """Of all levels."""
        return sum(h * w for h, w in self.levels)

    @property
    def context_size(self) -> int:
        """Parameters of the context network: W1, a b1 for each level, W2, b2, W3, b3."""
        k = CONTEXT_HIDDEN
        return k * CONTEXT + LEVELS * k + k * (k + 1) + 2 * (k + 1)

    @property
    def synthesis_size(self) -> int:
        """Parameters of the synthesis: a filter for each doubling, W1, b1, W2, b2, and twice a filter and its bias."""
        m, c = self.hidden, self.channels
        return (LEVELS - 1) * TAPS + m * (LEVELS + self.known + 1) + c * (m + 1) + 2 * c * (9 * c + 1)
