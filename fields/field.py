"""Fields: maps from the unit cube to values, of an encoding and a network, and what radiance fields add to them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, assert_never

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from fields.contracts import At, AtShape, Calibrated, Initialised
from fields.dynamics import DynamicsConfig, Static, build_dynamics
from fields.encodings import EncodingConfig, Hash, TcnnHash, build_encoding
from fields.kernels import ops, reference
from fields.networks import MLP, NetworkConfig, TcnnMLP, build_network
from fields.rendering import nerfacc_march
from fields.rendering.occupancy import Occupancy, OccupancyConfig
from scenes.box import Box
from scenes.errors import InputError
from scenes.scene import Kind

CALIBRATION_POINTS = 2048


@dataclass(frozen=True)
class SignalFieldConfig:
    """A field of values at coordinates: the colours of an image or a film, a mesh's signed distance."""

    encoding: EncodingConfig = Hash()
    """From coordinates to features."""
    network: NetworkConfig = MLP()
    """From features to values."""


@dataclass(frozen=True)
class MarchConfig:
    """How rays step through a radiance field. Lengths are edges of the unit cube."""

    steps: int = 384
    """Steps along the cube's diagonal."""
    cone_angle: float = 0.0
    """Steps grow with distance by this factor; 0 keeps them equal."""
    near: float = 0.05
    """Nothing is in front of this distance from the camera."""
    far: float = 1000.0
    """Nothing is behind this distance."""
    marcher: Literal["fieldfit", "nerfacc"] = "fieldfit"
    """What finds the steps; nerfacc needs that library and an NVIDIA GPU, and marches in bounded scenes only."""


@dataclass(frozen=True)
class RadianceFieldConfig:
    """Density and view-dependent colour (Mildenhall et al. 2020), in the two-network form of instant-ngp."""

    encoding: EncodingConfig = Hash()
    """From coordinates to features."""
    density: NetworkConfig = MLP(hidden_layers=1)
    """From features to the latent, whose first value is log density."""
    color: NetworkConfig = MLP(hidden_layers=1)
    """From latent and direction to colour."""
    latent_dim: int = 16
    """Values between the two networks."""
    harmonics_degree: int = 4
    """Directions are encoded in this many bands of spherical harmonics, 1 to 4."""
    march: MarchConfig = MarchConfig()
    """How rays step."""
    occupancy: OccupancyConfig = OccupancyConfig()
    """Which cells rays stop in."""
    dynamics: DynamicsConfig = Static()
    """How it changes with time, if it does."""


FieldConfig: TypeAlias = SignalFieldConfig | RadianceFieldConfig


class Field(nn.Module):
    """Unit cube to values."""

    def __init__(
        self, config: SignalFieldConfig, dim: int, channels: int, duration: tuple[float, float] | None = None
    ) -> None:
        super().__init__()
        self.dim = dim
        self.duration = duration
        """Of a film: where its time, the last coordinate, begins and ends in the unit cube."""
        self.encoding = build_encoding(config.encoding, dim)
        at = AtShape(dim, time=None if duration is None else "last")
        self.network = build_network(config.network, self.encoding.width, channels, at=at)

    def forward(self, x: Float[Tensor, "N D"]) -> Float[Tensor, "N C"]:
        """Values at points of the unit cube."""
        return self.network(self.encoding(x), at=self._at(x))

    def _at(self, x: Float[Tensor, "N D"]) -> At:
        """Where the samples lie, as networks see it: the time of a film fills [0, 1]."""
        if self.duration is None:
            return At(x)
        begin, end = self.duration
        time = (x[:, -1:] - begin) / (end - begin)
        return At(torch.cat((x[:, :-1], time), dim=1), time=time)

    def calibrate(self, generator: torch.Generator) -> None:
        """Show the network features of random points, if it wants to see some."""
        if isinstance(self.network, Calibrated):
            x = torch.rand(CALIBRATION_POINTS, self.dim, generator=generator).to(next(self.parameters()).device)
            self.network.calibrate(self.encoding(x), generator)


