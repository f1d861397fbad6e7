"""What a result depends on: the code that a training runs through, and not how this is written or told."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from catapults.compute import fingerprint
from catapults.compute.fingerprint import changed, modules, of_code

LIBRARY = Path(fingerprint.__file__).parents[1]
TRAININGS = LIBRARY / "compute" / "trainings"
KINDS = ["descent", "expansion", "stochastic", "fits", "causes", "recurrence"]
CODE = '''"""A module."""

from dataclasses import dataclass


@dataclass
class Step:
    """What a step has."""

    rate: float  # eta
    "its rate"


def step(weights, rate, *, sign=-1):
    """A step."""
    if rate < 0:
        raise ValueError(f"rate = {rate}: allowed are positive numbers") from None
    for weight in weights:
        weight += sign * rate
        print(f"{weight!r:>{10}} of {rate}")
    return weights, b"x", 1_000.0, ..., None, lambda a, /, *b, **c: (a, b, c)
'''


def hashed(tmp_path: Path, code: str) -> str:
    path = tmp_path / f"module{len(list(tmp_path.iterdir()))}.py"
    path.write_text(code)
    return of_code(path)


class TestTheHashOfAFile:
    @pytest.mark.parametrize(
        "old, new",
        [
            ('"""A module."""', '"""Another sentence."""'),
            ('"""A module."""', ""),
            ('    """What a step has."""\n\n', ""),
            ('"its rate"', '"what it is multiplied by"'),
            ('    """A step."""\n', ""),
            ("  # eta", ""),
            ("allowed are positive numbers", "only positive numbers are allowed"),
            ('f"rate = {rate}: allowed are positive numbers"', '"wrong", rate'),
            ("for weight in weights:", "for weight in (weights):  # all of them\n"),
            ("1_000.0", "1e3"),
            ("*, sign=-1", "*,\n    sign=-1,\n"),
        ],
    )
    def test_does_not_change_with(self, old, new, tmp_path):
        assert CODE.count(old) >= 1
        assert hashed(tmp_path, CODE.replace(old, new)) == hashed(tmp_path, CODE)

    @pytest.mark.parametrize(
        "old, new",
        [
            ("ValueError", "TypeError"),
            (" from None", ""),
            ("rate < 0", "rate <= 0"),
            ("sign=-1", "sign=1"),
            ("sign=-1", "sign"),
            ("*, sign", "sign"),
            ("weight += sign", "weight -= sign"),
            ("rate: float", "rate: int"),
            ("@dataclass\n", ""),
            ("!r:", "!s:"),
            ("{10}", "{11}"),
            ("1_000.0", "1000"),
            ('b"x"', '"x"'),
            ("        print(", "    print("),  # out of the loop
            ("    return weights", "        return weights"),  # into it
            ("/, *b", "*b"),
            ("(a, b, c)", "(a, (b, c))"),
        ],
    )
    def test_changes_with(self, old, new, tmp_path):
        assert CODE.count(old) == 1
        assert hashed(tmp_path, CODE.replace(old, new)) != hashed(tmp_path, CODE)

    def test_sees_a_change_at_once(self, tmp_path):
        path = tmp_path / "module.py"
        path.write_text("x = 1")
        before = of_code(path)
        path.write_text("x = 2")
        assert of_code(path) != before


SYNTAX = """
async def f(a: int, *b: 'x', c=1, **d) -> None:
    async with a as b, c:
        await d
    async for x in [y async for y in a if y]:
        yield x
    else:
        del a.b, c[1:2, ::3]
try:
    global z
    assert x, 'y'
except* (A, B) as e:
    raise
else:
    pass
finally:
    z: int
match x:
    case [1, *rest] if rest: ...
    case {'a': A(b=1, c=None), **d} | (None as d): ...
