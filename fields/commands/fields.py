"""`fieldfit fields`: the encodings and networks that fields are made of, with what each is good for."""

from __future__ import annotations

import dataclasses
import inspect
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, get_args

from fields.commands.arguments import parse
from fields.presets import EncodingName, FieldName, NetworkName, encoding_named, network_named, pair_of

DESCRIPTION = "The encodings, the networks and the published pairs of them that `fieldfit fit` knows by name."
GOOD_FOR = {
    "hash": "nearly everything, in seconds; the preset of images, meshes and captures",
    "dense": "small scenes without collisions of hashing; memory grows with the cube of the resolution",
    "frequency": "small fields, a few hundred kilobytes at most, where time matters less",
    "coordinates": "networks that make frequencies themselves: siren, mfn",
    "tcnn-hash": "NVIDIA GPUs with tiny-cuda-nn",
    "mlp": "reading the features of a grid",
    "silu": "the same where values should have smooth derivatives, such as distances",
    "siren": "tiny smooth fields, and derivatives of any order",
    "tcnn-mlp": "NVIDIA GPUs with tiny-cuda-nn",
    "mfn": "tiny fields of which every frequency is known, and kernels of any size",
    "bottleneck": "deep networks of few parameters",
    "glu": "features that should switch one another on and off; two products a layer",
    "cam": "small files whose hidden features should change from place to place, or from time to time",
    "rbf": "fields whose neurons are to be looked at one by one; on a mesh, a perceptron of the preset was closer",
    "kan-rbf": "seeing which function of which feature is learned",
    "kan-rational": "perceptrons whose activations are learned",
    "s-kan": "trying several kinds of functions at once; the one that it keeps is not always the best",
    "tensorf": "radiance fields whose files are small and whose volume is fine",
    "cp": "the smallest files of fine grids",
    "triplane": "smooth volumes; few collisions at a memory of squares rather than cubes",
    "rff": "small fields where frequency favours the axes",
    "kan": "seeing which function of which feature is learned",
    "ngp": "nearly everything, in seconds",
}
"""By name, where it is known."""


@dataclass(frozen=True)
class FieldsOptions:
    """Options of `fieldfit fields`."""


def run(argv: Sequence[str]) -> int:
    """Returns 0."""
    parse(FieldsOptions, argv, prog="fieldfit fields", description=DESCRIPTION)
    sections = {
        "encodings, from coordinates to features (--encoding NAME)": {
            name: described(encoding_named(name)) for name in get_args(EncodingName)
        },
        "networks, from features to values (--network NAME)": {
            name: described(network_named(name)) for name in get_args(NetworkName)
        },
        "published pairs of the two (--field NAME)": {name: pair(name) for name in get_args(FieldName)},
    }
    width = max(len(name) for section in sections.values() for name in section)
    for title, section in sections.items():
        print(f"{title}:")
        for name, text in section.items():
            for line, prefix in ((text, f"  {name:<{width}}  "), (_good_for(name), " " * (width + 4))):
                if line:
                    print(textwrap.fill(line, 118, initial_indent=prefix, subsequent_indent=" " * (width + 4)))
    return 0


def described(config: Any) -> str:
    """The first paragraph of a configuration's docstring, and the choices by which it is not the default."""
    line = (inspect.getdoc(type(config)) or "").partition("\n\n")[0].replace("\n", " ").rstrip(".")
    values = vars(config)
    chosen = [
        f"{f.name} {values[f.name]}"
        for f in dataclasses.fields(config)
        if isinstance(values[f.name], str) and values[f.name] != f.default
    ]
    return f"{line}; {', '.join(chosen)}" if chosen else line


def pair(name: FieldName) -> str:
    """What a published field consists of."""
    usual, of_films = (
        f"{encoding or 'the preset'} + {network}" if encoding or network else "the preset of each kind of signal"
        for encoding, network in (pair_of(name), pair_of(name, "video"))
    )
    return usual if of_films == usual else f"{usual}; of a film, {of_films}"


def _good_for(name: str) -> str:
    return f"good for {GOOD_FOR[name]}" if name in GOOD_FOR else ""
