"""fields.run: a run is readable after any kill, refuses what was altered, and resumes to the same bits."""

from __future__ import annotations

import json
import resource
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tolerances import EXACT
from waves import DESCRIBED, FIELD, Waves, config, new_run

from fields.field import build
from fields.fitting import fit
from fields.run import Run
from scenes.errors import InputError


def fitted(path: Path, steps: int = 6) -> Run:
    """A run that was fitted to its end and saved."""
    run, field = new_run(path, steps), build(FIELD, DESCRIBED)
    *_, last = fit(field, Waves(), run.config.fit)
    run.save(field, last)
    return run


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return fitted(tmp_path / "run")


def test_what_was_saved_is_read_back(run: Run):
    opened = Run.open(run.path)
    assert opened.config == run.config
    assert opened.data == run.data
    assert opened.scene == DESCRIBED
    assert opened.step() == 6
    saved = load_file(run.path / "field.safetensors")
    field = opened.field()
    assert not field.training
    for name, tensor in field.state_dict().items():
        EXACT.check(tensor, saved[name])
    x = torch.rand(5, 2, generator=torch.Generator().manual_seed(1))
    EXACT.check(field(x), run.field()(x))


def test_a_run_can_be_moved(run: Run, tmp_path: Path):
    shutil.move(run.path, tmp_path / "elsewhere")
    assert Run.open(tmp_path / "elsewhere").step() == 6


def test_resuming_gives_the_bits_of_a_straight_fit(tmp_path: Path):
    straight = fitted(tmp_path / "straight", 20)
    interrupted, field = new_run(tmp_path / "interrupted", 20), build(FIELD, DESCRIBED)
    for step in fit(field, Waves(), interrupted.config.fit):
        if step.index == 9:
            interrupted.save(field, step)
            break
    again = Run.open(interrupted.path)
    checkpoint = again.checkpoint()
    assert checkpoint is not None
    assert checkpoint.step == 9
    resumed = again.load(checkpoint.field)
    *_, last = fit(resumed, Waves(), again.config.fit, state=checkpoint.state)
    again.save(resumed, last)
    for name in ("field.safetensors", "state.safetensors"):
        ours, theirs = load_file(again.path / name), load_file(straight.path / name)
        assert ours.keys() == theirs.keys()
        for key in ours.keys() - {"state/seconds"}:
            EXACT.check(ours[key], theirs[key])


def test_nothing_is_ever_overwritten(run: Run, tmp_path: Path):
    with pytest.raises(InputError, match=r"run: holds a run already; go on with it with --resume"):
        new_run(run.path)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("")
    with pytest.raises(InputError, match=r"other: exists and is not a run"):
        new_run(tmp_path / "other")
    with pytest.raises(InputError, match=r"thesis.tex: exists and is not a run"):
        new_run(tmp_path / "other" / "thesis.tex")
    (tmp_path / "empty").mkdir()
    assert new_run(tmp_path / "empty").path.is_dir()


def test_two_processes_do_not_write_to_one_run(run: Run):
    """`run` holds the lock of its writer."""
    second = Run.open(run.path)
    with pytest.raises(InputError, match="another process is fitting into this run"):
        second.lock()
    run.unlock()
    second.lock()


def test_stale_files_are_removed_unless_a_writer_is_at_work(run: Run):
    stale = run.path / ".field.123.tmp.safetensors"
    stale.write_text("half")
    Run.open(run.path)
    assert stale.exists()
    run.unlock()
    Run.open(run.path)
    assert not stale.exists()


def test_before_the_first_save(tmp_path: Path):
    run = new_run(tmp_path / "run")
    assert run.checkpoint() is None
    assert run.evaluation() is None
    assert run.metrics() == []
    with pytest.raises(InputError, match=r"field.safetensors: is missing: nothing was saved yet"):
        run.field()
    run.remove_if_nothing_was_saved()
    assert list(tmp_path.iterdir()) == []


def altered_json(change: dict[str, Any]):
    def alter(path: Path) -> None:
        source = path / "config.json"
        source.write_text(json.dumps(json.loads(source.read_text()) | change))

    return alter


def remove(name: str):
    return lambda path: (path / name).unlink()


def cut(name: str, keep: float):
    def alter(path: Path) -> None:
        data = (path / name).read_bytes()
        (path / name).write_bytes(data[: int(keep * len(data))])

    return alter


def flip(name: str, where: float):
    def alter(path: Path) -> None:
        data = bytearray((path / name).read_bytes())
        data[int(where * (len(data) - 1))] ^= 0x20
        (path / name).write_bytes(data)

    return alter


def rewrite_tensors(metadata: dict[str, str] | None):
    def alter(path: Path) -> None:
        source = path / "field.safetensors"
        save_file({name: tensor + 1 for name, tensor in load_file(source).items()}, source, metadata)

    return alter


