"""`fieldfit compare`: several fields fitted to the same data for the same time, and a page of what came of it."""

from __future__ import annotations

import dataclasses
import gc
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, get_args

import tyro

from fields.commands.arguments import UsageError, one_of, parse
from fields.commands.contender import (
    Contender,
    Contest,
    Outcome,
    fit_contender,
    open_or_create,
    outcome,
    to_json,
)
from fields.commands.device import DeviceName, choose_device, where
from fields.commands.evaluate import number
from fields.commands.job import data_path, run_name
from fields.configuration import suggestion
from fields.field import build, gpu_only
from fields.files import read_json, version, write_json
from fields.presets import EncodingName, FieldName, NetworkName, preset, preset_of
from fields.probe import probe
from fields.run import Data, Run
from fields.sizing import with_parameters
from scenes import load
from scenes.errors import InputError
from scenes.scene import LoadOptions, Scene

PROG = "fieldfit compare"
DESCRIPTION = """Fit several fields to the same data, each for the same time and from the same seed, and write what came
of it: a run for each, comparison.json, and report.html, a page that needs no other file. Fields that are there already
are not fitted again, so that a comparison can be interrupted, and grow."""
FORMAT = 1


@dataclass(frozen=True)
class CompareOptions:
    """Options of `fieldfit compare`."""

    path: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="PATH")]
    """An image, a mesh, or a folder or JSON of posed photographs; `demo`, a capture that is made for it."""
    fields: str
    """Which, separated by commas: pairs ENCODING+NETWORK such as hash+mlp, and names of published pairs such as ngp;
    `fieldfit fields` lists them all."""
    minutes: float | None = None
    """Wall time of fitting, for each; by default that of the kind of signal."""
    params: int | None = None
    """Make each field so large that it has about this many parameters."""
    out: Path | None = None
    """The comparison's folder. By default runs/NAME-comparison."""
    device: DeviceName = "auto"
    """Where it runs; auto takes a GPU if torch can use one."""
    load: tyro.conf.OmitArgPrefixes[LoadOptions] = dataclasses.field(default_factory=LoadOptions)
    """How the data are loaded; --seed is that of fitting too."""


def run(argv: Sequence[str]) -> int:
    """Returns 0, or 128 plus the number of the signal that stopped fitting."""
    options = parse(CompareOptions, argv, prog=PROG, description=DESCRIPTION)
    for flag, value in (("--minutes", options.minutes), ("--params", options.params)):
        if value is not None and not value > 0:
            raise UsageError(f"{flag}: expected a number above 0, got {value}")
    named: dict[str, Parts] = {name: parts_of(name) for name in _names(options.fields)}
    device = choose_device(options.device)
    folder = options.out or Path("runs") / f"{run_name(options.path)}-comparison"
    _refuse_taken(folder)
    data = data_path(options.path)
    scene = load(data, options=options.load)
    contenders = [_contender(name, parts, scene, options) for name, parts in named.items()]
    for contender in contenders:
        libraries = gpu_only(contender.config.field)
        if libraries and device.type != "cuda":
            raise InputError(f"{contender.name}: {libraries} computes on an NVIDIA GPU only; leave it out")
    stored = Data(str(data.resolve()), scene.fingerprint(), options.load)
    settings = {"data": stored.fingerprint, "params": options.params, "seed": options.load.seed}
    settings["minutes"] = contenders[0].config.fit.minutes
    _expect_same(folder, settings)
    contest = Contest(scene, scene.describe(), stored, probe(scene, options.load.seed), device)
    print(f"{folder}: {scene.kind}, {len(contenders)} fields, {where(device)}", flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    there = [c.name for c in contenders if (folder / c.name / "config.json").exists()]
    _write(folder, settings, contest, there)  # from now on the folder is known for what it is
    for contender in contenders:
        stopped = _fit(folder, contender, contest)
        if stopped:
            again = shlex.join([PROG, *argv])
            print(f"stopped and saved; go on with: {again}")
            return 128 + stopped
    found = _write(folder, settings, contest, [c.name for c in contenders])
    _write_page(folder, settings, contest, found)
    print(f"\n{text_table(found)}\n\n{folder / 'report.html'}: pictures, and quality over time")
    return 0


Parts = FieldName | tuple[EncodingName | None, NetworkName | None]


def parts_of(name: str) -> Parts:
    """The two parts of ENCODING+NETWORK, or the published pair of that name. Raises UsageError."""
    encoding, plus, network = name.partition("+")
    if plus:
        return one_of(EncodingName, encoding, f"--fields {name}:"), one_of(NetworkName, network, f"--fields {name}:")
    known: tuple[FieldName, ...] = get_args(FieldName)
    for one in known:
        if one == name:
            return one
    raise UsageError(
        f"--fields {name}: expected ENCODING+NETWORK or one of {', '.join(known)}{suggestion(name, known)}; "
        "`fieldfit fields` lists all"
    )


def text_table(found: Sequence[Outcome]) -> str:
    """What a person reads, best first."""
    metric = next(iter(found[0].results))
    rows = [["field", "parameters", "bytes", "seconds", metric, "MB at most"]]
    for one in sorted(found, key=lambda one: -one.results[metric]):
        memory = "?" if one.peak_memory is None else f"{one.peak_memory / 1e6:,.0f}"
        value = number(metric, one.results[metric])
        rows.append([one.name, f"{one.parameters:,}", f"{one.bytes:,}", f"{one.seconds:.1f}", value, memory])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [[row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))] for row in rows]
    return "\n".join("  ".join(line).rstrip() for line in lines)


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise UsageError("--fields: expected names separated by commas, such as ngp,siren,hash+glu")
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise UsageError(f"--fields: {', '.join(sorted(twice))} is there twice")
    return names


