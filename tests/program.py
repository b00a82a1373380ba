"""The real program, many times, at the price of one start.

A server process imports what `fieldfit` imports and forks for every call; the child gets the call's folder, arguments
and output files and runs `fields.cli.main`, so that exit codes, signals and what is printed are those of a process of
its own.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Done:
    """How a call ended."""

    code: int
    """Exit code; minus the signal that ended it."""
    stdout: str
    stderr: str


def assert_one_line(done: Done, code: int, *words: str) -> None:
    """It ended with this code after exactly one line, which says these words."""
    assert done.code == code, done
    assert done.stderr.startswith("fieldfit: "), done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    for word in words:
        assert word in done.stderr


@dataclass(frozen=True)
class Call:
    arguments: list[str]
    folder: str
    file_limit: int | None
    stdout: str
    stderr: str


def environment() -> dict[str, str]:
    """One thread, which does not spin while it waits, and no GPU: the same everywhere, and safe to fork."""
    found = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive", "CUDA_VISIBLE_DEVICES": ""}
    return os.environ | found


def command(*arguments: object) -> list[str]:
    """The program as a process of its own."""
    return [sys.executable, "-m", "fields.cli", *map(str, arguments)]


class Program:
    """Runs the program; a context manager."""

    def __enter__(self) -> Program:
        line = [sys.executable, __file__]
        pipe = subprocess.PIPE
        self.server = subprocess.Popen(line, env=environment(), stdin=pipe, stdout=pipe, text=True, bufsize=1)
        return self

    def __exit__(self, *_: object) -> None:
        with self.server:
            assert self.server.stdin is not None
            self.server.stdin.close()

    def __call__(self, folder: Path, *arguments: object, file_limit: int | None = None) -> Done:
        """Run it in `folder`; `file_limit` bytes in a file stand in for a disk that is full."""
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        with tempfile.TemporaryDirectory() as outputs:
            out, err = Path(outputs, "out"), Path(outputs, "err")
            call = Call([str(a) for a in arguments], str(folder), file_limit, str(out), str(err))
            self.server.stdin.write(json.dumps(asdict(call)) + "\n")
            code = int(self.server.stdout.readline())
            return Done(code, out.read_text(), err.read_text())


def run_in_child(call: Call) -> None:
    """Become the process that the call asks for; does not return."""
    from fields.cli import main

    code = 70
    try:
        for number, path in ((0, os.devnull), (1, call.stdout), (2, call.stderr)):
            os.dup2(os.open(path, os.O_RDWR | os.O_CREAT, 0o644), number)
        sys.stdout = os.fdopen(1, "w", closefd=False)
        sys.stderr = os.fdopen(2, "w", closefd=False)
        os.chdir(call.folder)
        os.environ["XDG_CACHE_HOME"] = str(Path(call.folder, "cache"))
        if call.file_limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (call.file_limit, call.file_limit))
        code = main(call.arguments)
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 0
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def serve() -> None:
    """Fork for every line that comes, and answer with its exit code."""
    from fields.commands import compare, doctor, evaluate, export, fields, fit, info, render

    assert all((compare, doctor, evaluate, export, fields, fit, info, render))
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            run_in_child(Call(**json.loads(line)))
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    serve()
