"""The shape of the code: which way imports run, how long things get, what importing costs.

The table `MAY_IMPORT` is the architecture.  A new module of the package gets a line in it.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "dask_em"
FILES = sorted(PACKAGE.rglob("*.py"))

# From low to high.  A unit is a module or folder directly under dask_em; it may import itself and these.
LEAVES = {"_version", "errors", "config", "named_columns", "store", "store_file", "result"}
BASE = LEAVES | {"measure", "sums", "model", "gradients", "sparse"}
NUMERICS = BASE | {"distinct", "distributions", "kernels"}
ENGINE = BASE | {"solvers", "sources", "executors", "hashing", "history", "rivals", "engine"}
AROUND = ENGINE | NUMERICS  # what works on passes: knows the loop and the formulas, but no model by name
STARTS = AROUND | {"moments", "sequences", "initialize", "resident", "climbing", "derived", "race", "restarts"}
JOB = STARTS | {"settings", "callbacks", "entry", "uninformed", "job"}
FITTING = JOB | {"coding", "documents", "models", "kmeans_parallel", "diagnostics", "sinks", "fitting"}
ESTIMATORS = FITTING | {"estimators", "resampling", "selection", "testing"}
DEMO = ESTIMATORS | {"__init__"}
EVERYTHING = DEMO | {"cli", "demo"}

MAY_IMPORT = {
    "_version": set(),
    "errors": set(),
    "config": {"errors"},
    "measure": set(),
    "named_columns": set(),
    "sums": set(),
    "model": {"errors", "measure", "named_columns", "sums"},
    "gradients": {"model"},
    "sparse": {"errors", "model"},
    "result": {"errors", "model"},
    "store": {"_version", "errors", "model", "store_file"},
    "store_file": {"errors"},
    "kernels": BASE,
    "distinct": BASE | {"hashing", "sparse"},
    "distributions": BASE | {"distinct", "kernels"},
    "models": NUMERICS,
    "solvers": BASE,
    "sources": BASE,
    "executors": BASE,
    "hashing": {"model"},
    "history": {"measure", "model"},
    "rivals": set(),
    "engine": ENGINE,
    "moments": {"model", "store"},
    "sequences": {"errors"},
    "initialize": AROUND | {"moments", "sequences"},
    "resident": ENGINE | {"initialize"},
    "coding": ENGINE,
    "documents": ENGINE,
    "kmeans_parallel": AROUND,
    "climbing": AROUND | {"initialize", "resident"},
    "derived": AROUND | {"initialize", "resident", "climbing"},
    "race": STARTS,
    "restarts": STARTS,
    "settings": BASE | {"solvers"},
    "callbacks": AROUND | {"initialize"},
    "entry": STARTS,
    "uninformed": {"model"},
    "job": JOB,
    "resampling": ESTIMATORS,
    "selection": ESTIMATORS,
    "diagnostics": AROUND,
    "sinks": ENGINE,
    "fitting": FITTING,
    "testing": ENGINE | {"distributions"},
    "estimators": ESTIMATORS,
    "cli": EVERYTHING,
    "demo": DEMO,
    "__main__": EVERYTHING,
    "__init__": ESTIMATORS,
}

DATA_LIBRARIES = {"dask", "distributed", "zarr", "pyarrow", "pandas", "xarray", "fsspec", "s3fs"}
CLUSTER_LIBRARIES = {"dask", "distributed", "zarr"}
CLUSTER_ALLOWED = {"sources", "sinks", "executors", "cli", "demo"}
PURE = {"models", "distributions", "kernels", "solvers"}
SLOW_IMPORTS = {"numba", "sklearn", "pandas", "pyarrow", "zarr", "distributed"}

MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60  # of code: its docstring does not count


def unit_of(path: Path, package: Path) -> str:
    return path.relative_to(package).parts[0].removesuffix(".py")


def imports(path: Path, package: Path) -> Iterator[tuple[int, str]]:
    """Line and full name of whatever a file imports, inside functions and for typing too."""
    here = (package.name, *path.relative_to(package).with_suffix("").parts)
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            origin = node.module or ""
            if node.level:  # relative: count the folders back
                origin = ".".join([*here[: len(here) - node.level], *filter(None, [origin])])
            yield from ((node.lineno, f"{origin}.{alias.name}") for alias in node.names)


def arrows(package: Path) -> list[str]:
    """Every import that the tables do not allow, as file:line and a reason."""
    wrong = []
    units = {p.name.removesuffix(".py") for p in package.iterdir() if p.suffix == ".py" or p.is_dir()}
    for path in sorted(package.rglob("*.py")):
        unit = unit_of(path, package)
        if unit not in MAY_IMPORT:
            wrong.append(f"{path}:1 dask_em.{unit} has no line in MAY_IMPORT: say there what it may import")
            continue
        for line, name in imports(path, package):
            top, _, rest = name.partition(".")
            if top == package.name:
                target = rest.split(".")[0]
                target = target if target in units else "__init__"  # from dask_em import something
                if target != unit and target not in MAY_IMPORT[unit]:
                    wrong.append(f"{path}:{line} {unit} imports dask_em.{target}")
            elif unit in PURE and top in DATA_LIBRARIES:
                wrong.append(f"{path}:{line} {unit} is mathematics and imports {top}")
            elif top in CLUSTER_LIBRARIES and unit not in CLUSTER_ALLOWED:
                if unit == "config" and name.split(".")[:2] in (
                    ["dask", "config"],
                    ["dask", "system"],
                    ["dask", "utils"],
                ):
                    continue  # the configuration is Dask's
                wrong.append(f"{path}:{line} {unit} imports {top}, which only {', '.join(sorted(CLUSTER_ALLOWED))} may")
    return wrong


def long_things(path: Path) -> Iterator[str]:
    text = path.read_text()
    if (n := len(text.splitlines())) > MAX_FILE_LINES:
        yield f"{path}:{n} is {n} lines long, over {MAX_FILE_LINES}: look for the second idea in it"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body
            if ast.get_docstring(node) is not None:
                first = body[1].lineno if len(body) > 1 else node.end_lineno
            else:
                first = node.lineno
            if (n := (node.end_lineno or first) - first + 1) > MAX_FUNCTION_LINES:
                yield f"{path}:{node.lineno} {node.name} has {n} lines, over {MAX_FUNCTION_LINES}"


def contract() -> set[str]:
    """Names of the methods that the contract declares: documented there, once, for all who implement them."""
    trees = [ast.parse((PACKAGE / file).read_text()) for file in ("model.py", "distributions/base.py")]
    classes = (node for tree in trees for node in tree.body if isinstance(node, ast.ClassDef))
    return {node.name for c in classes for node in c.body if isinstance(node, ast.FunctionDef)}


def undocumented(path: Path, known: set[str]) -> Iterator[str]:
    def visit(body: list[ast.stmt], owner: str) -> Iterator[str]:
        for node in body:
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) or node.name.startswith("_"):
                continue
            implements = bool(owner) and node.name in known
            decorators = {ast.unparse(d).split(".")[-1] for d in node.decorator_list}
            if not (implements or ast.get_docstring(node) or decorators & {"setter", "overload", "override"}):
                yield f"{path}:{node.lineno} {owner}{node.name} is public and has no docstring"
            if isinstance(node, ast.ClassDef):
                yield from visit(node.body, f"{node.name}.")

    yield from visit(ast.parse(path.read_text()).body, "")


def said(violations: list[str]) -> str:
    return "\n" + "\n".join(v.replace(f"{ROOT}/", "") for v in violations)


def test_imports_run_one_way():
    wrong = arrows(PACKAGE)
    assert not wrong, said(wrong)


def test_files_and_functions_stay_short():
    long = [v for path in FILES for v in long_things(path)]
    assert not long, said(long)


def test_public_names_are_documented():
    known = contract()
    missing = [v for path in FILES for v in undocumented(path, known)]
    assert not missing, said(missing)


def test_importing_the_library_imports_nothing_slow():
    code = "import sys, dask_em; print(*sorted({m.partition('.')[0] for m in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not SLOW_IMPORTS & set(done.stdout.split())


@pytest.mark.parametrize(
    "file, text, complaint",
    [
        ("models/a.py", "from dask_em.engine import fit", "models/a.py:1 models imports dask_em.engine"),
        ("models/a.py", "import dask_em.sources.zarr", "models/a.py:1 models imports dask_em.sources"),
        ("models/a.py", "from dask_em import fit", "models/a.py:1 models imports dask_em.__init__"),
        ("models/a.py", "from dask_em import sources", "models/a.py:1 models imports dask_em.sources"),
        ("sources/a.py", "from ..models.b import B", "sources/a.py:1 sources imports dask_em.models"),
        ("sources/a.py", "from .. import models", "sources/a.py:1 sources imports dask_em.models"),
        ("solvers/a.py", "def f():\n    import zarr", "solvers/a.py:2 solvers is mathematics and imports zarr"),
        ("kernels/a.py", "import pandas as pd", "kernels/a.py:1 kernels is mathematics and imports pandas"),
        ("engine.py", "import dask.array", "engine.py:1 engine imports dask"),
        ("engine.py", "from dask_em.models import Mixture", "engine.py:1 engine imports dask_em.models"),
        ("config.py", "import dask.array", "config.py:1 config imports dask"),
        ("novel.py", "", "novel.py:1 dask_em.novel has no line"),
        ("models/a.py", "from dask_em.kernels.b import c\nfrom .d import e\nimport numpy", None),
        ("executors/a.py", "import distributed\nfrom dask_em.model import Source", None),
        ("config.py", "import dask.config\nfrom dask.system import cpu_count", None),
    ],
)
def test_the_walk_sees(tmp_path, file, text, complaint):
    package = tmp_path / "dask_em"
    for folder in ("models", "kernels", "sources", "solvers", "executors"):
        (package / folder).mkdir(parents=True)
    for module in ("engine", "model"):
        (package / f"{module}.py").touch()
    (package / file).write_text(text)
    wrong = arrows(package)
    assert bool(wrong) == bool(complaint)
    assert not complaint or complaint in wrong[0]


def test_length_and_docstrings_are_measured(tmp_path):
    path = tmp_path / "a.py"
    path.write_text("def f():\n" + "    x = 1\n" * 60 + "\n" * 400)
    assert [v.split(" ", 1)[1] for v in long_things(path)] == [
        "is 461 lines long, over 400: look for the second idea in it",
        "f has 61 lines, over 60",
    ]
    path.write_text('def f():\n    """' + "\n" * 100 + '"""\n' + "    x = 1\n" * 60)
    assert not list(long_things(path))
    path.write_text("class A:\n    def run(self): ...\n    def other(self): ...\n    def _own(self): ...\n")
    assert [v.split(" ")[1] for v in undocumented(path, {"run"})] == ["A", "A.other"]
