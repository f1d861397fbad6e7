"""Dependencies point one way: book → figures → paper → experiments ← compute → training → tangent."""

import ast
import subprocess
import sys
from pathlib import Path

LIBRARY = Path(__file__).parents[1] / "lib" / "catapults"
MAY_IMPORT = {
    "book": {"figures", "paper", "experiments", "compute", "data", "devices", "display"},
    "figures": {"paper", "experiments", "history", "catapult", "display", "monitor"},
    "paper": {"experiments", "compute", "schedules", "display"},
    "experiments": {"data", "history", "schedules", "catapult"},
    "compute": {"experiments", "training", "tangent", "sgd", "agop", "models", "catapult", "history", "data", "devices"}
    | {"checks", "stability", "expansion", "schedules"},
    "expansion": {"tangent", "checks"},
    "sgd": {"training", "tangent", "history", "schedules", "checks"},
    "training": {"tangent", "data", "history", "schedules", "catapult", "precision", "checks"},
    "monitor": {"tangent", "agop", "catapult", "precision", "checks"},
    "agop": {"tangent", "precision"},
    "hessian": {"tangent"},
    "stability": {"tangent", "precision", "checks"},
    "tangent": {"models", "devices", "precision", "checks"},
    "models": {"checks"},
    "data": {"checks"},
    "history": {"catapult"},
}
MODULES_MAY_IMPORT = {
    "figures": {"paper.measurements", "paper.quotes"},  # what is drawn, and never the claims on it
    "paper": {"compute", "compute.files", "compute.made", "compute.record", "compute.sweep"},  # what made a result
}
STORE_MAY_IMPORT = {f"compute.{name}" for name in ("draws", "files", "fingerprint", "made", "trainings")}  # no threads
BEGIN_TRAININGS = {"obtain", "sweep"}  # functions of compute, and of compute.sweep


def modules() -> dict[str, Path]:
    """The library's modules by their names within it."""
    names = {path: ".".join(path.relative_to(LIBRARY).with_suffix("").parts) for path in LIBRARY.rglob("*.py")}
    return {name.removesuffix("__init__").removesuffix("."): path for path, name in names.items()}


def imports(module: str, path: Path, known: dict[str, Path]) -> set[str]:
    """The modules that one imports, wherever in its code; ``module.function()`` for functions that begin trainings."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {n.name.removeprefix("catapults.") for n in node.names if n.name.startswith("catapults.")}
        elif isinstance(node, ast.ImportFrom):
            base = (node.module or "").removeprefix("catapults").removeprefix(".")
            if node.level:
                above = package.split(".")[: len(package.split(".")) + 1 - node.level] if package else []
                base = ".".join([*filter(None, above), *filter(None, [node.module])])
            elif (node.module or "").split(".")[0] != "catapults":
                continue
            for name in (alias.name for alias in node.names):
                inner = f"{base}.{name}".strip(".")
                if base in ("compute", "compute.sweep") and name in BEGIN_TRAININGS:
                    found.add(f"{inner}()")
                else:
                    found.add(inner if inner in known else base)
    return found - {"", module}


def top(module: str) -> str:
    return module.split(".")[0]


def test_no_arrow_points_against_the_flow():
    known = modules()
    arrows = {(name, other) for name, path in known.items() for other in imports(name, path, known)}
    assert {("book.build", "compute.store"), ("paper.provenance", "compute.record")} <= arrows
    assert ("compute.workers", "compute.trainings") in arrows and ("agop", "tangent.trial") in arrows
    against = {(a, b) for a, b in arrows if top(a) != top(b) and top(b) not in MAY_IMPORT.get(top(a), set())}
    assert not against
    for importer, allowed in MODULES_MAY_IMPORT.items():
        packages = {top(name) for name in allowed}
        assert not {(a, b) for a, b in arrows if top(a) == importer and top(b) in packages and b not in allowed}
    assert {b for a, b in arrows if a == "compute.store" and top(b) == "compute"} <= STORE_MAY_IMPORT


def test_what_shows_and_looks_up_imports_no_pytorch():
    """All of experiments, paper and figures, in one fresh process with the command line."""
    shown = [name for name in modules() if top(name) in ("experiments", "paper", "figures", "book")]
    assert len(shown) > 40
    code = f"""
import importlib, sys
for name in {["compute", "compute.store", "compute.record", "compute.job", "compute.verify", *sorted(shown)]}:
    importlib.import_module(f"catapults.{{name}}")
    assert not {{"torch", "dask", "distributed"}} & sys.modules.keys(), name
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