def other_field(path: Path) -> None:
    content = json.loads((path / "config.json").read_text())
    content["config"]["field"]["encoding"]["levels"] = 3
    (path / "config.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("alter", "message"),
    [
        (shutil.rmtree, "run: there is no such run"),
        (remove("config.json"), "run: is not a run, it holds no config.json"),
        (cut("config.json", 0.5), "config.json: is not JSON"),
        (cut("config.json", 0.0), "config.json: is not JSON"),
        (lambda path: (path / "config.json").write_text("[" * 100_000), "config.json: is not JSON"),
        (lambda path: (path / "config.json").write_text("[]"), 'config.json: is not of a run: the number "format"'),
        (
            altered_json({"format": 2, "fieldfit": "9.1"}),
            "config.json: was written by a newer fieldfit (9.1, format 2)",
        ),
        (altered_json({"config": None}), 'config.json: the object "config" is missing'),
        (altered_json({"scene": 3}), 'config.json: the object "scene" is missing'),
        (
            altered_json({"config": {"field": {"type": "Evil"}}}),
            'config.json: config: field: expected "type" to be one',
        ),
        (altered_json({"data": {"path": 3}}), "config.json: data: path: expected str, got 3"),
        (other_field, "field.safetensors: does not belong to"),
        (remove("field.safetensors"), "field.safetensors: is missing"),
        (cut("field.safetensors", 0.0), "field.safetensors: is cut or altered"),
        (cut("field.safetensors", 0.01), "field.safetensors: is cut or altered"),
        (cut("field.safetensors", 0.9), "field.safetensors: is cut or altered"),
        (flip("field.safetensors", 0.0), "field.safetensors: is cut or altered"),
        (flip("field.safetensors", 0.9), "field.safetensors: was altered: its checksum does not match"),
        (flip("field.safetensors", 1.0), "field.safetensors: was altered: its checksum does not match"),
        (rewrite_tensors(None), "field.safetensors: is cut or altered ('step')"),
        (rewrite_tensors({"step": "6", "sha256": "00"}), "field.safetensors: was altered"),
        (
            rewrite_tensors({"format": "2", "fieldfit": "9.1"}),
            "field.safetensors: was written by a newer fieldfit (9.1)",
        ),
        (rewrite_tensors({"format": "two"}), "field.safetensors: is cut or altered"),
    ],
)
def test_what_was_cut_or_altered_is_refused_with_one_line(run: Run, alter, message: str):
    run.unlock()
    alter(run.path)
    with pytest.raises(InputError) as error:
        Run.open(run.path).field()
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("alter", "message"),
    [
        (remove("state.safetensors"), "state.safetensors: is missing, so this run cannot go on"),
        (cut("state.safetensors", 0.5), "state.safetensors: is cut or altered"),
        (flip("state.safetensors", 1.0), "state.safetensors: was altered"),
    ],
)
def test_a_damaged_state_can_be_evaluated_but_not_resumed(run: Run, alter, message: str):
    alter(run.path)
    assert Run.open(run.path).field() is not None
    with pytest.raises(InputError) as error:
        Run.open(run.path).checkpoint()
    assert message in str(error.value)


def test_weights_that_are_not_finite_are_never_saved(run: Run):
    before = {name: (run.path / name).read_bytes() for name in ("field.safetensors", "state.safetensors")}
    field = run.field()
    *_, last = fit(field, Waves(), run.config.fit)
    with torch.no_grad():
        next(field.parameters()).view(-1)[3] = torch.nan
    with pytest.raises(
        InputError, match=r"at step 6 weights of \S+ are no longer finite.*the save of step 6 is intact"
    ):
        run.save(field, last)
    assert {name: (run.path / name).read_bytes() for name in before} == before


def test_a_full_disk_leaves_the_last_save_intact(run: Run):
    """A limit on the size of files stands in for the disk; both end a write with an error of the operating system."""
    field = run.field()
    *_, last = fit(field, Waves(), config(12).fit)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, ((run.path / "state.safetensors").stat().st_size // 2, hard))
    try:
        with pytest.raises(
            InputError, match=r"step 12 could not be saved \(File too large\); the save of step 6 is intact"
        ):
            run.save(field, last)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(run.path.glob(".*")) == []
    checkpoint = run.checkpoint()
    assert checkpoint is not None
    assert checkpoint.step == run.step() == 6


def test_metrics_are_json_lines_even_when_cut_short(run: Run):
    run.log({"step": 1, "loss": float("nan")})
    run.log({"step": 20, "loss": 0.5})
    with (run.path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 30, "lo')
    assert run.metrics() == [{"step": 1, "loss": None}, {"step": 20, "loss": 0.5}]
    run.write_evaluation({"results": {"psnr": 30.0}})
    assert run.evaluation() == {"results": {"psnr": 30.0}}
    run.rewind(10)
    assert run.metrics() == [{"step": 1, "loss": None}]
    assert run.evaluation() is None
    run.log({"step": 11})
    assert [record["step"] for record in run.metrics()] == [1, 11]