def _contender(name: str, parts: Parts, scene: Scene, options: CompareOptions) -> Contender:
    """Raises InputError when the parts are impossible for this signal, or in this size."""
    try:
        if isinstance(parts, str):
            config = preset_of(scene, parts)
        else:
            config = preset(scene, encoding=parts[0], network=parts[1])
        if options.params is not None:
            config = replace(config, field=with_parameters(config.field, scene.describe(), options.params))
        build(config.field, scene.describe())  # which may refuse, and is better asked before anything is written
    except InputError as error:
        raise InputError(f"{name}: {error}") from None
    minutes = preset(scene).fit.minutes if options.minutes is None else options.minutes
    return Contender(
        name, replace(config, fit=replace(config.fit, seed=options.load.seed, minutes=minutes, steps=None))
    )


def _refuse_taken(folder: Path) -> None:
    """Raise InputError unless a comparison may be made, or gone on with, in this folder."""
    if (folder / "comparison.json").is_file() or not folder.exists():
        return
    if not folder.is_dir() or any(folder.iterdir()):
        raise InputError(f"{folder}: exists and is not a comparison; choose another --out")


def _expect_same(folder: Path, settings: Mapping[str, Any]) -> None:
    """Raise InputError when the folder holds a comparison of other data or with other settings."""
    source = folder / "comparison.json"
    if not source.exists():
        return
    content = read_json(source)
    before = content.get("settings") if isinstance(content, dict) else None
    if not isinstance(before, dict):
        raise InputError(f"{source}: is not of a comparison; choose another --out")
    for key, value in settings.items():
        if before.get(key) != value:
            other = "holds a comparison of other data" if key == "data" else f"was made with --{key} {before.get(key)}"
            raise InputError(f"{folder}: {other}, which is fixed once it exists; choose another --out")


def _fit(folder: Path, contender: Contender, contest: Contest) -> int:
    """Fit one of them unless it is there; the number of the signal that ended it early, or 0."""
    opened, is_new = open_or_create(folder / contender.name, contender, contest)
    try:
        known = None if is_new else outcome(opened, contender.name)
        print(f"{contender.name}: {'is there already' if known else 'fitting'}", flush=True)
        return 0 if known else fit_contender(opened, contest, is_new)
    finally:
        opened.unlock()
        gc.collect()


def _write(folder: Path, settings: Mapping[str, Any], contest: Contest, names: Sequence[str]) -> list[Outcome]:
    """comparison.json, of what is finished among these."""
    found = [one for name in names if (one := outcome(Run.open(folder / name), name))]
    content = {
        "format": FORMAT,
        "fieldfit": version(),
        "settings": dict(settings),
        "path": contest.data.path,
        "machine": where(contest.device),
        "probe": {"metric": contest.probe.metric, "sample": contest.probe.sample},
        "fields": [to_json(one) for one in found],
    }
    write_json(folder / "comparison.json", content)
    return found


def _write_page(folder: Path, settings: Mapping[str, Any], contest: Contest, found: Sequence[Outcome]) -> None:
    from fields.files import write_whole
    from viewer.comparisons import page, show

    runs = {one.name: Run.open(folder / one.name) for one in found}
    shown = show(contest.scene, {name: opened.field(contest.device) for name, opened in runs.items()})
    minutes = settings["minutes"]
    facts = {
        "data": f"{Path(contest.data.path).name}, {contest.scene.kind}",
        "each fitted for": f"{60 * minutes:g} seconds, seed {settings['seed']}",
        "size": "as the presets have it" if settings["params"] is None else f"about {settings['params']:,} parameters",
        "machine": where(contest.device),
        "quality over time": contest.probe.sample,
    }
    html = page(facts, [to_json(one) for one in found], contest.probe.metric, shown)
    write_whole(folder / "report.html", lambda path: path.write_text(html))
