"""Command-line arguments to dataclasses: flat options in any order, one line for a mistake.

tyro parses and writes the help. What it leaves to us: an option that takes several values must not swallow the
positional arguments behind it, the options of a preset must be told apart before the preset is known, and a mistake is
answered with one line rather than a box. All need to know how many values an option takes, which its annotation says.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import re
import types
import typing
from collections.abc import Sequence
from typing import Any, Literal, TypeVar

import tyro

from fields.configuration import alternatives, field_types, suggestion

T = TypeVar("T")

HELP = {"-h", "--help"}
POSITIONAL = typing.get_args(tyro.conf.Positional[str])[1]
MARKERS = (tyro.conf.AvoidSubcommands, tyro.conf.FlagCreatePairsOff)
OVERRIDE_MARKERS = (tyro.conf.AvoidSubcommands, tyro.conf.FlagConversionOff)


class UsageError(Exception):
    """Arguments that no command understands; one line."""


@dataclasses.dataclass(frozen=True)
class Option:
    """What an option `--name` takes."""

    count: int | None
    """Values; None for any number."""
    expected: str
    """In words."""


def options_of(cls: type, *, flags: bool = True, prefix: str = "", default: Any = None) -> dict[str, Option]:
    """The options that a dataclass makes, by name with dashes: those of all members of its unions, or, given an
    instance as `default`, of the members that it holds.

    With `flags`, a bool takes no value, and a nested dataclass no prefix: this is how commands are written. Without, it
    is how a preset's fields are overridden.
    """
    found: dict[str, Option] = {}
    for name, annotation in field_types(cls).items():
        if name in _positionals(cls):
            continue
        dashed = f"{prefix}{name.replace('_', '-')}"
        value = None if default is None else vars(default)[name]
        members = alternatives(annotation) if value is None else (type(value),)
        nested = [a for a in members if dataclasses.is_dataclass(a) and isinstance(a, type)]
        for member in nested:
            found |= options_of(member, flags=flags, prefix="" if flags else f"{dashed}.", default=value)
        if not nested:
            found[f"--{dashed}"] = _option(annotation, flags)
    return found


def split(argv: Sequence[str], command: type, config: type | None = None, *, prog: str) -> tuple[list[str], list[str]]:
    """`argv` as (positional arguments, then the options of `command`; the options that override `config`).

    Raises UsageError for an option of neither, with the nearest one that exists, and for too few values.
    """
    own = options_of(command)
    overrides = {} if config is None else options_of(config, flags=False)
    positional: list[str] = []
    ours: list[str] = []
    theirs: list[str] = []
    rest = list(argv)
    while rest:
        token = rest.pop(0)
        if token in HELP:
            ours.append(token)
            continue
        if token == "-" or not token.startswith("-"):
            positional.append(token)
            continue
        name, equals, value = token.partition("=")
        name = name.replace("_", "-")
        if name not in own and name not in overrides:
            near = suggestion(name, [*own, *overrides])
            raise UsageError(f"unknown option {name}{near or f'; {prog} --help lists all'}")
        option = own.get(name) or overrides[name]
        values = [value] if equals else _take(rest, option.count)
        if option.count is not None and len(values) != option.count and values != ["None"]:
            raise UsageError(f"{name}: expected {option.expected}, got {' '.join(values) or 'nothing'}")
        (ours if name in own else theirs).extend([name, *values])
    expected = list(_positionals(command).values())
    if len(positional) > len(expected):
        raise UsageError(f"what is {positional[len(expected)]!r}? {prog} takes {' '.join(expected)} and options")
    return positional + ours, theirs


def parse(cls: type[T], argv: Sequence[str], *, prog: str, description: str) -> T:
    """An instance of the dataclass `cls` from a command's arguments. Raises UsageError; exits after `--help`."""
    ordered, _ = split(argv, cls, prog=prog)
    if not HELP & set(ordered):
        n_given = next((i for i, token in enumerate(ordered) if token.startswith("--")), len(ordered))
        missing = list(_positionals(cls).values())[n_given:] + [flag for flag in _required(cls) if flag not in ordered]
        if missing:
            raise UsageError(f"{missing[0]} is missing; {prog} --help shows how it is called")
    return _parse(cls, ordered, options_of(cls), {"prog": prog, "description": description, "config": MARKERS})


