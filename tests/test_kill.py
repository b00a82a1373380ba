"""A run survives every kill: with one at each call that touches the disk, and others at random times."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# One process forks a child for every kill, so that torch is imported once. A child goes on with the run and saves each
# of the next steps, until it is killed: at the n-th call that touches the disk, or after a random time.
KILLS = """
import json, os, random, signal, sys
from pathlib import Path
sys.path[:0] = [os.getcwd(), "tests"]
import torch
torch.set_num_threads(1)
from safetensors.torch import save_file
from fields import files
from fields.fitting import fit
from fields.run import Run
from waves import DESCRIBED, FIELD, Waves, new_run
from fields.field import build

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def kill_at_call(n):
    calls = [0]
    def counted(function, torn=None):
        def wrapper(*arguments):
            calls[0] += 1
            if calls[0] == n:
                if torn:
                    torn(*arguments)
                die()
            return function(*arguments)
        return wrapper
    def half(tensors, path, header):
        Path(path).parent.joinpath(".tmpabcdef").write_bytes(b"half" * 100)
        save_file(tensors, path, header)
        Path(path).write_bytes(Path(path).read_bytes()[:1000])
    files.save_file = counted(save_file, half)
    os.fsync, os.replace = counted(os.fsync), counted(os.replace)

def child(path, prepare):
    run = Run.open(path) if path.exists() else new_run(path, 10_000)
    run.lock()
    checkpoint = run.checkpoint()
    field = run.load(checkpoint.field) if checkpoint else build(FIELD, DESCRIBED)
    prepare()
    for step in fit(field, Waves(), run.config.fit, state=checkpoint.state if checkpoint else None):
        print(step.index, flush=True)
        run.save(field, step)

root, seed = Path(sys.argv[1]), random.Random(20)
new_run(root, 10_000).unlock()
attempts = [lambda n=n: kill_at_call(n) for n in range(1, 19)]
attempts += [lambda t=seed.uniform(1e-4, 0.05): signal.setitimer(signal.ITIMER_REAL, t) for _ in range(30)]
for prepare in attempts:
    read, write = os.pipe()
    if os.fork() == 0:
        os.dup2(write, 1)
        child(root, prepare)
        os._exit(1)
    os.close(write)
    _, status = os.wait()
    with open(read) as file:
        steps = [int(line) for line in file]
    run = Run.open(root)
    checkpoint = run.checkpoint()
    field_step = run.step() if run.checkpoint_exists() and (root / "field.safetensors").exists() else 0
    if field_step:
        run.field()
    print(json.dumps({
        "signal": os.WTERMSIG(status), "attempted": steps[-1] if steps else None,
        "saved": checkpoint.step if checkpoint else 0, "field": field_step,
        "temporary": [path.name for path in root.glob(".*")],
    }))
"""


def test_a_kill_at_any_moment_loses_at_most_the_save_it_interrupts(tmp_path: Path):
    line = [sys.executable, "-c", KILLS, str(tmp_path / "run")]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    outcomes = [json.loads(text) for text in done.stdout.splitlines()]
    assert len(outcomes) == 48
    last = last_field = 0
    for outcome in outcomes:
        assert outcome["signal"] in (9, 14), outcome
        attempted = outcome["attempted"] or last
        assert attempted - 1 <= outcome["saved"] <= attempted, outcome
        assert last_field <= outcome["field"] <= outcome["saved"], outcome
        assert outcome["temporary"] == [], outcome
        last, last_field = outcome["saved"], outcome["field"]
    assert last > 10
    assert any(outcome["saved"] != outcome["field"] for outcome in outcomes), "no kill fell between the two renames"