class RadianceField(nn.Module):
    """Field coordinates and directions, and times where it is dynamic, to colour and density, with the occupancy that
    marching reads.

    Field coordinates fill the unit cube. Of a bounded scene they are the unit cube's own; of an unbounded one the cube
    keeps the middle half of each axis, and what lies outside is squashed around it (`reference.contract`).
    Density is per edge of the scene's unit cube, and lengths along rays are in the same unit. Times lie in [0, 1]; a
    static field ignores them. The occupancy of a dynamic field is of all times together.
    """

    background: nn.Parameter | None

    def __init__(self, config: RadianceFieldConfig, box: Box, unbounded: bool) -> None:
        super().__init__()
        self.box, self.unbounded = box, unbounded
        self.harmonics_degree = config.harmonics_degree
        self.encoding = build_encoding(config.encoding, 3)
        self.dynamics = build_dynamics(config.dynamics)
        width = self.encoding.width + (0 if self.dynamics is None else self.dynamics.width)
        at = AtShape(3, time=None if self.dynamics is None else "own")
        self.density_network = build_network(config.density, width, config.latent_dim, at=at)
        direction_dim = config.harmonics_degree**2
        seen = at._replace(direction=True)
        self.color_network = build_network(config.color, config.latent_dim + direction_dim, 3, "sigmoid", seen)
        self.occupancy = Occupancy(config.occupancy)
        self.march = config.march
        if config.march.marcher == "nerfacc":
            if self.dynamics is not None:
                raise InputError("--field.march.marcher nerfacc: marches through static fields only; take fieldfit")
            nerfacc_march.expect_usable(unbounded)
        # What a ray that leaves an unbounded scene sees; bounded scenes have the background of their data.
        self.background = nn.Parameter(torch.zeros(3)) if unbounded else None

    def features(self, x: Float[Tensor, "N 3"], time: Float[Tensor, "N 1"] | None = None) -> Float[Tensor, "N K"]:
        """What the density network reads.

        Raises:
            InputError: the field is dynamic, and no times are given.
        """
        if self.dynamics is None:
            return self.encoding(x)
        if time is None:
            raise InputError("the field is dynamic: expected times with its points or rays, got none")
        return self.dynamics(self.encoding, x, time)

    def latent(
        self,
        x: Float[Tensor, "N 3"],
        time: Float[Tensor, "N 1"] | None = None,
        features: Float[Tensor, "N K"] | None = None,
    ) -> Float[Tensor, "N Z"]:
        """What both networks share; its first value is log density. `features` are those there, if they are known."""
        if features is None:
            features = self.features(x, time)
        return self.density_network(features, at=At(x, time=time))

    def calibrate(self, generator: torch.Generator) -> None:
        """Show the networks what they will see at random points and times, if they want to."""
        device = self.occupancy.bits.device
        x = torch.rand(CALIBRATION_POINTS, 3, generator=generator).to(device)
        time = None if self.dynamics is None else torch.rand(len(x), 1, generator=generator).to(device)
        if isinstance(self.density_network, Calibrated):
            self.density_network.calibrate(self.features(x, time), generator)
        if isinstance(self.color_network, Calibrated):
            directions = nn.functional.normalize(torch.randn(len(x), 3, generator=generator), dim=1).to(device)
            harmonics = ops.harmonics(directions, self.harmonics_degree)
            self.color_network.calibrate(torch.cat([self.latent(x, time), harmonics], dim=1), generator)

    def density(self, x: Float[Tensor, "N 3"], time: Float[Tensor, "N 1"] | None = None) -> Float[Tensor, " N"]:
        """sigma at field coordinates."""
        return reference.activate("exp", self.latent(x, time)[:, 0])

    def sometime(self, generator: torch.Generator) -> Callable[[Tensor], Tensor]:
        """Points [N, 3] to their density, of a dynamic field each at a random time: what its occupancy is made from."""
        if self.dynamics is None:
            return self.density

        def sigma(x: Tensor) -> Tensor:
            time = torch.rand(len(x), 1, generator=generator, device=generator.device).to(x)
            return self.density(x, time)

        return sigma

    def color(
        self,
        latent: Float[Tensor, "N Z"],
        x: Float[Tensor, "N 3"],
        directions: Float[Tensor, "R 3"],
        index: Int[Tensor, " N"] | None = None,
        time: Float[Tensor, "N 1"] | None = None,
    ) -> Float[Tensor, "N 3"]:
        """Colour of each sample at x, seen along `directions[index]`."""
        at = At(x, directions, time, index)
        return self.color_network(latent, ops.harmonics(directions, self.harmonics_degree), index, at)

    def forward(
        self, x: Float[Tensor, "N 3"], d: Float[Tensor, "N 3"], time: Float[Tensor, "N 1"] | None = None
    ) -> tuple[Tensor, Tensor]:
        """(rgb [N, 3] in the display's colour space, sigma [N]) at field coordinates x, seen along directions d."""
        latent = self.latent(x, time)
        return self.color(latent, x, d, time=time), reference.activate("exp", latent[:, 0])

    def to_world(self, x: Float[Tensor, "N 3"]) -> Float[Tensor, "N 3"]:
        """Field coordinates to the user's own."""
        return self.box.from_unit(reference.uncontract(x) if self.unbounded else x)

    def from_world(self, x: Float[Tensor, "N 3"]) -> Float[Tensor, "N 3"]:
        """The user's own coordinates to field coordinates."""
        unit = self.box.to_unit(x)
        return reference.contract(unit) if self.unbounded else unit


