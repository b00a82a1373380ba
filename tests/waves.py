"""Scenes without files, and runs that are fitted to one in a moment."""

from __future__ import annotations

from pathlib import Path

import torch

from fields.encodings import Hash
from fields.field import SignalFieldConfig
from fields.fitting import FitConfig
from fields.networks import MLP
from fields.presets import Config
from fields.run import Data, Run
from scenes.box import Box
from scenes.scene import Kind

FIELD = SignalFieldConfig(Hash(2, 2, 8, 4, 16), MLP(hidden_dim=16, hidden_layers=1))
DESCRIBED = {"kind": "image", "channels": 3, "box": [[0.0, 0.0], [8.0, 8.0]]}


class Waves:
    """A scene without files: three waves over the unit square."""

    kind: Kind = "image"
    box = Box((0.0, 0.0), (8.0, 8.0))

    def sample(self, n, generator):
        x = torch.rand(n, 2, generator=generator)
        return x, 0.5 + 0.5 * torch.sin(x.sum(1, keepdim=True) * torch.tensor([5.0, 9.0, 13.0]))

    def loss(self, predicted, target):
        return (predicted - target).square().mean()

    def evaluate(self, predict, split="test"):
        raise AssertionError("nothing evaluates these waves")

    def describe(self):
        return DESCRIBED

    def fingerprint(self):
        return "waves"


class Sphere:
    """The signed distance of a ball of radius 0.3 in the unit cube."""

    kind: Kind = "mesh"
    box = Box((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))

    def sample(self, n, generator):
        x = torch.rand(n, 3, generator=generator)
        return x, (x - 0.5).norm(dim=1, keepdim=True) - 0.3

    def loss(self, predicted, target):
        return (predicted - target).abs().mean()

    def evaluate(self, predict, split="test"):
        raise AssertionError("nothing evaluates this ball")

    def describe(self):
        return {"kind": "mesh", "channels": 1}

    def fingerprint(self):
        return "ball"


def config(steps: int) -> Config:
    return Config(FIELD, FitConfig(steps=steps, batch=256))


def new_run(path: Path, steps: int = 6) -> Run:
    return Run.create(path, config(steps), DESCRIBED, Data("/somewhere/waves.png", "waves"))
