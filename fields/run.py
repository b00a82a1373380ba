"""A run: the folder that holds a fitted field as data.

    config.json         what is fitted and how: format, versions, `Config`, the scene's description, where its data lie
    field.safetensors   the field's tensors, with their sha256
    state.safetensors   the same tensors and all else that fitting needs to go on bit-exactly, of one moment
    metrics.jsonl       one line per logged step
    eval.json           metrics on held-out data
    profile.png         where the time of fitting went, if that was asked for
    renders/ exports/   pictures and meshes

Every file is written under a temporary name in the same folder, synced and renamed, so that a reader finds a whole file
of the old moment or a whole file of the new one. Resuming reads `state.safetensors` alone: a kill between two renames
cannot mix two moments. While a process fits, it holds a lock on the folder. Nothing here is ever executed: JSON and
safetensors only.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fields.configuration import from_json, to_json
from fields.field import Field, RadianceField, build
from fields.files import (
    FORMAT,
    TEMPORARY,
    read_json,
    read_tensors,
    version,
    write_json,
    write_tensors,
    write_whole,
)
from fields.fitting import Step
from fields.presets import Config
from scenes.errors import InputError
from scenes.scene import LoadOptions


@dataclass(frozen=True)
class Data:
    """Where a run's data lie, and how they were loaded."""

    path: str
    """Absolute, so that the run can be moved."""
    fingerprint: str
    """Of the data's content: another content under the same path is noticed."""
    options: LoadOptions = field(default_factory=LoadOptions)
    """How files became a scene."""


@dataclass(frozen=True)
class Checkpoint:
    """One moment of fitting."""

    step: int
    """Steps done."""
    field: dict[str, Tensor]
    """The field's tensors."""
    state: dict[str, Tensor]
    """What `fields.fitting.fit` calls `state`."""


