"""The rules of STYLE.md that a machine can hold: who imports whom, what is never called, how large a file gets."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("scenes", "fields", "viewer")  # each may import itself and those before it
SOURCES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
SHIPPED = SOURCES + [path for folder in ("bench", "examples") for path in sorted((ROOT / folder).rglob("*.py"))]
HEAVY = {"torch", "open3d", "viser", "imageio", "av", "trimesh", "skimage", "scipy", "pandas", "matplotlib"}
LAZY_ONLY = {"tinycudann", "nerfacc", "open3d", "imageio", "av", "trimesh", "skimage", "viser"}
UNSAFE_MODULES = {"pickle", "cloudpickle", "dill", "marshal", "shelve", "joblib"}
UNSAFE_CALLS = {"torch.load", "torch.save", "yaml.load", "yaml.unsafe_load", "os.system", "os.popen", "np.random.seed"}
NAMELESS = {"utils", "util", "helpers", "helper", "common", "misc"}


def imports(tree: ast.Module) -> Iterator[tuple[str, int, bool]]:
    """(module, line, whether the import runs when the file is imported) of every import."""

    def visit(node: ast.AST, at_import: bool) -> Iterator[tuple[str, int, bool]]:
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno, at_import) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or "", node.lineno, at_import
        elif isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            for child in node.body:
                yield from visit(child, False)
            for child in node.orelse:
                yield from visit(child, at_import)
        else:
            inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            for child in ast.iter_child_nodes(node):
                yield from visit(child, at_import and not inside)

    yield from visit(tree, True)


def may_import_upward(path: Path) -> bool:
    return path == Path("fields/cli.py") or path.parent == Path("fields/commands")


def wrong_imports(path: Path, tree: ast.Module) -> Iterator[str]:
    """What breaks the import direction viewer -> fields -> scenes, or loads a heavy or optional library too early."""
    for module, line, at_import in imports(tree):
        top = module.partition(".")[0]
        if top in PACKAGES and path.parts[0] in PACKAGES:
            upward = PACKAGES.index(top) > PACKAGES.index(path.parts[0])
            if upward and (at_import or not may_import_upward(path)):
                yield f"{path}:{line}: {path.parts[0]} must not import {module}"
        if top in LAZY_ONLY and at_import:
            yield f"{path}:{line}: import {module} inside the function that needs it"
        if top in ("tests", "bench", "examples"):
            yield f"{path}:{line}: shipped code must not import {module}"


def unsafe_code(path: Path, tree: ast.Module) -> Iterator[str]:
    """Whatever could run code that came with data."""
    for module, line, _ in imports(tree):
        if module.partition(".")[0] in UNSAFE_MODULES:
            yield f"{path}:{line}: {module} runs code that it reads"
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if f"{node.module}.{alias.name}" in UNSAFE_CALLS:
                    yield f"{path}:{node.lineno}: {node.module}.{alias.name}"
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        if name in UNSAFE_CALLS | {"eval", "exec", "__import__"}:
            yield f"{path}:{node.lineno}: {name}()"
        for keyword in node.keywords:
            if keyword.arg in ("shell", "allow_pickle") and not (
                isinstance(keyword.value, ast.Constant) and keyword.value.value is False
            ):
                yield f"{path}:{node.lineno}: {name}({keyword.arg}=...)"


def undocumented(path: Path, tree: ast.Module) -> Iterator[str]:
    """Modules without a docstring, and fields of a configuration without theirs (it is also their --help)."""
    if not ast.get_docstring(tree):
        yield f"{path}:1: no module docstring"
    for node in ast.walk(tree):
        if not isinstance(node, ast.ClassDef):
            continue
        if not node.name.endswith(("Config", "Options")) and path.name != "configs.py":
            continue
        for field, after in zip(node.body, [*node.body[1:], None], strict=True):
            documented = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
            if isinstance(field, ast.AnnAssign) and not documented:
                yield f"{path}:{field.lineno}: no docstring under {node.name}.{ast.unparse(field.target)}"


def global_state(path: Path, tree: ast.Module) -> Iterator[str]:
    """Randomness and state that no argument shows."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Global):
            yield f"{path}:{node.lineno}: global {', '.join(node.names)}"
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("torch.manual_seed", "random.seed"):
            yield f"{path}:{node.lineno}: pass a generator instead of seeding everyone's"


def own_tolerances(path: Path, tree: ast.Module) -> Iterator[str]:
    """A closeness that a test wrote for itself instead of taking it, with its reason, from tolerances.py."""
    names = {"rtol", "atol", "rel", "abs", "rel_tol", "abs_tol"}
    for node in [node for node in ast.walk(tree) if isinstance(node, ast.Call)]:
        for keyword in node.keywords:
            if keyword.arg in names and isinstance(keyword.value, ast.Constant) and keyword.value.value:
                yield f"{path}:{node.lineno}: {keyword.arg}={keyword.value.value} belongs in tests/tolerances.py"


RULES = [wrong_imports, unsafe_code, undocumented, global_state]


def violations(rule, paths: list[Path]) -> list[str]:
    return [found for path in paths for found in rule(path.relative_to(ROOT), ast.parse(path.read_text()))]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_sources_follow(rule):
    assert SOURCES
    assert violations(rule, SHIPPED) == []


def test_tests_follow():
    tests = sorted((ROOT / "tests").glob("test_*.py"))
    assert violations(own_tolerances, tests) == []


