"""What one call of `fieldfit fit` fits: a new run, or one to go on with."""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import tyro

from fields.commands.arguments import UsageError, one_of, override
from fields.commands.device import DeviceName, choose_device
from fields.commands.view import ServeOptions
from fields.doctor import cache_folder
from fields.field import Field, RadianceField, build, gpu_only, initialise
from fields.presets import Config, DynamicsName, EncodingName, FieldName, NetworkName, preset, preset_of, with_dynamics
from fields.run import Checkpoint, Data, Run
from scenes import load
from scenes.errors import InputError
from scenes.scene import LoadOptions, Scene

PROG = "fieldfit fit"
DEMO_MINUTES = {"demo": 0.5, "demo-dynamic": 2.0}
"""The built-in captures, and how long they are fitted."""


@dataclass(frozen=True)
class FitOptions:
    """Options of `fieldfit fit`."""

    path: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="PATH")]
    """An image, a mesh, a video, a folder or JSON of posed photographs; `demo` or `demo-dynamic`, captures that are
    made for it; or a run, to go on with it."""
    out: Path | None = None
    """The run's folder. By default runs/NAME, with a number behind it where that is taken: nothing is overwritten."""
    minutes: float | None = None
    """Wall time of fitting; loading and evaluation are not counted."""
    steps: int | None = None
    """Number of steps, instead of a time."""
    device: DeviceName = "auto"
    """Where it runs; auto takes a GPU if torch can use one."""
    resume: bool = False
    """Go on with the run that --out names, or with the latest one of this name."""
    encoding: str | None = None
    """How coordinates become features: hash or dense grids, dif (tiled grids), neurbf (kernels in space), tensorf
    (planes times lines), cp (lines), triplane, frequency, rff (random Fourier features) or coordinates, or tcnn-hash,
    for which tiny-cuda-nn must be installed; by default the preset's."""
    network: str | None = None
    """What turns features into values: mlp, silu, siren, mfn, bottleneck or glu; rbf, Gaussian neurons; cam, modulated
    by grids over coordinates; networks of learned functions, kan-spline, kan-rbf, kan-chebyshev, kan-fourier,
    kan-wavelet or kan-rational, or s-kan, which chooses among those; or tcnn-mlp, which needs tiny-cuda-nn; by
    default the preset's."""
    field: str | None = None
    """A published pair of the two by its name: ngp, siren, mfn, cam, rbf, kan, tensorf or triplane; `fieldfit fields`
    lists them with all parts."""
    dynamics: str | None = None
    """How a capture whose photographs have times changes: static, time-features, deformation or space-time; by default
    the preset's."""
    view: bool = False
    """Look at it in the browser while it is fitted, and afterwards until Ctrl-C; the address is printed."""
    serve: tyro.conf.OmitArgPrefixes[ServeOptions] = ServeOptions()
    """Where --view listens."""
    profile: bool = False
    """Print milliseconds per step by stage at the end, and draw them over time in the run's profile.png."""
    load: tyro.conf.OmitArgPrefixes[LoadOptions] = dataclasses.field(default_factory=LoadOptions)
    """How the data are loaded; --seed is that of fitting too."""


@dataclass(frozen=True)
class Job:
    """All that is fitted."""

    run: Run
    scene: Scene
    field: Field | RadianceField
    checkpoint: Checkpoint | None
    """Where to go on."""
    is_new: bool


def start(options: FitOptions, overrides: Sequence[str]) -> Job:
    """A new run. Nothing is written before all that can be wrong was looked at. Raises InputError and UsageError."""
    encoding, network, named = _names(options)
    dynamics = one_of(DynamicsName, options.dynamics, "--dynamics")
    if options.out is not None:
        Run.refuse_taken(options.out)
    data = data_path(options.path)
    scene = load(data, options=options.load)
    config = preset_of(scene, named) if named else preset(scene, encoding=encoding, network=network)
    config = config if dynamics is None else with_dynamics(config, dynamics)
    config = replace(config, fit=replace(config.fit, seed=options.load.seed))
    if options.path in DEMO_MINUTES:
        config = replace(config, fit=replace(config.fit, minutes=DEMO_MINUTES[options.path]))
    config = _configure(config, options, overrides)
    describe = scene.describe()
    built = _build(config, describe)
    _expect_device(config, options.device)
    stored = Data(str(data.resolve()), scene.fingerprint(), options.load)
    folder = options.out or _free_folder(run_name(options.path))
    return Job(Run.create(folder, config, describe, stored), scene, built, None, is_new=True)


