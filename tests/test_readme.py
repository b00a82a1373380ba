"""What the README promises is there: each command and option, each file and picture, and the lines that CI runs."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from program import Program

ROOT = Path(__file__).resolve().parent.parent
OPTION = re.compile(r"(?<![\w-])--[a-z][\w.-]*[a-z0-9]")


def code(markdown: str) -> list[str]:
    """The lines of fenced blocks (continued lines joined, comments dropped), then the inline code."""
    fenced = "\n".join(re.findall(r"^```[^\n]*\n(.*?)^```", markdown, re.M | re.S))
    lines = [re.sub(r"(^|\s)#.*", "", line).strip() for line in fenced.replace("\\\n", " ").splitlines()]
    prose = re.sub(r"^```.*?^```", "", markdown, flags=re.M | re.S)
    return [line for line in lines if line] + re.findall(r"`([^`\n]+)`", prose)


def commands(markdown: str) -> list[tuple[str, str]]:
    """(subcommand or "", the rest of the line) of every `fieldfit ...`, also where several are joined by &&, ; or |."""
    pieces = [piece.strip(" $") for line in code(markdown) for piece in re.split(r"&&|;|(?<!\\)\|", line)]
    found = [re.match(r"fieldfit(?:\s+([a-z][\w-]*))?(.*)", piece) for piece in pieces]
    return [(match[1] or "", match[2]) for match in found if match]


def files(markdown: str) -> list[str]:
    """Relative links and pictures, and paths of ours that stand in code."""
    linked = re.findall(r"\]\(([^)\s]+)\)", markdown) + re.findall(r"(?:src|href)=\"([^\"]+)\"", markdown)
    ours = r"(?<![\w./-])(?:fields|scenes|viewer|cuda|tests|bench|examples|docs|\.ci|\.github)/[\w./-]*[\w/]"
    named = [path for line in code(markdown) for path in re.findall(ours, line)]
    return [path.partition("#")[0] for path in linked + named if not re.match(r"[a-z]+:|#", path)]


@pytest.fixture(scope="module")
def help_of() -> Iterator[Callable[[str], str]]:
    with Program() as program:

        @functools.cache
        def told(subcommand: str) -> str:
            done = program(ROOT, *([subcommand] if subcommand else []), "--help")
            assert done.code == 0, f"the README names `fieldfit {subcommand}`: {done.stderr or done.stdout}"
            return done.stdout

        yield told


@pytest.fixture(scope="module")
def readme() -> str:
    return (ROOT / "README.md").read_text()


def test_every_command_and_option_is_known(readme, help_of):
    named = commands(readme)
    assert {"fit", "eval", "render", "export", "info", "doctor"} <= {subcommand for subcommand, _ in named}
    unknown = [
        f"fieldfit {subcommand} {option}"
        for subcommand, rest in named
        for option in OPTION.findall(rest)
        if option not in OPTION.findall(help_of(subcommand))
    ]
    assert unknown == []


def test_every_command_answers_help(readme, help_of):
    for subcommand in sorted({subcommand for subcommand, _ in commands(readme)}):
        assert "--help" in help_of(subcommand)


def test_every_file_and_picture_is_there(readme):
    named = files(readme)
    assert any(name.endswith((".png", ".jpg", ".webp", ".gif")) for name in named), "no picture made by the program"
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_ci_runs_the_lines_that_people_are_told(readme):
    """What stands in the README as the way to install, try and test is what CI runs, word for word."""
    script = (ROOT / ".ci/run").read_text()
    assert "pip install . && fieldfit fit demo" in readme
    tests = "pytest -n 2 --dist loadfile\n"
    assert f"pip install -e '.[dev]' && {tests}" in readme
    for line in ("pip install --quiet .\n", "fieldfit fit demo", "pip install --quiet -e '.[dev]'\n", f"\n{tests}"):
        assert line in script


@pytest.mark.parametrize(
    ("markdown", "expected"),
    [
        ("```bash\npip install . && fieldfit fit demo\n```", [("fit", " demo")]),
        ("Use `fieldfit fit PATH [--minutes M \\| --steps N]`.", [("fit", " PATH [--minutes M \\| --steps N]")]),
        ("```\n$ fieldfit eval run \\\n    --json  # as JSON --not-this\n```", [("eval", " run      --json")]),
        ("`fieldfit --help` and the package fieldfit", [("", " --help")]),
        ("```python\nimport fields\n```", []),
    ],
)
def test_commands_are_found(markdown, expected):
    assert commands(markdown) == expected


def test_files_are_found():
    text = '![a](docs/a.png) [b](STYLE.md#rules) [c](https://a.org) <img src="docs/d.png"> `python bench/e.py` [f](#g)'
    assert files(text) == ["docs/a.png", "STYLE.md", "docs/d.png", "bench/e.py"]


def test_options_in_the_examples_of_the_help_are_known():
    """Those of a preset too, which `--help` without a PATH does not list."""
    from fields.cli import EXAMPLES
    from fields.commands.arguments import split
    from fields.commands.job import FitOptions
    from fields.presets import Config

    lines = [re.split(r"\s{2,}", line.strip())[0].split() for line in EXAMPLES.splitlines()[1:]]
    fits = [words[2:] for words in lines if words[:2] == ["fieldfit", "fit"]]
    assert any(any(word.startswith("--fit.") for word in words) for words in fits)
    for words in fits:
        split(words, FitOptions, Config, prog="fieldfit fit")  # raises UsageError for an option that nobody knows
