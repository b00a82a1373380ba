"""Frozen dataclasses to JSON and back, by type.

A configuration is a tree of frozen dataclasses whose leaves are numbers, strings, `Literal`s, `None`, tuples and
string-keyed dictionaries. A member of a union of dataclasses carries its class name under `"type"`, by default that of
its field's default; nothing else needs a tag, because the annotations say what to expect. Reading is strict: an unknown
key, an unknown type or a value of another type is an `InputError` that names the place, such as `runs/lego/config.json:
field.encoding.levels: expected int, got "eight"`.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import types
import typing
from collections.abc import Iterable
from typing import Any, Literal, TypeVar, Union

from scenes.errors import InputError

_TAG = "type"

T = TypeVar("T")


def to_json(value: Any) -> dict[str, Any]:
    """The dataclass `value` as plain JSON data.

    Raises TypeError for what no configuration may hold: a NaN, an object that is no dataclass, a field called `type`.
    """
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        raise TypeError(f"a configuration is a dataclass instance, got {type(value).__name__}")
    result = _write(value, type(value), type(value).__name__)
    assert isinstance(result, dict)
    return result


def from_json(cls: type[T], data: Any, source: str) -> T:
    """The inverse of `to_json`: an instance of the dataclass `cls`.

    `source` is the file that the data came from and begins every message. A key that is missing takes the default of
    its field, so that a configuration written before the field existed still opens; without a default it is an error.
    Raises InputError.
    """
    return _read(data, cls, _Place(source, ""))


def field_types(cls: type) -> dict[str, Any]:
    """The fields of a dataclass by name, with their annotations resolved and stripped of `Annotated`."""
    hints = typing.get_type_hints(cls)
    return {f.name: hints[f.name] for f in dataclasses.fields(cls) if f.init}


def alternatives(annotation: Any) -> tuple[Any, ...]:
    """The members of a union, or the annotation alone."""
    if typing.get_origin(annotation) in (Union, types.UnionType):
        return typing.get_args(annotation)
    return (annotation,)


def suggestion(word: str, known: Iterable[str]) -> str:
    """`; did you mean "levels"?`, or nothing when no known word is near."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean {near[0]}?" if near else ""


@dataclasses.dataclass(frozen=True)
class _Place:
    source: str
    path: str

    def __truediv__(self, key: str) -> _Place:
        return _Place(self.source, f"{self.path}.{key}" if self.path else key)

    def error(self, message: str) -> InputError:
        return InputError(f"{self.source}: {self.path}: {message}" if self.path else f"{self.source}: {message}")


def _write(value: Any, annotation: Any, path: str) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        hints = field_types(type(value))
        if _TAG in hints:
            raise TypeError(f"{path}: a configuration field cannot be called {_TAG!r}, which tags unions")
        tagged = sum(dataclasses.is_dataclass(a) for a in alternatives(annotation)) > 1
        head: dict[str, Any] = {_TAG: type(value).__name__} if tagged else {}
        return head | {name: _write(getattr(value, name), hints[name], f"{path}.{name}") for name in hints}
    if isinstance(value, tuple):
        elements = _elements(_member(annotation, tuple), len(value))
        return [_write(item, hint, f"{path}.{i}") for i, (item, hint) in enumerate(zip(value, elements, strict=True))]
    if isinstance(value, dict):
        hint = typing.get_args(_member(annotation, dict))[1]
        return {key: _write(item, hint, f"{path}.{key}") for key, item in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        raise TypeError(f"{path}: {value} is not a number that JSON can hold")
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"{path}: a configuration cannot hold a {type(value).__name__}")


def _member(annotation: Any, origin: type) -> Any:
    """The member of a union that is a `tuple[...]` or a `dict[...]`."""
    return next(a for a in alternatives(annotation) if typing.get_origin(a) is origin)


def _elements(annotation: Any, length: int) -> tuple[Any, ...]:
    """The annotations of a tuple's items, of which there are `length` if the tuple may have any number."""
    arguments = typing.get_args(annotation)
    return (arguments[0],) * length if arguments[1:] == (Ellipsis,) else arguments


