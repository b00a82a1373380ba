"""Well-tuned configurations, one per kind of signal, as plain objects."""

from __future__ import annotations

import math
from dataclasses import astuple, dataclass, replace
from typing import Literal, assert_never

from fields.dynamics import Deformation, DynamicsConfig, SpaceTime, Static, TimeFeatures
from fields.encodings import (
    CP,
    Coordinates,
    Dense,
    DiF,
    EncodingConfig,
    Frequency,
    Hash,
    NeuRBF,
    RandomFourier,
    TcnnHash,
    TriPlane,
    VectorMatrix,
)
from fields.field import FieldConfig, RadianceFieldConfig, SignalFieldConfig
from fields.fitting import FitConfig
from fields.networks import (
    CAM,
    GLU,
    KAN,
    MFN,
    MLP,
    RBF,
    Bottleneck,
    Harmonics,
    NetworkConfig,
    RationalKAN,
    SelectableKAN,
    TcnnMLP,
)
from fields.optim import OptimiserConfig
from fields.rendering.occupancy import OccupancyConfig
from scenes.errors import InputError
from scenes.scene import Scene

EncodingName = Literal[
    "hash", "dense", "dif", "neurbf", "tensorf", "cp", "triplane", "frequency", "rff", "coordinates", "tcnn-hash"
]
KanName = Literal["kan-spline", "kan-rbf", "kan-chebyshev", "kan-fourier", "kan-wavelet", "kan-rational", "s-kan"]
NetworkName = Literal["mlp", "silu", "siren", "tcnn-mlp", "cam", "rbf", KanName, "mfn", "bottleneck", "glu"]
FieldName = Literal["ngp", "siren", "mfn", "cam", "rbf", "kan", "tensorf", "triplane"]
DynamicsName = Literal["static", "time-features", "deformation", "space-time"]


@dataclass(frozen=True)
class Config:
    """A field and how it is fitted: all that a run is made from, besides the data."""

    field: FieldConfig
    """Encoding, networks, and how rays march."""
    fit: FitConfig = FitConfig()
    """How long, how fast, from which seed."""


DYNAMIC_OCCUPANCY = OccupancyConfig(resolution=64, decay=0.95)
"""Where things move. A cell that holds something a twentieth of the time is not forgotten between the visits that find
it, and there are so few cells that slower steps visit them all."""


def preset(scene: Scene, *, encoding: EncodingName | None = None, network: NetworkName | None = None) -> Config:
    """The configuration for a scene; `encoding` and `network` replace the preset's own by name.

    Raises:
        InputError: the pair cannot work; the message says what would.
    """
    match scene.kind:
        case "image":
            config = image_preset(max(scene.box.size), math.prod(scene.box.size))
        case "mesh":
            config = mesh_preset()
        case "video":
            width, height, n_frames = scene.box.size
            config = video_preset(max(width, height), width * height, n_frames)
        case "capture":
            described = scene.describe()
            config = capture_preset(unbounded=bool(described["unbounded"]))
            if described["dynamic"]:
                config = with_dynamics(config, "space-time")
        case _:
            assert_never(scene.kind)
    config = _switched(config, encoding, network, len(scene.box.size))
    match config.field:
        case SignalFieldConfig(network=RationalKAN() as rational) if scene.kind == "mesh":  # normals need it smooth
            return replace(config, field=replace(config.field, network=replace(rational, denominator="even")))
        case SignalFieldConfig(network=CAM() as modulated) if scene.kind == "video":
            return replace(config, field=replace(config.field, network=over_frames(modulated, scene.box.size[2])))
        case _:
            return config


def preset_of(scene: Scene, name: FieldName) -> Config:
    """The configuration of a published architecture for a scene. Raises InputError as `preset`."""
    encoding, network = pair_of(name, scene.kind)
    config = preset(scene, encoding=encoding, network=network)
    match config.field:
        case SignalFieldConfig(Hash() as tables) if name == "cam" and scene.kind == "video":
            fewer = replace(tables, log2_table_size=max(tables.log2_table_size - FEWER_ENTRIES, 12))
            return replace(config, field=replace(config.field, encoding=fewer))
        case _:
            return config