def resume(options: FitOptions, overrides: Sequence[str]) -> Job:
    """The run that PATH or --out name, or the latest of its name. Raises InputError when it cannot go on with this."""
    itself = is_run(options.path)
    opened = Run.open(options.out or (Path(options.path) if itself else _latest_folder(run_name(options.path))))
    opened.lock()
    if options.encoding or options.network or options.field or options.dynamics:
        raise InputError(
            f"{opened.path}: --encoding, --network, --field and --dynamics are fixed once a run exists; start another "
            "run"
        )
    _refuse_other_loading(opened, options.load)
    data = Path(opened.data.path) if itself else data_path(options.path)
    scene = load(data, options=opened.data.options)
    if scene.fingerprint() != opened.data.fingerprint:
        raise InputError(
            f"{data}: holds other data than {opened.path} was fitted to; give those, or start one without --resume"
        )
    config = _configure(opened.config, options, overrides)
    if config.field != opened.config.field:
        raise InputError(f"{opened.path}: --field options are fixed once a run exists; start another run")
    checkpoint = opened.checkpoint()
    built = _build(config, opened.scene) if checkpoint is None else opened.load(checkpoint.field)
    _expect_device(config, options.device)
    opened.reconfigure(config, replace(opened.data, path=str(data.resolve())))
    opened.rewind(checkpoint.step if checkpoint else 0)
    return Job(opened, scene, built, checkpoint, is_new=False)


def _names(options: FitOptions) -> tuple[EncodingName | None, NetworkName | None, FieldName | None]:
    """What the command line names: parts, or both by one name. Raises UsageError."""
    encoding = one_of(EncodingName, options.encoding, "--encoding")
    network = one_of(NetworkName, options.network, "--network")
    named = one_of(FieldName, options.field, "--field")
    if named and (encoding or network):
        raise UsageError(f"--field {named} names both parts; leave out --encoding and --network")
    return encoding, network, named


def _build(config: Config, describe: Mapping[str, Any]) -> Field | RadianceField:
    """The field as it is before its first step."""
    built = build(config.field, describe)
    initialise(built, config.fit.seed)
    return built


def _expect_device(config: Config, name: DeviceName) -> None:
    """Raise InputError where a part of the field does not run on the device of that name."""
    libraries = gpu_only(config.field)
    if libraries and choose_device(name).type != "cuda":
        raise InputError(f"--device {name}: {libraries} computes on an NVIDIA GPU only; take --device cuda")


def _configure(config: Config, options: FitOptions, overrides: Sequence[str]) -> Config:
    """A preset, or what a run stored, with what the command line says."""
    if options.minutes is not None:
        config = replace(config, fit=replace(config.fit, minutes=options.minutes, steps=None))
    if options.steps is not None:
        config = replace(config, fit=replace(config.fit, minutes=None, steps=options.steps))
    changed = override(config, overrides, prog=PROG)
    if changed.fit.minutes != config.fit.minutes and changed.fit.steps == config.fit.steps:
        changed = replace(changed, fit=replace(changed.fit, steps=None))  # steps would rule, and the option be ignored
    return changed


def _refuse_other_loading(opened: Run, given: LoadOptions) -> None:
    """Options that differ from the defaults were given by hand, and have to be those of the run."""
    default, ours = LoadOptions(), opened.data.options
    for name, value in vars(given).items():
        if value != vars(default)[name] and value != vars(ours)[name]:
            raise InputError(
                f"{opened.path}: was made with --{name.replace('_', '-')} {vars(ours)[name]}, which is fixed once a "
                "run exists; leave it out, or start another run"
            )


def is_run(path: str) -> bool:
    """Whether PATH is a run rather than data."""
    return (Path(path) / "config.json").exists() and (Path(path) / "renders").is_dir()


def data_path(path: str) -> Path:
    """Where the data are; those of a demo are made on first use."""
    if path not in DEMO_MINUTES:
        return Path(path)
    from scenes import demo

    sources = sorted(Path(demo.__file__).parent.glob("demo*.py"))
    key = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:12]
    folder = cache_folder() / f"{path}-{key}"  # another demo is another folder
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        unfinished = folder.with_name(f".{folder.name}.{time.time_ns()}")
        write = demo.write_demo if path == "demo" else demo.write_dynamic_demo
        write(unfinished)
        with suppress(OSError):  # another process was quicker, with the same content
            unfinished.rename(folder)
    return folder


def run_name(path: str) -> str:
    """What a run of this data is called by default."""
    resolved = Path(path).resolve()
    return resolved.parent.name if resolved.suffix.lower() == ".json" else resolved.stem


def _free_folder(name: str) -> Path:
    path, number = Path("runs") / name, 1
    while path.exists():
        number += 1
        path = Path("runs") / f"{name}-{number}"
    return path


def _latest_folder(name: str) -> Path:
    """The run with the highest number."""
    path, number = Path("runs") / name, 1
    while (follower := Path("runs") / f"{name}-{number + 1}").exists():
        path, number = follower, number + 1
    return path
