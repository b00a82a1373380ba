"""Builds of the native core: the right one is loaded, and all that run here compute the same."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from kernel_table import run_table_forced

from fields.kernels import native


def test_a_module_that_the_processor_does_not_run_is_not_even_loaded() -> None:
    """Loading alone executes its instructions, and would end the process on a lesser machine."""
    script = """
import sys
from fields.kernels import native, native_baseline
class Lesser:
    processor_runs = staticmethod(lambda isa: isa in ("baseline", "avx2") and native_baseline.processor_runs(isa))
sys.modules["fields.kernels.native_baseline"] = Lesser
names = native.available()
assert names and set(names) <= {"baseline", "avx2"}, names
assert not [name for name in sys.modules if "native_a" in name and not name.endswith("avx2")]
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("isa", native.available()[1:])
def test_every_instruction_set_agrees(isa: str) -> None:
    """The whole table again in a process that is forced to another instruction set."""
    run_table_forced(isa, "test_kernels", "t.run_march(); t.run_composite(300); t.run_adam(); t.run_large_grids()")


@pytest.mark.skipif(len(native.available()) < 2, reason="only the baseline runs here")
def test_a_better_build_that_is_missing_is_named() -> None:
    """As where a package was built on a lesser machine: the next best is taken, and `fieldfit doctor` says so."""
    best, *others = native.available()
    script = f"""
import sys
sys.modules["fields.kernels.native_{best}"] = None
from fields.doctor import examine
from fields.kernels import native
assert native.available() == {others}, native.available()
(kernels,) = [finding for finding in examine() if finding.what == "CPU kernels"]
assert "runs {best} too" in kernels.advice, kernels
"""
    assert native.not_built() is None
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert done.returncode == 0, done.stderr


def test_unknown_instruction_set_is_refused() -> None:
    code = "from fields.kernels import native; native.core()"
    environment = {"FIELDFIT_ISA": "mmx", "PATH": "/usr/bin:/bin"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    assert "FIELDFIT_ISA=mmx" in done.stderr