FEWER_ENTRIES = 5
"""Powers of two by which tables of a modulated film are smaller: what tables do not tell of a frame, time tells, and
modulation is worth the more the smaller they are."""


def pair_of(name: FieldName, kind: str | None = None) -> tuple[EncodingName | None, NetworkName | None]:
    """The encoding and the network that a published architecture consists of, for a kind of signal; None where it is
    the preset's own."""
    match name:
        case "ngp":
            return None, None
        case "siren":
            return "coordinates", "siren"
        case "mfn":
            return "coordinates", "mfn"
        case "cam":
            return ("hash" if kind == "video" else "frequency"), "cam"  # a grid comes nearer to a film in minutes
        case "rbf":
            return "hash", "rbf"
        case "kan":
            return "hash", "kan-rbf"
        case "tensorf":
            return "tensorf", "mlp"
        case "triplane":
            return "triplane", "mlp"
        case _:
            assert_never(name)


def encoding_named(name: EncodingName) -> EncodingConfig:
    """What a name stands for, of some signal that can have it."""
    return _first_that_works(name, None).encoding


def network_named(name: NetworkName) -> NetworkConfig:
    """The same of a network; of a radiance field, that of its density."""
    field = _first_that_works(None, name)
    return field.network if isinstance(field, SignalFieldConfig) else field.density


def _first_that_works(encoding: EncodingName | None, network: NetworkName | None) -> FieldConfig:
    reasons: list[InputError] = []
    for config, dim in ((image_preset(512.0, 512.0**2), 2), (mesh_preset(), 3), (capture_preset(unbounded=False), 3)):
        try:
            return _switched(config, encoding, network, dim).field
        except InputError as error:
            reasons.append(error)
    raise reasons[0]


def image_preset(longest: float, pixels: float) -> Config:
    """A 2-D hash grid to pixel resolution, with room at its finest level for the square that holds the image."""
    size = min(max(math.ceil(math.log2(max(min(longest**2, 4 * pixels), 16))), 14), 22)
    encoding = Hash(
        levels=8,
        features_per_level=4,
        log2_table_size=size,
        base_resolution=16,
        finest_resolution=max(int(longest), 32),
    )
    return Config(
        SignalFieldConfig(encoding, MLP(hidden_layers=2)),
        FitConfig(minutes=min(max(pixels / 12e6, 0.2), 3.0), batch=2**14),
    )


def mesh_preset() -> Config:
    """A 3-D hash grid for signed distances."""
    encoding = Hash(levels=8, features_per_level=4, log2_table_size=17, base_resolution=16, finest_resolution=512)
    optimiser = OptimiserConfig(table_rate=5e-3, network_rate=2e-3)
    return Config(
        SignalFieldConfig(encoding, MLP(hidden_layers=2)), FitConfig(minutes=0.13, batch=2**14, optimiser=optimiser)
    )


def video_preset(longest: float, pixels: float, n_frames: float) -> Config:
    """A 3-D hash grid whose finest cells are a pixel wide and a frame long."""
    size = min(max(math.ceil(math.log2(pixels * n_frames / 8)), 14), 20)
    encoding = Hash(
        levels=8,
        features_per_level=4,
        log2_table_size=size,
        base_resolution=16,
        finest_resolution=max(int(longest), int(n_frames), 32),
    )
    return Config(
        SignalFieldConfig(encoding, MLP(hidden_layers=2)),
        FitConfig(minutes=min(max(pixels * n_frames / 3e6, 0.2), 3.0), batch=2**14),
    )


NETWORK_RATE = 1e-2
"""Of what radiance fields have besides tables, unless measured to be better with another: perceptrons of bounded ones
gain a quarter of a decibel by twice that, those of unbounded ones lose a tenth."""


