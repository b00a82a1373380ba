"""The same architecture in another size: a configuration that has about so many parameters.

Of an encoding that stores something its tables are made larger or smaller; of one that stores nothing, the layers of
the networks. All else stays, above all depth and frequencies.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from fields.field import FieldConfig, RadianceFieldConfig, SignalFieldConfig, build
from scenes.errors import InputError

T = TypeVar("T")

WIDTHS = {"hidden_dim", "bottleneck_dim"}
"""Of networks, by the names of their configurations' fields."""
RESOLUTIONS = {"finest_resolution", "resolution", "resolutions"}
"""Of grids without a table whose size is a power of two, which is then their size alone; base_resolution, where there
is one, stays at or below."""
LOG2_SIZES = {"log2_table_size"}
NEAR = 1.25
"""A field this many times too large or too small no longer compares."""


def n_parameters(config: FieldConfig, describe: Mapping[str, Any]) -> int:
    """Of the field of a configuration, for the scene that `describe` tells of."""
    return sum(parameter.numel() for parameter in build(config, describe).parameters())


def with_parameters(config: FieldConfig, describe: Mapping[str, Any], n: int) -> FieldConfig:
    """The configuration nearest to `n` parameters in number.

    Raises:
        InputError: none is within a quarter of it.
    """
    tried: dict[FieldConfig, int] = {}

    def distance(candidate: FieldConfig) -> float:
        if candidate not in tried:
            tried[candidate] = n_parameters(candidate, describe)
        return abs(math.log(tried[candidate] / n))

    best = config
    for candidate in _scaled_up(config):  # from small to large, so that nothing much larger than asked is ever built
        best = min(best, candidate, key=distance) if tried else candidate
        if distance(candidate) > 0 and tried[candidate] > n:
            break
    best = min([best, *_with_levels(best)], key=distance)
    if distance(best) > math.log(NEAR):
        raise InputError(
            f"--params {n:,}: this field comes no closer than {tried[best]:,} parameters; give another number"
        )
    return best


def _scaled_up(config: FieldConfig) -> Iterator[FieldConfig]:
    """The same in other sizes, from small to large, each once."""
    last = None
    for eighth in range(-80, 81):
        factor = 2 ** (eighth / 8)
        encoding = _scaled(config.encoding, factor)
        candidate = dataclasses.replace(config, encoding=encoding)
        if not _has_size(config.encoding):
            match config:
                case SignalFieldConfig():
                    candidate = dataclasses.replace(config, network=_scaled(config.network, factor))
                case RadianceFieldConfig():
                    density, color = _scaled(config.density, factor), _scaled(config.color, factor)
                    candidate = dataclasses.replace(config, density=density, color=color)
        if candidate != last:
            yield candidate
        last = candidate


def _with_levels(config: FieldConfig) -> list[FieldConfig]:
    """A few levels more or less: tables grow by powers of two, and this is between them."""
    levels = vars(config.encoding).get("levels", 0)
    others = [n for n in range(levels - levels // 3, levels + levels // 3 + 1) if n != levels and n > 0]
    return [dataclasses.replace(config, encoding=dataclasses.replace(config.encoding, levels=n)) for n in others]


def _has_size(part: object) -> bool:
    return bool((RESOLUTIONS | LOG2_SIZES) & vars(part).keys())


def _scaled(part: T, factor: float) -> T:
    """A part whose widths, resolution or table are `factor` times as large."""
    values = vars(part)
    changes: dict[str, Any] = {name: max(round(values[name] * factor), 2) for name in WIDTHS & values.keys()}
    if LOG2_SIZES & values.keys():
        changes |= {n: min(max(round(values[n] + math.log2(factor)), 4), 26) for n in LOG2_SIZES & values.keys()}
    else:
        changes |= {n: _resized(values[n], factor) for n in RESOLUTIONS & values.keys()}
        if changes and "base_resolution" in values:
            changes["base_resolution"] = min(values["base_resolution"], *changes.values())
    return dataclasses.replace(part, **changes) if changes else part  # pyright: ignore[reportArgumentType,reportCallIssue]


def _resized(resolution: int | tuple[int, ...], factor: float) -> int | tuple[int, ...]:
    if isinstance(resolution, tuple):
        return tuple(max(round(one * factor), 4) for one in resolution)
    return max(round(resolution * factor), 4)