x = u'a' 'b' f'{x=}' f'{y!r:^{z}}' 'c{}' f'{x:}' f'{{'
x @= -1j if not x else (y := {**a, 'b': {*c}})
with (a as b, c): 'd'
class A(B, metaclass=C): 'doc'; x: int = 0xFF; y = '\\N{BULLET}\\ud800\\U0001faef'
"""


def other_pythons() -> list[str]:
    """Other versions from 3.11 on that are installed here, as pyenv and Debian put them."""
    found = []
    for name in (f"python3.{minor}" for minor in range(11, 16) if minor != sys.version_info.minor):
        places = [*Path.home().glob(f".pyenv/versions/*/bin/{name}"), Path("/usr/bin", name)]
        found += [str(place) for place in places if place.exists()][:1]
    return found


def test_hashes_are_the_same_under_every_version_of_python(tmp_path):
    """Of the whole library and of a file with one of each piece of syntax."""
    (tmp_path / "syntax.py").write_text(CODE + SYNTAX, encoding="utf-8")
    files = [tmp_path / "syntax.py", *sorted(LIBRARY.rglob("*.py"))]
    expected = [of_code(path) for path in files]
    assert expected[0] == "a973228c56a1", "the form in which code is hashed has changed: so does every key and record"
    script = tmp_path / "script.py"
    lines = f"\nfor path in {list(map(str, files))!r}:\n    print(of_code(Path(path)))\n"
    script.write_text(Path(fingerprint.__file__).read_text(encoding="utf-8") + lines, encoding="utf-8")
    for python in other_pythons():
        done = subprocess.run([python, "-I", script], capture_output=True, text=True)
        assert done.stdout.split() == expected, (python, done.stderr)


def package(folder: Path, files: dict[str, str]) -> Path:
    for name, source in files.items():
        path = folder / f"{name}.py"
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text(source)
    return folder


class TestWhatAFileReaches:
    FILES = {
        "__init__": "",
        "models": "",
        "checks": "",
        "other": "",
        "tangent/__init__": "from . import kernel",
        "tangent/kernel": "from ..models import fcn",
        "tangent/unused": "",
        "experiments/__init__": "from .base import Experiment",
        "experiments/base": "from .. import checks",
        "data/__init__": "from .names import parse\n\ndef load():\n    from . import tasks",
        "data/names": "from .. import other",
        "data/tasks": "from .names import parse",
        "paper/__init__": "",
        "compute/trainings/__init__": "from ... import checks",
        "compute/trainings/descent": "from ...tangent import kernel\nfrom ...experiments import Experiment\n"
        "from ...data import load\nfrom . import networks",
        "compute/trainings/networks": "import catapults.models",
        "compute/trainings/fits": "",
    }
    REACHED = {
        "compute/trainings/descent.py", "compute/trainings/networks.py", "models.py", "tangent/__init__.py",
        "tangent/kernel.py", "data/tasks.py",
    }  # fmt: skip

    @pytest.fixture
    def library(self, tmp_path, monkeypatch):
        monkeypatch.setattr(fingerprint, "_PACKAGE", package(tmp_path / "catapults", self.FILES))
        return tmp_path / "catapults"

    def test_is_followed_into_packages_but_not_to_siblings(self, library):
        assert modules(library / "compute" / "trainings" / "descent.py").keys() == self.REACHED

    def test_says_what_has_changed(self, library):
        start = library / "compute" / "trainings" / "descent.py"
        before = modules(start)
        for name in self.FILES.keys() - {name.removesuffix(".py") for name in self.REACHED}:
            (library / f"{name}.py").write_text(self.FILES[name] + "\nchanged = 1")
        assert modules(start) == before
        (library / "models.py").write_text("changed = 1")
        (library / "tangent" / "kernel.py").write_text("from ..models import fcn\nfrom .. import other")
        assert changed(before, modules(start)) == ["models.py", "other.py", "tangent/kernel.py"]

    def test_of_a_file_of_ones_own(self, library, tmp_path):
        mine = tmp_path / "mine.py"
        mine.write_text("from catapults import models\nimport samples\nfrom . import beside")
        before = modules(mine)
        assert before.keys() == {"mine.py", "models.py"}
        mine.write_text("from catapults import models\nx = 1")
        assert changed(before, modules(mine)) == ["mine.py"]


class TestTheTrainings:
    @pytest.mark.parametrize("kind", KINDS)
    def test_do_not_depend_on_what_is_shown(self, kind):
        """A changed plot, claim, sentence or number format trains nothing."""
        reached = modules(TRAININGS / f"{kind}.py")
        packages = ("paper/", "figures/", "book/", "experiments/", "display")
        assert not [name for name in reached if name.startswith(packages)]
        assert not {"compute/sweep.py", "compute/store.py", "compute/record.py", "compute/estimate.py"} & reached.keys()

    def test_depend_on_what_they_run_through(self):
        """Every module of the library that is executed when tasks are drawn and networks trained."""
        code = """
import sys
from catapults.experiments import causes, descent, expansion, fits, recurrence, scaling, stochastic
known = set(sys.modules)
import catapults.data.tasks
from catapults.compute.trainings import causes, descent, expansion, fits, recurrence, stochastic
print(*(name for name in set(sys.modules) - known if name.startswith("catapults.")))
"""
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        names = [name.split(".", 1)[1].replace(".", "/") for name in done.stdout.split()]
        executed = {f"{name}.py" if (LIBRARY / f"{name}.py").exists() else f"{name}/__init__.py" for name in names}
        reached = {kind: modules(TRAININGS / f"{kind}.py").keys() for kind in KINDS}
        left_out = executed - set().union(*reached.values())
        assert {name for name in left_out if not name.startswith("compute/")} <= {"display.py"}  # a bar of progress
        for kind in KINDS:
            of_all = {
                "models.py",
                "schedules.py",
                "data/tasks.py",
                "data/synthetic.py",
                "compute/trainings/networks.py",
            }
            assert of_all | {f"compute/trainings/{kind}.py", "tangent/kernel.py"} <= reached[kind]


def test_versions():
    assert fingerprint.dependencies().keys() == {"torch", "numpy", "scipy", "python"}


def test_what_is_imported_counts_as_it_was_then(tmp_path, monkeypatch):
    """A notebook's kernel goes on with the code that it has imported, whatever becomes of the file, until a reload."""
    package(tmp_path / "catapults", {"__init__": "", "models": "x = 1"})
    monkeypatch.setattr(fingerprint, "_PACKAGE", tmp_path / "catapults")
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.split(".")[0] == "catapults"]:
        monkeypatch.delitem(sys.modules, name)
    file = tmp_path / "catapults" / "models.py"

    def change(text: str) -> None:
        file.write_text(text)
        os.utime(file, ns=(0, 10**9 * len(text)))

    first = modules(file)
    change("x = 22")
    asked = modules(file)
    imported = importlib.import_module("catapults.models")
    change("x = 333")
    assert first != asked and modules(file) == asked and imported.x == 22
    importlib.reload(imported)
    reloaded = modules(file)
    assert imported.x == 333 and reloaded not in (first, asked)
    change("x = 4444")
    assert modules(file) == reloaded