def _read(data: Any, annotation: Any, place: _Place) -> Any:
    members = alternatives(annotation)
    if len(members) > 1:
        return _read_union(data, members, place)
    if dataclasses.is_dataclass(annotation) and isinstance(annotation, type):
        return _read_dataclass(data, annotation, place)
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Literal:
        if any(data == choice and type(data) is type(choice) for choice in arguments):
            return data
        choices = ", ".join(json.dumps(choice) for choice in arguments)
        near = suggestion(data, [c for c in arguments if isinstance(c, str)]) if isinstance(data, str) else ""
        raise place.error(f"expected one of {choices}, got {_shown(data)}{near}")
    if origin is tuple:
        return _read_tuple(data, annotation, place)
    if origin is dict:
        if not isinstance(data, dict):
            raise place.error(f"expected an object, got {_shown(data)}")
        return {key: _read(item, arguments[1], place / key) for key, item in data.items()}
    if annotation is Any:
        return data
    return _read_leaf(data, annotation, place)


def _read_union(data: Any, members: tuple[Any, ...], place: _Place) -> Any:
    if data is None and type(None) in members:
        return None
    classes = {m.__name__: m for m in members if dataclasses.is_dataclass(m) and isinstance(m, type)}
    if len(classes) > 1 and isinstance(data, dict):
        name = data.get(_TAG)
        if not isinstance(name, str) or name not in classes:
            near = suggestion(name, classes) if isinstance(name, str) else ""
            raise place.error(f'expected "{_TAG}" to be one of {", ".join(classes)}, got {_shown(name)}{near}')
        return _read_dataclass({key: item for key, item in data.items() if key != _TAG}, classes[name], place)
    failures = []
    for member in members:
        if member is type(None):
            continue
        try:
            return _read(data, member, place)
        except InputError as error:
            failures.append(error)
    if len(failures) == 1:
        raise failures[0]
    raise place.error(f"expected {' or '.join(map(_type_name, members))}, got {_shown(data)}")


def _read_dataclass(data: Any, cls: type, place: _Place) -> Any:
    if not isinstance(data, dict):
        raise place.error(f"expected an object with the fields of {cls.__name__}, got {_shown(data)}")
    hints = field_types(cls)
    for key in data:
        if key not in hints:
            raise place.error(f"{cls.__name__} has no field {json.dumps(key)}{suggestion(key, hints)}")
    values = {
        f.name: _read(_with_tag(data[f.name], hints[f.name], f.default), hints[f.name], place / f.name)
        for f in dataclasses.fields(cls)
        if f.name in data
    }
    for f in dataclasses.fields(cls):
        if f.init and f.name not in data and f.default is f.default_factory is dataclasses.MISSING:
            raise place.error(f'the field "{f.name}" of {cls.__name__} is missing')
    try:
        return cls(**values)
    except (ValueError, InputError) as error:
        raise place.error(str(error)) from None


def _with_tag(data: Any, annotation: Any, default: Any) -> Any:
    """Data that were written before there was a choice say nothing of it."""
    is_choice = sum(dataclasses.is_dataclass(a) for a in alternatives(annotation)) > 1
    if is_choice and dataclasses.is_dataclass(default) and isinstance(data, dict) and _TAG not in data:
        return {_TAG: type(default).__name__, **data}
    return data


def _read_tuple(data: Any, annotation: Any, place: _Place) -> tuple[Any, ...]:
    if not isinstance(data, list):
        raise place.error(f"expected a list, got {_shown(data)}")
    elements = _elements(annotation, len(data))
    if len(data) != len(elements):
        raise place.error(f"expected a list of {len(elements)}, got {len(data)} values")
    return tuple(_read(item, hint, place / str(i)) for i, (item, hint) in enumerate(zip(data, elements, strict=True)))


def _read_leaf(data: Any, annotation: Any, place: _Place) -> Any:
    if annotation is float and type(data) is int and abs(data) < 2**53:
        return float(data)
    if annotation in (bool, int, float, str, type(None)):
        if type(data) is annotation and not (isinstance(data, float) and not math.isfinite(data)):
            return data
        raise place.error(f"expected {_type_name(annotation)}, got {_shown(data)}")
    raise TypeError(f"{place.path}: {annotation} cannot be read from JSON")


def _type_name(annotation: Any) -> str:
    return "null" if annotation is type(None) else getattr(annotation, "__name__", str(annotation))


def _shown(data: Any) -> str:
    try:
        text = json.dumps(data)
    except RecursionError:
        return "a deeply nested value"
    return text if len(text) <= 60 else text[:57] + "..."
