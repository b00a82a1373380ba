"""What the benchmark shows: rows of a table, each with the figures asked for and whether they are met, and JSON."""

from __future__ import annotations

import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from rounds import Rounds

from fields.kernels import native


def machine(threads: int) -> str:
    """What all this ran on."""
    return (
        f"{processor()}, {threads} threads; fieldfit's {native.isa()} build; torch {torch.__version__}, "
        f"{torch.backends.cpu.get_cpu_capability()}; Python {platform.python_version()}"
    )


def processor() -> str:
    """Its name, where the system tells."""
    source = Path("/proc/cpuinfo")
    lines = source.read_text().splitlines() if source.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


@dataclass(frozen=True)
class Asked:
    """A figure asked for."""

    of: str
    """What it is a figure of: of limit, eager, threads ..."""
    value: float
    """What was measured."""
    bound: float
    """What was asked for: at least this, or at most."""
    form: str = "{:.3g}x"
    """How both are written."""
    at_most: bool = False

    @property
    def met(self) -> bool:
        """Whether the measured value is good enough; one that is no number is not."""
        return self.value <= self.bound if self.at_most else self.value >= self.bound

    def line(self) -> str:
        """One line of a table, in rich's markup."""
        verdict = "[green]met[/]" if self.met else "[red]not met[/]"
        sign = "<=" if self.at_most else ">="
        return f"{self.of} {sign} {self.form.format(self.bound)}: {verdict}, {self.form.format(self.value)}"


def share(of: str, value: float, least: float) -> Asked:
    """A figure in percent."""
    return Asked(of, value, least, "{:.0%}")


@dataclass(frozen=True)
class Row:
    """One thing that was measured."""

    name: str
    ours: str
    """Milliseconds, or millions per second."""
    of_limit: float | None = None
    """Of what the machine could do."""
    eager: float | None = None
    """How many times as fast as the torch reference, eager."""
    compiled: float | None = None
    """The same, compiled."""
    scaling: float | None = None
    """How many times as fast on all threads as on one."""
    asked: Sequence[Asked] = ()
    values: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """What each contender got in every round: seconds of a call, or samples per second of a step."""


def row(rounds: Rounds, name: str, asked: Sequence[Asked] = ()) -> Row:
    """A row of timed contenders named ours, ours on 1 thread, limit, eager, compiled, those that there are."""

    def times(other: str) -> float | None:
        return rounds.ratio(other, "ours") if other in rounds else None

    return Row(
        name,
        f"{rounds.median('ours') * 1e3:.3g} ms",
        times("limit"),
        times("eager"),
        times("compiled"),
        times("ours on 1 thread"),
        asked,
        rounds.values,
    )


def table(rows: Sequence[Row], threads: int) -> Table:
    """All rows."""
    shown = Table(title="ours against the machine's limit and against torch: medians over rounds", title_justify="left")
    shown.add_column("", no_wrap=True)
    for heading in ("ours", "of limit", "x eager", "x compiled", f"1 to {threads}"):
        shown.add_column(heading, justify="right", no_wrap=True)
    shown.add_column("asked for", no_wrap=True)
    for r in rows:
        limit = "" if r.of_limit is None else f"{r.of_limit:.0%}"
        ratios = ["" if v is None else f"{v:.3g}x" for v in (r.eager, r.compiled, r.scaling)]
        shown.add_row(r.name, r.ours, limit, *ratios, "\n".join(a.line() for a in r.asked))
    return shown


def plain_table(title: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """A table of texts: the first column to the left, numbers to the right."""
    shown = Table(title=title, title_justify="left", min_width=len(title) + 2)
    for i, heading in enumerate(headings):
        shown.add_column(heading, justify="left" if i == 0 else "right", no_wrap=i == 0)
    for cells in rows:
        shown.add_row(*cells)
    return shown


def console() -> Console:
    """Wide enough for the tables where there is no terminal that has a width."""
    shown = Console(highlight=False)
    return shown if shown.is_terminal else Console(highlight=False, width=160)


def tally(rows: Sequence[Row]) -> str:
    """How many of the figures are met."""
    figures = [a for r in rows for a in r.asked]
    return f"{sum(a.met for a in figures)} of {len(figures)} figures met"


def to_json(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Rows as JSON holds them, with every single value; what is no number is null."""
    return [_finite(asdict(r) | {"asked": [asdict(a) | {"met": a.met} for a in r.asked]}) for r in rows]


def _finite(value: Any) -> Any:
    match value:
        case float():
            return value if math.isfinite(value) else None
        case dict():
            return {key: _finite(v) for key, v in value.items()}
        case list() | tuple():
            return [_finite(v) for v in value]
        case _:
            return value
