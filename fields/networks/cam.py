"""The perceptron with coordinate-aware modulation (CAM; Lee et al., ICLR 2024): every hidden layer's features are
normalised, then scaled and shifted by values from low-resolution grids over some of the sample's coordinates.

    h' = act(scale(at) norm(W h + b) + shift(at)),   scale = 1 and shift = 0 at first

The grids are no features: they only steer what a network makes of its usual input. Position and time are held at the
borders of their grids. A direction is (azimuth, elevation): azimuth wraps around, elevation covers the whole sphere
from pole to pole, and at a pole, where every azimuth is the same direction, the vertices share their mean, so that
scale and shift are continuous on the sphere.

Batches are random samples, and rays are packed: they leave out empty space and end at surfaces. A norm over the
channels of a sample (`layer`) does not notice. One over a ray's samples (`ray`) or over a whole frame (`instance`)
would depend on which samples a step happens to have, in fitting otherwise than in rendering, so both are refused.
"""

from __future__ import annotations

import math
from typing import assert_never

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from fields.contracts import At, AtShape
from fields.kernels import cam, reference
from fields.kernels.shapes import Activation, CamShape, MlpShape, ModulationAxis
from fields.networks.configs import CAM, Modulator
from scenes.errors import InputError

MAX_LAYERS = 15
MAX_AXES = 6
MAX_VALUES = 2**30
VERTICES_OF_POSITION = {1: 64, 2: 32, 3: 32, 4: 12}
VERTICES_OF_DIRECTION = (10, 5)
VERTICES_OF_TIME = 5


class CamPerceptron(nn.Module):
    """Linear layers, modulated, with an activation between; optionally reads a second input, one row per ray."""

    grids: Tensor

    def __init__(
        self, config: CAM, n_in: int, n_out: int, output_activation: Activation, at: AtShape | None = None
    ) -> None:
        super().__init__()
        if config.hidden_dim < 1 or not 1 <= config.hidden_layers <= MAX_LAYERS:
            raise InputError(
                f"cam: expected hidden_dim >= 1 and 1 to {MAX_LAYERS} hidden layers, "
                f"got {config.hidden_dim} and {config.hidden_layers}"
            )
        self.modulators = modulators_of(config, at)
        axes = axes_of(config, self.modulators, at)
        dims = (n_in, *(config.hidden_dim,) * config.hidden_layers, n_out)
        mlp = MlpShape(dims, config.activation, output_activation, bias=True)
        self.shape = CamShape(mlp, axes, config.modulated and config.channels == "each", is_normalised(config))
        if math.prod(self.shape.grids) > MAX_VALUES:
            raise InputError(
                f"cam: grids of {math.prod(self.shape.grids):,} values are too many; lower resolution, or take "
                "channels single"
            )
        self.params = nn.Parameter(torch.empty(mlp.size))
        identity = torch.tensor([1.0, 0.0])[:, None].expand(self.shape.grids).clone()
        if config.modulated:
            self.grids = nn.Parameter(identity)
        else:
            self.register_buffer("grids", identity, persistent=False)

    def grid_parameters(self) -> list[nn.Parameter]:
        """Scales and shifts of all layers."""
        return [self.grids] if isinstance(self.grids, nn.Parameter) else []

    def initialise(self, generator: torch.Generator) -> None:
        """He's uniform initialisation, and modulations that change nothing."""
        with torch.no_grad():
            layers = reference.mlp_layers(self.params, self.shape.mlp)
            for weight, bias in layers:
                bound = math.sqrt(6 / weight.shape[1])
                weight.uniform_(-bound, bound, generator=generator)
                assert bias is not None
                bias.uniform_(-bound / math.sqrt(6), bound / math.sqrt(6), generator=generator)
            layers[-1][0].mul_(0.5)
            self.grids[:, :, 0], self.grids[:, :, 1] = 1.0, 0.0

    def forward(
        self,
        x: Float[Tensor, "N X"],
        aux: Float[Tensor, "R A"] | None = None,
        index: Int[Tensor, " N"] | None = None,
        at: At | None = None,
    ) -> Float[Tensor, "N O"]:
        """Values for [x, aux[index]] at the samples' coordinates.

        Raises:
            InputError: a coordinate that modulates is not told.
        """
        return cam.cam(x, self.coordinates(x, at), self.params, self.joined_grids(), self.shape, aux, index)

    def coordinates(self, x: Float[Tensor, "N X"], at: At | None) -> Float[Tensor, "N D"]:
        """Those that modulate, in [0, 1]; an azimuth in turns, of either sign."""
        found: list[Tensor] = []
        for modulator in self.modulators:
            if at is None:
                raise InputError(f"cam: modulated over {modulator}, but not told where its samples lie")
            match modulator:
                case "position":
                    found.append(at.position)
                case "direction":
                    if (direction := at.direction) is None:
                        raise InputError(_NO_DIRECTION)
                    found.append(sphere(direction))
                case "time":
                    found.append(at.position[:, -1:] if at.time is None else at.time)
                case _:
                    assert_never(modulator)
        together = torch.cat(found, dim=1) if found else x.new_empty(len(x), 0)
        if together.shape[1] != len(self.shape.axes):
            raise InputError(
                f"cam: resolution has {len(self.shape.axes)} numbers for {together.shape[1]} coordinates that modulate"
            )
        return together

    def joined_grids(self) -> Float[Tensor, "H E 2 C"]:
        """The grids with one value at each pole."""
        if "direction" not in self.modulators:
            return self.grids
        sizes = [axis.vertices for axis in self.shape.axes]
        azimuth = next(i for i, axis in enumerate(self.shape.axes) if axis.wraps)
        inner, n_azimuths, n_elevations = math.prod(sizes[:azimuth]), *sizes[azimuth : azimuth + 2]
        grids = self.grids.view(len(self.grids), -1, n_elevations, n_azimuths, inner * 2 * self.grids.shape[-1])
        poles = grids[:, :, :: n_elevations - 1].mean(3, keepdim=True).expand(-1, -1, -1, n_azimuths, -1)
        return torch.cat([poles[:, :, :1], grids[:, :, 1:-1], poles[:, :, 1:]], dim=2).view(self.grids.shape)