def initialise(field: nn.Module, seed: int) -> None:
    """Draw all parameters anew from a seed."""
    generator = torch.Generator().manual_seed(seed)
    for module in field.modules():
        if isinstance(module, Initialised):
            module.initialise(generator)
    if isinstance(field, Field | RadianceField):
        with torch.no_grad():
            field.calibrate(generator)


def build(config: FieldConfig, describe: Mapping[str, Any]) -> Field | RadianceField:
    """The field of a configuration for the scene that `describe` (of `Scene.describe`) tells of, drawn from seed 0.

    Raises:
        InputError: the configuration cannot be built, or cannot be built here.
    """
    match config:
        case SignalFieldConfig():
            field = _signal_field(config, describe)
        case RadianceFieldConfig():
            if not isinstance(config.dynamics, Static) and not describe.get("dynamic", False):
                raise InputError("--dynamics: expected photographs of several times, got none with times; leave it out")
            field = RadianceField(config, Box.from_json(describe["box"]), bool(describe["unbounded"]))
        case _:
            assert_never(config)
    initialise(field, 0)
    return field


def _signal_field(config: SignalFieldConfig, describe: Mapping[str, Any]) -> Field:
    """Raises InputError."""
    kind: Kind = describe["kind"]
    match kind:
        case "image":
            return Field(config, 2, int(describe["channels"]))
        case "video":
            box = Box.from_json(describe["box"])
            duration = box.to_unit(torch.tensor([box.lo, box.hi], dtype=torch.float64))[:, 2].tolist()
            return Field(config, 3, 3, (duration[0], duration[1]))
        case "mesh":
            return Field(config, 3, 1)
        case "capture":
            raise InputError("a capture needs a radiance field, got the configuration of a field of values")
        case _:
            assert_never(kind)


def gpu_only(config: FieldConfig) -> str:
    """The libraries of this configuration that compute on NVIDIA GPUs only, in words; nothing where there are none."""
    match config:
        case SignalFieldConfig():
            parts, nerfacc = (config.encoding, config.network), False
        case RadianceFieldConfig():
            parts, nerfacc = (config.encoding, config.density, config.color), config.march.marcher == "nerfacc"
        case _:
            assert_never(config)
    names = ["tiny-cuda-nn"] if any(isinstance(part, TcnnHash | TcnnMLP) for part in parts) else []
    return " and ".join([*names, "nerfacc"] if nerfacc else names)