class Run:
    """A run directory. Make one with `Run.create` or `Run.open`."""

    def __init__(self, path: Path, config: Config, scene: Mapping[str, Any], data: Data) -> None:
        self.path = path
        self.config = config
        self.scene = scene
        self.data = data
        self._lock: int | None = None

    @classmethod
    def create(cls, path: str | Path, config: Config, scene: Mapping[str, Any], data: Data) -> Run:
        """A new run in a folder that does not exist yet or is empty, locked for writing.

        Raises InputError when the folder holds anything, or cannot be written.
        """
        run = cls(Path(path), config, json.loads(json.dumps(scene)), data)
        cls.refuse_taken(run.path)
        try:
            run.path.mkdir(parents=True, exist_ok=True)
            run.lock()
            run._write_config()
            for name in ("renders", "exports"):
                (run.path / name).mkdir()
        except OSError as error:
            run.remove_if_nothing_was_saved()
            raise InputError(f"{path}: the run cannot be written ({error.strerror}); choose another --out") from error
        return run

    @staticmethod
    def refuse_taken(path: Path) -> None:
        """Raise InputError unless a new run may be made in the folder `path`."""
        if (path / "config.json").exists():
            raise InputError(f"{path}: holds a run already; go on with it with --resume, or choose another --out")
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise InputError(f"{path}: exists and is not a run; choose another --out")

    @classmethod
    def open(cls, path: str | Path) -> Run:
        """The run in the folder `path`. Raises InputError when there is none, or when it cannot be used."""
        path = Path(path)
        if not path.exists():
            raise InputError(f"{path}: there is no such run; `fieldfit fit` makes one")
        source = path / "config.json"
        if not path.is_dir() or not source.exists():
            raise InputError(f"{path}: is not a run, it holds no config.json; give a folder that `fieldfit fit` wrote")
        content = read_json(source)
        if not isinstance(content, dict) or not isinstance(content.get("format"), int):
            raise InputError(f'{source}: is not of a run: the number "format" is missing')
        if content["format"] > FORMAT:
            raise InputError(
                f"{source}: was written by a newer fieldfit ({content.get('fieldfit')}, format {content['format']}); "
                f"this one ({version()}) reads up to format {FORMAT}: upgrade it"
            )
        for key in ("config", "scene", "data"):
            if not isinstance(content.get(key), dict):
                raise InputError(f'{source}: the object "{key}" is missing; the file was altered')
        config = from_json(Config, content["config"], f"{source}: config")
        data = from_json(Data, content["data"], f"{source}: data")
        run = cls(path, config, content["scene"], data)
        run._remove_stale()
        return run

    def lock(self) -> None:
        """Be the one process that writes here, until this object or its process ends. Raises InputError if another
        is."""
        if not self._try_lock():
            raise InputError(
                f"{self.path}: another process is fitting into this run; wait for it, or choose another --out"
            )

    def field(self, device: str | torch.device = "cpu") -> Field | RadianceField:
        """The fitted field, ready to be evaluated. Raises InputError when its file is missing, altered or does not
        fit."""
        source = self.path / "field.safetensors"
        if not source.exists():
            raise InputError(
                f"{source}: is missing: nothing was saved yet, or it was deleted; `fieldfit fit {self.path} --resume` "
                "makes it"
            )
        _, tensors = read_tensors(source)
        return self.load(tensors, source).to(device).eval()

    def load(self, tensors: Mapping[str, Tensor], source: Path | None = None) -> Field | RadianceField:
        """A field of this run's configuration with the given tensors."""
        built = build(self.config.field, self.scene)
        expected = built.state_dict()
        for name in expected.keys() | tensors.keys():
            ours, theirs = expected.get(name), tensors.get(name)
            if ours is None or theirs is None or ours.shape != theirs.shape or ours.dtype != theirs.dtype:
                raise InputError(
                    f"{source or self.path}: does not belong to {self.path / 'config.json'} ({name}: expected "
                    f"{_form(ours)}, got {_form(theirs)}); one of the two was altered"
                )
        built.load_state_dict(dict(tensors))
        return built

    def checkpoint_exists(self) -> bool:
        """Whether anything was saved, be it damaged by now."""
        return any((self.path / name).exists() for name in ("state.safetensors", "field.safetensors"))

    def checkpoint(self) -> Checkpoint | None:
        """The last saved moment, or None when the run was stopped before it saved any. Raises InputError."""
        source = self.path / "state.safetensors"
        if not self.checkpoint_exists():
            return None
        if not source.exists():
            raise InputError(f"{source}: is missing, so this run cannot go on; it can still be evaluated and rendered")
        step, tensors = read_tensors(source)
        parts: dict[str, dict[str, Tensor]] = {"field": {}, "state": {}}
        for name, tensor in tensors.items():
            part, _, rest = name.partition("/")
            if part not in parts:
                raise InputError(f"{source}: holds an unknown tensor {name}; the file was altered")
            parts[part][rest] = tensor
        return Checkpoint(step, parts["field"], parts["state"])

    def step(self) -> int:
        """Steps done when field.safetensors was written."""
        return read_tensors(self.path / "field.safetensors", check=False)[0]

    def save(self, field: nn.Module, step: Step) -> None:
        """Write the field and the state of fitting at `step`, whole or not at all.

        Raises InputError, and leaves the last save as it is, when a weight is not finite or the disk does not take it.
        """
        weights = {name: tensor.detach().cpu().contiguous() for name, tensor in field.state_dict().items()}
        for name, parameter in field.named_parameters():
            if not bool(torch.isfinite(parameter).all()):
                raise InputError(
                    f"{self.path}: at step {step.index} weights of {name} are no longer finite, so they were not "
                    f"saved; {self._last_save()}; try a lower learning rate"
                )
        state = {f"state/{name}": t.detach().cpu().contiguous() for name, t in step.state().items()}
        state |= {f"field/{name}": tensor for name, tensor in weights.items()}
        try:
            write_tensors(self.path / "state.safetensors", state, step.index)
            write_tensors(self.path / "field.safetensors", weights, step.index)
        except OSError as error:
            raise InputError(
                f"{self.path}: step {step.index} could not be saved ({error.strerror}); {self._last_save()}; free some "
                "space and go on with --resume"
            ) from error

    def log(self, record: Mapping[str, Any]) -> None:
        """Append one line to metrics.jsonl; a number that is not finite becomes null."""
        line = {key: None if isinstance(v, float) and not math.isfinite(v) else v for key, v in record.items()}
        try:
            with (self.path / "metrics.jsonl").open("a") as file:
                file.write(json.dumps(line) + "\n")
        except OSError as error:
            raise InputError(f"{self.path}/metrics.jsonl: {error.strerror}; {self._last_save()}") from error

    def metrics(self) -> list[dict[str, Any]]:
        """The logged lines; a last line that a kill cut short is left out."""
        records = []
        with contextlib.suppress(FileNotFoundError), (self.path / "metrics.jsonl").open() as file:
            for line in file:
                with contextlib.suppress(ValueError):
                    records.append(json.loads(line))
        return records

    def rewind(self, step: int) -> None:
        """Forget what was logged and evaluated after `step`, before fitting goes on from there."""
        lines = [json.dumps(record) + "\n" for record in self.metrics() if record.get("step", 0) <= step]
        write_whole(self.path / "metrics.jsonl", lambda path: path.write_text("".join(lines)))
        (self.path / "eval.json").unlink(missing_ok=True)

    def reconfigure(self, config: Config, data: Data) -> None:
        """Go on under another `config` of the same field, with the same data in perhaps another place."""
        if (config, data) != (self.config, self.data):
            self.config, self.data = config, data
            self._write_config()

    def write_evaluation(self, evaluation: Mapping[str, Any]) -> None:
        """Write eval.json."""
        write_json(self.path / "eval.json", evaluation)

    def evaluation(self) -> dict[str, Any] | None:
        """What eval.json holds, or None when the run was not evaluated."""
        source = self.path / "eval.json"
        content = read_json(source) if source.exists() else None
        if content is not None and not isinstance(content, dict):
            raise InputError(f"{source}: is not an object; the file was altered")
        return content

    def remove_if_nothing_was_saved(self) -> None:
        """Leave no half-made folder behind."""
        if self.checkpoint_exists():
            return
        for name in ("config.json", "metrics.jsonl"):
            (self.path / name).unlink(missing_ok=True)
        for folder in (self.path / "renders", self.path / "exports", self.path):
            with contextlib.suppress(OSError):  # what others put there stays
                folder.rmdir()

    def _write_config(self) -> None:
        content = {
            "format": FORMAT,
            "fieldfit": version(),
            "config": to_json(self.config),
            "scene": self.scene,
            "data": to_json(self.data),
        }
        write_json(self.path / "config.json", content)

    def _last_save(self) -> str:
        with contextlib.suppress(InputError, OSError):
            step, _ = read_tensors(self.path / "state.safetensors", check=False)
            return f"the save of step {step} is intact"
        return "nothing was saved before"

    def _try_lock(self) -> bool:
        if self._lock is None:
            handle = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(handle)
                return False
            except OSError:  # a file system without locks: go on without
                pass
            self._lock = handle
        return True

    def unlock(self) -> None:
        """Let other processes write here."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __del__(self) -> None:
        self.unlock()

    def _remove_stale(self) -> None:
        """Remove what a killed writer left, unless a writer is at work."""
        held = self._lock is not None
        stale = [path for pattern in TEMPORARY for path in self.path.rglob(pattern)]
        if stale and self._try_lock():
            for path in stale:
                with contextlib.suppress(OSError):
                    path.unlink()
            if not held:
                self.unlock()


def _form(tensor: Tensor | None) -> str:
    return "nothing" if tensor is None else f"{tensor.dtype} {list(tensor.shape)}".removeprefix("torch.")