_NO_DIRECTION = (
    "cam: over direction is for the colour network of a radiance field alone, since density and occupancy are the same "
    "from everywhere and other signals are not looked at; take over position"
)


def is_normalised(config: CAM) -> bool:
    """Whether the features of a layer are normalised. Raises InputError for a norm that batches do not allow."""
    match config.norm:
        case "none":
            return False
        case "layer":
            return True
        case "ray":
            raise InputError(
                "cam: norm ray is over a fixed number of samples of a ray, but rays are packed: they leave out empty "
                "space and end at surfaces; take norm none or layer"
            )
        case "instance":
            raise InputError(
                "cam: norm instance is over whole frames, but a step draws samples at random; take norm none or layer"
            )
        case _:
            assert_never(config.norm)


def modulators_of(config: CAM, at: AtShape | None) -> tuple[Modulator, ...]:
    """What modulates, by default as in the paper: time where there is one, else direction, else position.

    Raises:
        InputError: the network is not told what is asked for, or the same coordinate would modulate twice.
    """
    if not config.modulated:
        return ()
    if not config.over:
        if at is None:
            return ("position",)
        return ("time",) if at.time else ("direction",) if at.direction else ("position",)
    if len(set(config.over)) < len(config.over):
        raise InputError(f"cam: over names a coordinate twice: {', '.join(config.over)}")
    if at is not None and "direction" in config.over and not at.direction:
        raise InputError(_NO_DIRECTION)
    if at is not None and "time" in config.over and at.time is None:
        raise InputError("cam: over time is for videos and dynamic scenes; this signal has no time: take over position")
    if at is not None and at.time == "last" and {"time", "position"} <= set(config.over):
        raise InputError("cam: a video's position holds its time already; take over position, or time")
    return config.over


def axes_of(config: CAM, modulators: tuple[Modulator, ...], at: AtShape | None) -> tuple[ModulationAxis, ...]:
    """The axes of the grids: `resolution` as far as it goes, and defaults behind.

    Raises:
        InputError: resolution has too many numbers, or bad ones.
    """
    others = 2 * ("direction" in modulators) + ("time" in modulators)
    n_position = max(len(config.resolution) - others, 1) if at is None else at.position
    axes: list[tuple[str, int, bool]] = []
    for modulator in modulators:
        match modulator:
            case "position":
                default = VERTICES_OF_POSITION.get(n_position, 8)
                axes += [(f"position {d}", default, False) for d in range(n_position)]
            case "direction":
                axes += [("azimuth", VERTICES_OF_DIRECTION[0], True), ("elevation", VERTICES_OF_DIRECTION[1], False)]
            case "time":
                axes.append(("time", VERTICES_OF_TIME, False))
            case _:
                assert_never(modulator)
    if config.modulated and (len(config.resolution) > len(axes) or len(axes) > MAX_AXES):
        raise InputError(
            f"cam: resolution takes up to {min(len(axes), MAX_AXES)} numbers, one for each of "
            f"{', '.join(name for name, _, _ in axes)}; got {len(config.resolution)}"
        )
    found = []
    for i, (name, default, wraps) in enumerate(axes):
        vertices = config.resolution[i] if i < len(config.resolution) else default
        least = 3 if name == "elevation" else 1
        if vertices < least:
            raise InputError(f"cam: resolution of {name}: expected {least} or more, got {vertices}")
        found.append(ModulationAxis(vertices, wraps))
    return tuple(found)


def sphere(directions: Float[Tensor, "N 3"]) -> Float[Tensor, "N 2"]:
    """(azimuth, elevation): in turns from the x axis towards y, +-1/2 at most; from 0 at -z to 1 at +z."""
    x, y, z = directions.unbind(1)
    return torch.stack([torch.atan2(y, x) / math.tau, torch.atan2(z, torch.hypot(x, y)) / math.pi + 0.5], dim=1)