def capture_preset(unbounded: bool) -> Config:
    """A radiance field whose tables stay in the cache, and whose networks are small: arithmetic is dear on a CPU."""
    encoding = Hash(levels=6, features_per_level=4, log2_table_size=17, base_resolution=16, finest_resolution=1024)
    if unbounded:
        encoding = replace(encoding, log2_table_size=18, finest_resolution=2048, levels=8)
    optimiser = OptimiserConfig(table_rate=2e-2, network_rate=NETWORK_RATE if unbounded else 2 * NETWORK_RATE)
    network = MLP(hidden_dim=64 if unbounded else 32, hidden_layers=1, precision="bfloat16")
    field = RadianceFieldConfig(encoding, density=network, color=network)
    return Config(field, FitConfig(minutes=5.0, batch=2**15, optimiser=optimiser))


def kan_trunk(network: KanName, has_grid: bool) -> NetworkConfig:
    """A network of learned functions by name: small behind a grid's features, larger where it does all the work."""
    hidden_dim, hidden_layers = (16, 1) if has_grid else (32, 2)
    match network:
        case "kan-spline":
            return KAN("spline", hidden_dim, hidden_layers)
        case "kan-rbf":
            return KAN("rbf", hidden_dim, hidden_layers)
        case "kan-chebyshev":
            return KAN("chebyshev", hidden_dim, hidden_layers)
        case "kan-fourier":
            return KAN("fourier", hidden_dim, hidden_layers)
        case "kan-wavelet":
            return KAN("dog", hidden_dim, hidden_layers)
        case "kan-rational":
            return RationalKAN() if has_grid else RationalKAN(hidden_dim=128, hidden_layers=3)
        case "s-kan":
            return SelectableKAN(hidden_dim, hidden_layers)
        case _:
            assert_never(network)


def with_dynamics(config: Config, name: DynamicsName) -> Config:
    """A radiance field that changes with time in the way of this name.

    Raises:
        InputError: the field is none of a capture.
    """
    if not isinstance(config.field, RadianceFieldConfig):
        raise InputError(f"--dynamics {name}: only captures change with time here; leave it out")
    dynamics: DynamicsConfig
    match name:
        case "static":
            dynamics = Static()
        case "time-features":
            dynamics = TimeFeatures()
        case "deformation":
            dynamics = Deformation()
        case "space-time":
            dynamics = SpaceTime()
        case _:
            assert_never(name)
    field = replace(config.field, dynamics=dynamics)
    if isinstance(dynamics, Static):
        return replace(config, field=replace(field, occupancy=OccupancyConfig()))
    fit = replace(config.fit, optimiser=replace(config.fit.optimiser, network_rate=NETWORK_RATE))
    return replace(config, field=replace(field, occupancy=DYNAMIC_OCCUPANCY), fit=fit)


