"""`fieldfit doctor`: the machine as fieldfit sees it."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from fields.commands.arguments import parse
from fields.doctor import examine


@dataclass(frozen=True)
class DoctorOptions:
    """`fieldfit doctor` takes no options."""


def run(argv: Sequence[str]) -> int:
    """Returns 0, whatever is wrong."""
    parse(
        DoctorOptions, argv, prog="fieldfit doctor", description="What this machine offers, and what is wrong with it."
    )
    findings = examine()
    for finding in findings:
        print(textwrap.fill(f"{finding.what + ':':<15} {finding.value}", 118, subsequent_indent=" " * 16))
    advice = [finding for finding in findings if finding.advice]
    print()
    for finding in advice:
        print(f"! {finding.what}: {finding.advice}")
    if not advice:
        print("Nothing is wrong.")
    return 0