def override(config: T, argv: Sequence[str], *, prog: str) -> T:
    """`config` with the fields that `argv` names replaced. Raises UsageError."""
    options = options_of(type(config), flags=False, default=config)
    for token in argv:
        if token.startswith("--") and token not in options and token not in HELP:
            near = suggestion(token, options)
            raise UsageError(f"{token} is not an option of this preset{near}; {prog} PATH --help lists those that are")
    keywords = {"prog": prog, "description": "", "config": OVERRIDE_MARKERS, "default": config}
    return _parse(type(config), argv, options, keywords)


def one_of(choices: Any, value: str | None, flag: str) -> Any:
    """`value` if it is one of the strings of the `Literal` `choices`, or None. Raises UsageError.

    For options whose choices are not known before heavy modules are loaded.
    """
    known = typing.get_args(choices)
    if value is not None and value not in known:
        raise UsageError(f"{flag} {value}: expected one of {', '.join(known)}{suggestion(value, known)}")
    return value


def _parse(cls: type[T], argv: Sequence[str], options: dict[str, Option], keywords: dict[str, Any]) -> T:
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.cli(cls, args=list(argv), **keywords)
    except SystemExit as stop:
        if not stop.code:
            raise
        raise UsageError(_one_line(complaint.getvalue(), argv, options)) from None


def _one_line(box: str, argv: Sequence[str], options: dict[str, Option]) -> str:
    """The gist of tyro's box."""
    text = " ".join(line.strip("│╭╮╰╯─ ") for line in box.splitlines())
    named = re.search(r"(?:parsing|argument) '?(--[\w.-]+)", text)
    if named and named[1] in options and named[1] in argv:
        values = _take(list(argv[argv.index(named[1]) + 1 :]), options[named[1]].count)
        return f"{named[1]}: expected {options[named[1]].expected}, got {' '.join(values) or 'nothing'}"
    return text.strip()


def _take(rest: list[str], count: int | None) -> list[str]:
    """Remove the values of an option from the head of `rest`; negative numbers are values, options are not."""
    values: list[str] = []
    while rest and (count is None or len(values) < count) and (not rest[0].startswith("-") or _is_number(rest[0])):
        values.append(rest.pop(0))
        if values == ["None"]:
            break
    return values


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _positionals(cls: type) -> dict[str, str]:
    """The fields that are given by place, and what the help calls them."""
    marked = typing.get_type_hints(cls, include_extras=True)
    return {name: name.upper() for name, hint in marked.items() if POSITIONAL in typing.get_args(hint)}


def _required(cls: type) -> list[str]:
    """The options that have no default."""
    positional = _positionals(cls)
    missing = dataclasses.MISSING
    fields = [f for f in dataclasses.fields(cls) if f.default is missing and f.default_factory is missing]
    return [f"--{f.name.replace('_', '-')}" for f in fields if f.name not in positional]


def _option(annotation: Any, flags: bool) -> Option:
    members = [a for a in alternatives(annotation) if a is not types.NoneType]
    first = members[0]
    if typing.get_origin(first) is tuple:
        elements = typing.get_args(first)
        if elements[-1] is Ellipsis:
            return Option(None, f"{_words(elements[0])}, any number of times")
        return Option(len(elements), f"{len(elements)} numbers")
    if first is bool and len(members) == 1 and flags:
        return Option(0, "no value")
    return Option(1, " or ".join(_words(member) for member in members))


def _words(annotation: Any) -> str:
    if typing.get_origin(annotation) is Literal:
        return "one of " + ", ".join(str(choice) for choice in typing.get_args(annotation))
    if annotation is bool:
        return "True or False"
    return {int: "a whole number", float: "a number"}.get(annotation, "a value")
