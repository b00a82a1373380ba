"""fields.configuration: dataclasses to JSON and back; every mistake in a file names its place."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from fields.configuration import alternatives, field_types, from_json, suggestion, to_json
from scenes.errors import InputError


@dataclass(frozen=True)
class Hash:
    levels: int = 8
    growth: float | None = None


@dataclass(frozen=True)
class Frequency:
    octaves: int = 6
    kind: Literal["sine", "cosine"] = "sine"


@dataclass(frozen=True)
class Network:
    encoding: Hash | Frequency
    extra: Hash | Frequency | None = None
    stack: tuple[Hash | Frequency, ...] = ()
    box: tuple[float, float, int] | None = None
    name: Annotated[str, "a remark"] = "x"
    weights: dict[str, float] = dataclasses.field(default_factory=dict)
    flag: bool = False

    def __post_init__(self):
        if self.name == "":
            raise ValueError("a network needs a name")


PLAIN = Network(Hash())


def roundtrip(value):
    return from_json(type(value), json.loads(json.dumps(to_json(value))), "file.json")


hashes = st.builds(Hash, st.integers(), st.none() | st.floats(allow_nan=False, allow_infinity=False))
encodings = hashes | st.builds(Frequency, st.integers(), st.sampled_from(["sine", "cosine"]))
finite = st.floats(allow_nan=False, allow_infinity=False)
networks = st.builds(
    Network,
    encodings,
    st.none() | encodings,
    st.lists(encodings, max_size=3).map(tuple),
    st.none() | st.tuples(finite, finite, st.integers()),
    st.text(min_size=1),
    st.dictionaries(st.text(), finite, max_size=3),
    st.booleans(),
)


@given(networks)
def test_what_is_written_is_read_back(network: Network):
    assert roundtrip(network) == network


def test_a_member_of_a_union_carries_its_class_name_and_nothing_else_does():
    assert to_json(Network(Frequency(2), stack=(Hash(1),))) == {
        "encoding": {"type": "Frequency", "octaves": 2, "kind": "sine"},
        "extra": None,
        "stack": [{"type": "Hash", "levels": 1, "growth": None}],
        "box": None,
        "name": "x",
        "weights": {},
        "flag": False,
    }
    assert to_json(Hash()) == {"levels": 8, "growth": None}


def test_a_missing_key_takes_its_default():
    assert from_json(Network, {"encoding": {"type": "Hash"}}, "f") == PLAIN


@dataclass(frozen=True)
class Chosen:
    encoding: Hash | Frequency = Frequency()


def test_without_its_name_a_member_is_that_of_the_default():
    """What was written before there was a choice."""
    assert from_json(Chosen, {"encoding": {"octaves": 2}}, "f") == Chosen(Frequency(2))
    assert from_json(Chosen, {"encoding": {"type": "Hash"}}, "f") == Chosen(Hash())
    with pytest.raises(InputError, match=r'^f: encoding: Frequency has no field "levels"$'):
        from_json(Chosen, {"encoding": {"levels": 2}}, "f")


def test_an_integer_is_a_float_but_not_the_reverse():
    assert from_json(Hash, {"growth": 2}, "f").growth == 2.0
    assert isinstance(from_json(Hash, {"growth": 2}, "f").growth, float)
    with pytest.raises(InputError, match=r"^f: levels: expected int, got 2\.0$"):
        from_json(Hash, {"levels": 2.0}, "f")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"encoding": {"type": "Hash", "levls": 3}}, 'f: encoding: Hash has no field "levls"; did you mean levels?'),
        (
            {"encoding": {"type": "Hsh"}},
            'f: encoding: expected "type" to be one of Hash, Frequency, got "Hsh"; did you',
        ),
        ({"encoding": {}}, 'f: encoding: expected "type" to be one of Hash, Frequency, got null'),
        ({"encoding": {"type": ["Hash"]}}, 'f: encoding: expected "type" to be one of Hash, Frequency, got ["Hash"]'),
        ({"encoding": 3}, "f: encoding: expected Hash or Frequency, got 3"),
        ({"encoding": {"type": "Hash", "levels": "8"}}, 'f: encoding.levels: expected int, got "8"'),
        ({"encoding": {"type": "Hash", "levels": True}}, "f: encoding.levels: expected int, got true"),
        ({"encoding": {"type": "Hash", "growth": math.inf}}, "f: encoding.growth: expected float, got Infinity"),
        ({"encoding": {"type": "Hash", "growth": 10**400}}, "f: encoding.growth: expected float, got 1000"),
        (
            {"encoding": {"type": "Frequency", "kind": "sin"}},
            'f: encoding.kind: expected one of "sine", "cosine", got "sin"; did you mean sine?',
        ),
        (
            {"encoding": {"type": "Frequency", "kind": ["sine"]}},
            'f: encoding.kind: expected one of "sine", "cosine", got',
        ),
        ({"box": [1, 2]}, "f: box: expected a list of 3, got 2 values"),
        ({"box": [1, 2, 3.5]}, "f: box.2: expected int, got 3.5"),
        ({"box": {"0": 1}}, 'f: box: expected a list, got {"0": 1}'),
        ({"stack": [{"type": "Hash"}, {"type": "Hash", "levels": None}]}, "f: stack.1.levels: expected int, got null"),
        ({"weights": [1]}, "f: weights: expected an object, got [1]"),
        ({"weights": {"a": "b"}}, 'f: weights.a: expected float, got "b"'),
        ({"flag": 1}, "f: flag: expected bool, got 1"),
        ({"name": ""}, "f: a network needs a name"),
    ],
)
def test_a_mistake_is_named_with_its_place(change: dict[str, Any], message: str):
    with pytest.raises(InputError) as error:
        from_json(Network, json.loads(json.dumps(to_json(PLAIN) | change)), "f")
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_a_field_without_default_must_be_there():
    with pytest.raises(InputError, match=r'^f: the field "encoding" of Network is missing$'):
        from_json(Network, {}, "f")
    with pytest.raises(InputError, match=r"^f: expected an object with the fields of Network, got \[\]$"):
        from_json(Network, [], "f")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | finite | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*field_types(Network), "type"]), inner)
    ),
    max_leaves=12,
)


@given(json_values)
def test_any_json_is_read_or_refused_with_one_line(data: Any):
    try:
        network = from_json(Network, data, "f")
    except InputError as error:
        network, message = None, str(error)
        event("refused")
    else:
        message = ""
    assert "\n" not in message
    assert network is None or roundtrip(network) == network


@dataclass(frozen=True)
class Tagged:
    type: str = ""


@dataclass(frozen=True)
class Holder:
    anything: Any


@pytest.mark.parametrize("value", [Tagged(), Holder(math.nan), Holder(object()), Holder({1, 2}), 3, Hash])
def test_what_json_cannot_hold_is_refused_when_it_is_written(value: Any):
    with pytest.raises(TypeError):
        to_json(value)


def test_annotations_are_resolved():
    assert field_types(Network)["name"] is str
    assert alternatives(field_types(Network)["extra"]) == (Hash, Frequency, type(None))
    assert alternatives(int) == (int,)


def test_suggestion():
    assert suggestion("--minuts", ["--minutes", "--steps"]) == "; did you mean --minutes?"
    assert suggestion("--zzz", ["--minutes"]) == ""
