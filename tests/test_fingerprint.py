"""What a piece of code depends on, and what it does not."""

import sys
from pathlib import Path

import pytest
from catapults import fingerprint
from catapults.fingerprint import library_files


def test_imports_are_followed():
    package = Path(fingerprint.__file__).parent

    def names(code):
        return {path.relative_to(package).with_suffix("").as_posix() for path in library_files([code])}

    assert names("import torch") == names("from . import tangent") == {"__init__"}
    assert names("import catapults_of_others") == names("from catapults.book import stage") == {"__init__"}
    assert names("from catapults import models") == {"__init__", "checks", "models"}
    assert names("%matplotlib inline\nimport catapults.tangent.hessian") >= {
        "tangent/hessian",
        "tangent/kernel",
        "models",
    }
    assert "training" not in names("from catapults.tangent import tangent_kernel")
    everything = {
        path.relative_to(package).with_suffix("").as_posix()
        for path in [*package.glob("*.py"), *package.glob("*/*.py")]
        if path.parent.name != "book"
    }
    assert names("import catapults") == names("%%bash\nls") == names("from catapults import book.") == everything


@pytest.mark.parametrize(
    "code",
    [
        "from catapults.experiments.gd_catapult import GDCatapult",
        "from catapults.experiments import gd_catapult as experiment",
        "import catapults.experiments.gd_catapult",
    ],
)
def test_imports_are_followed_into_packages_but_not_to_siblings(code, tmp_path, monkeypatch):
    files = {
        "__init__": "",
        "models": "",
        "training": "",
        "experiments/__init__": "from .base import Experiment",
        "experiments/base": "from .. import models",
        "experiments/gd_catapult": "from ..training import History\nfrom . import base",
        "experiments/other": "from .gd_catapult import GDCatapult",
        "book/__init__": "",
    }
    for name, source in files.items():
        path = tmp_path / f"{name}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(source)
    monkeypatch.setattr(fingerprint, "_PACKAGE", tmp_path)
    found = {path.relative_to(tmp_path).with_suffix("").as_posix() for path in library_files([code])}
    assert found == files.keys() - {"experiments/other", "book/__init__"}


def package(folder: Path, files: dict[str, str]) -> Path:
    for name, source in files.items():
        path = folder / f"{name}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(source)
    return folder


class TestAModule:
    def test_of_the_library_with_what_it_imports(self, tmp_path, monkeypatch):
        files = {"__init__": "", "models": "", "training": "from . import models", "other": ""}
        monkeypatch.setattr(fingerprint, "_PACKAGE", package(tmp_path, files))
        before = fingerprint.of_module("catapults.training")
        assert before.keys() == {"__init__.py", "models.py", "training.py"}
        (tmp_path / "other.py").write_text("# changed")
        assert fingerprint.of_module("catapults.training") == before
        (tmp_path / "models.py").write_text("# changed")
        after = fingerprint.of_module("catapults.training")
        assert {name for name in before if before[name] != after[name]} == {"models.py"}

    def test_of_ones_own(self, tmp_path, monkeypatch):
        (tmp_path / "module_of_ones_own.py").write_text("from catapults import models\n")
        monkeypatch.syspath_prepend(tmp_path)
        __import__("module_of_ones_own")
        before = fingerprint.of_module("module_of_ones_own")
        assert before.keys() == {"module_of_ones_own", "__init__.py", "checks.py", "models.py"}
        (tmp_path / "module_of_ones_own.py").write_text("from catapults import models\n# changed\n")
        after = fingerprint.of_module("module_of_ones_own")
        assert {name for name in before if before[name] != after[name]} == {"module_of_ones_own"}

    def test_of_a_notebook(self, monkeypatch):
        monkeypatch.delattr(sys.modules["__main__"], "__file__", raising=False)
        with pytest.raises(ValueError, match="module = '__main__': what is defined here has no file; allowed are"):
            fingerprint.of_module("__main__")


def test_versions():
    versions = fingerprint.dependencies("papermill")
    assert {"torch", "numpy", "python", "papermill"} <= versions.keys() and "pytest" not in versions
    assert "papermill" not in fingerprint.dependencies()