@pytest.mark.parametrize(
    ("rule", "path", "code"),
    [
        (wrong_imports, "scenes/a.py", "from fields.field import Field"),
        (wrong_imports, "scenes/a.py", "def f():\n    import viewer"),
        (wrong_imports, "fields/a.py", "import viewer.server"),
        (wrong_imports, "fields/cli.py", "import viewer"),
        (wrong_imports, "fields/a.py", "import nerfacc"),
        (wrong_imports, "fields/a.py", "try:\n    import tinycudann as tcnn\nexcept ImportError:\n    tcnn = None"),
        (wrong_imports, "scenes/a.py", "class A:\n    import open3d"),
        (unsafe_code, "fields/a.py", "def f():\n    import pickle"),
        (unsafe_code, "fields/a.py", "state = torch.load(path, weights_only=True)"),
        (unsafe_code, "fields/a.py", "from torch import load"),
        (unsafe_code, "fields/a.py", "subprocess.run(line, shell=True)"),
        (unsafe_code, "fields/a.py", "np.load(path, allow_pickle=allowed)"),
        (unsafe_code, "fields/a.py", "eval(text)"),
        (undocumented, "fields/a.py", "import torch"),
        (
            undocumented,
            "fields/a.py",
            '"""A."""\nclass MlpConfig:\n    """M."""\n    width: int = 64\n    """W."""\n    depth: int = 2',
        ),
        (undocumented, "fields/encodings/configs.py", '"""A."""\nclass Hash:\n    levels: int = 8'),
        (global_state, "fields/a.py", "def f():\n    global count"),
        (global_state, "fields/a.py", "torch.manual_seed(0)"),
        (own_tolerances, "tests/test_a.py", "assert x == pytest.approx(y, abs=1e-3)"),
    ],
)
def test_each_rule_sees_what_it_forbids(rule, path, code):
    assert list(rule(Path(path), ast.parse(code)))


@pytest.mark.parametrize(
    ("rule", "path", "code"),
    [
        (wrong_imports, "viewer/a.py", "from fields.run import Run"),
        (wrong_imports, "fields/cli.py", "def main():\n    from viewer.server import view"),
        (wrong_imports, "fields/commands/view.py", "def run():\n    import viewer"),
        (wrong_imports, "scenes/a.py", "if TYPE_CHECKING:\n    import trimesh"),
        (unsafe_code, "fields/a.py", "field.eval()"),
        (own_tolerances, "tests/test_a.py", "assert_close(x, y, rtol=POSES.rtol, atol=0)"),
        (unsafe_code, "fields/a.py", "np.load(path, allow_pickle=False)"),
    ],
)
def test_no_rule_forbids_what_is_right(rule, path, code):
    assert list(rule(Path(path), ast.parse(code))) == []


def test_cuda_holds_no_python():
    """A module under cuda/ would shadow NVIDIA's `cuda` namespace package."""
    assert (ROOT / "cuda").is_dir()
    assert [path for path in (ROOT / "cuda").rglob("*") if path.suffix in (".py", ".pyi", ".pyx")] == []


def test_no_file_is_too_long():
    native = [path for end in ("*.h", "*.hpp", "*.cpp", "*.cu", "*.cuh") for path in (ROOT / "cuda").rglob(end)]
    lengths = {path: len(path.read_text().splitlines()) for path in [*SHIPPED, *native, *(ROOT / "tests").glob("*.py")]}
    assert {str(path.relative_to(ROOT)): n for path, n in lengths.items() if n >= 400} == {}


def test_every_module_has_a_name_that_says_what_it_is():
    named = [path for path in SHIPPED if NAMELESS & {part.removesuffix(".py") for part in path.relative_to(ROOT).parts}]
    assert named == []


def test_a_folder_has_several_files():
    for package in PACKAGES:
        for folder in [path for path in (ROOT / package).rglob("*") if path.is_dir() and path.name != "__pycache__"]:
            modules = [path for path in folder.glob("*.py") if path.name != "__init__.py"]
            assert not modules or len(modules) > 1, f"{folder.relative_to(ROOT)} holds one module: move it up"


@pytest.mark.parametrize("module", [*PACKAGES, "fields.cli"])
def test_import_loads_nothing_heavy(module):
    """The command line answers at once because names load what they need when they are used."""
    program = f"import json, sys, {module}; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert HEAVY & set(json.loads(done.stdout)) == set()


def test_help_loads_nothing_heavy():
    """`fieldfit --help` answers within a blink: torch alone would take a second or more."""
    program = "import sys, fields.cli\ntry: fields.cli.main()\nfinally: print(sorted(sys.modules), file=sys.stderr)"
    line = [sys.executable, "-c", program, "--help"]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "fit" in done.stdout
    assert HEAVY & set(ast.literal_eval(done.stderr.splitlines()[-1])) == set()


@pytest.mark.parametrize("package", [package for package in PACKAGES if len(list((ROOT / package).glob("*.py"))) > 1])
def test_every_public_name_resolves(package):
    module = __import__(package)
    assert module.__all__
    for name in module.__all__:
        assert hasattr(module, name), f"{package}.{name} is announced but does not load"


def test_shapes_are_checked_under_test():
    """The import hook of conftest.py is at work, or every shape annotation is only a comment."""
    import torch
    from jaxtyping import TypeCheckError

    from scenes.box import Box

    with pytest.raises(TypeCheckError):
        Box((0.0,) * 3, (1.0,) * 3).to_unit(torch.zeros(4, 3, dtype=torch.int64))