def _added_planes(finest: int) -> TriPlane:
    """Of a signal; in 2-D there is one plane, a pyramid up to half of the pixels' resolution."""
    finest = max(min(finest // 2, 1024), 32)
    return TriPlane(features=8, levels=3, base_resolution=finest // 8, finest_resolution=finest, combine="sum")


def over_frames(network: CAM, n_frames: float) -> CAM:
    """A film's modulation: over time, each channel on its own, with a vertex for each frame."""
    return replace(network, over=("time",), resolution=(max(int(n_frames), 5),), channels="each")


def dif_preset(finest: int, dim: int) -> DiF:
    """Tiled grids whose finest cells are those of a grid with `finest` cells along an edge."""
    if dim != 2:
        return DiF()
    frequencies = DiF().frequencies
    cells = [max(round(finest / (2 * f)), 4) for f in frequencies]
    return DiF((4,) * len(cells), tuple(cells), frequencies)


def neurbf_preset(finest: int, dim: int) -> NeuRBF:
    """Kernels as dense as memory and time allow."""
    return NeuRBF(resolution=max(finest // 4, 4), features=32) if dim == 2 else NeuRBF(neighbours=5)


def _switched(config: Config, encoding: EncodingName | None, network: NetworkName | None, dim: int = 3) -> Config:
    """Replace encoding and network by name.

    Raises:
        InputError: the pair cannot work; the message says what would.
    """
    if encoding is None and network is None:
        return config
    old = config.field.encoding
    if network in ("siren", "mfn") and encoding is None:
        encoding = "coordinates"
    new: EncodingConfig = old
    is_radiance = isinstance(config.field, RadianceFieldConfig)
    finest = old.finest_resolution if isinstance(old, Hash) else 512
    match encoding:
        case "dense":
            new = Dense()
        case "frequency":
            new = Frequency()
        case "coordinates":
            new = Coordinates()
        case "hash":
            new = old if isinstance(old, Hash) else Hash()
        case "rff":
            new = RandomFourier(sigma=4.0 if is_radiance else 10.0)
        case "tensorf":
            new = VectorMatrix(resolution=256)
        case "cp":
            new = CP(resolution=512) if is_radiance else CP(rank=128, resolution=max(min(finest, 1024), 64))
        case "triplane":
            new = TriPlane() if is_radiance else _added_planes(finest)
        case "tcnn-hash":
            new = TcnnHash(*astuple(old)) if isinstance(old, Hash) else TcnnHash()
        case "dif":
            new = dif_preset(finest, dim)
        case "neurbf":
            new = neurbf_preset(finest, dim)
        case None:
            pass
        case _:
            assert_never(encoding)
    has_grid = isinstance(new, Hash | Dense | TcnnHash | VectorMatrix | CP | TriPlane | DiF | NeuRBF)
    if network is None:
        network = "siren" if isinstance(new, Coordinates) else "mlp"
    if network in ("mlp", "silu", "tcnn-mlp", "bottleneck", "glu", "rbf") and isinstance(new, Coordinates):
        raise InputError(f"--network {network} cannot read plain coordinates: take --network siren, or --encoding hash")
    wide = MLP(hidden_dim=128, hidden_layers=3, bias=True)
    trunk: NetworkConfig
    match network:
        case "mlp":
            trunk = MLP() if has_grid else wide
        case "silu":
            trunk = MLP(activation="silu") if has_grid else replace(wide, activation="silu")
        case "siren":
            omega = 1.0 if has_grid or isinstance(new, RandomFourier) else 30.0
            trunk = replace(wide, activation="sine", omega=omega)
        case "tcnn-mlp":
            trunk = TcnnMLP() if has_grid else TcnnMLP(hidden_dim=128, hidden_layers=3)
        case "cam":
            trunk = CAM() if has_grid else CAM(hidden_dim=256, hidden_layers=3)
        case "kan-spline" | "kan-rbf" | "kan-chebyshev" | "kan-fourier" | "kan-wavelet" | "kan-rational" | "s-kan":
            trunk = kan_trunk(network, has_grid)
        case "mfn":
            trunk = MFN() if isinstance(new, Coordinates) else MFN(hidden_dim=64, hidden_layers=2, omega=0.1)
        case "bottleneck":
            trunk = Bottleneck() if has_grid else Bottleneck(hidden_dim=256, bottleneck_dim=32, blocks=2)
        case "glu":
            trunk = GLU(hidden_dim=48) if has_grid else GLU(hidden_dim=96, hidden_layers=3)
        case "rbf":
            trunk = RBF()
        case _:
            assert_never(network)
    match config.field:
        case SignalFieldConfig():
            field: FieldConfig = replace(config.field, encoding=new, network=trunk)
        case RadianceFieldConfig():
            sines = isinstance(trunk, MFN)  # of position; a latent vector and a direction are better read without
            color = config.field.color if isinstance(trunk, MLP) or sines else trunk
            field = replace(config.field, encoding=new, density=trunk, color=color)
            if isinstance(trunk, RBF):  # the published head, and a decibel better than neurons for the colour too
                field = replace(field, color=Harmonics(), harmonics_degree=2, latent_dim=1 + 3 * 2**2)
        case _:
            assert_never(config.field)
    fit = config.fit
    if is_radiance and (new != old or network != "mlp"):
        fit = replace(fit, optimiser=replace(fit.optimiser, network_rate=NETWORK_RATE))
    if isinstance(new, VectorMatrix | CP | TriPlane):
        fit = replace(fit, optimiser=replace(fit.optimiser, table_rate=2e-2, network_rate=5e-3))
    if not has_grid:
        fit = replace(fit, optimiser=replace(fit.optimiser, network_rate=1e-3), batch=2**14)
    return Config(field, fit)
