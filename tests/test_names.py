import subprocess
import sys
from pathlib import Path

import pytest
from catapults import data
from catapults.data import names, synthetic
from catapults.data.names import Name
from samples import empty_folders, own


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    return empty_folders(tmp_path, monkeypatch)


@pytest.mark.parametrize(
    ("name", "meaning"),
    [
        ("rank-3", Name("rank-3")),
        ("cifar-2", Name("cifar-10", (7, 9))),
        ("cifar-10:7,9", Name("cifar-10", (7, 9))),
        ("mine:3,-1,0", Name("mine", (3, -1, 0))),
        ("2024", Name("2024")),
    ],
)
def test_what_a_name_means(name, meaning):
    assert names.parse(name) == meaning


def test_the_synthetic_tasks_are_those_that_are_drawn():
    assert tuple(synthetic.SYNTHETIC) == names.SYNTHETIC


@pytest.mark.parametrize("name", [2024, 2.5, None, True])
@pytest.mark.parametrize("function", [data.check_name, data.is_synthetic, data.n_outputs])
def test_a_name_is_text(no_type_checks, function, name):
    with pytest.raises(ValueError, match=f"^dataset = {name}: allowed is text, such as '{name}'$"):
        function(name, "dataset")


def test_a_number_can_be_a_name(folder):
    own(folder).rename(folder / "2024.npz")
    data.check_name("2024")
    assert len(data.load("2024:0,1", 3).train) == 3


def test_names_and_files_need_no_pytorch():
    """Nor what reads a single form of a single data set."""
    script = """
import sys
from catapults import data
from catapults.data import names
assert data.n_outputs("cifar-2") == 1 and data.is_synthetic("rank-2") and not names.parse("mine").known
data.check_name("usps-2"), data.identity("cifar-10"), data.status(), data.available_names()
slow = {"torch", "scipy", "PIL", "pooch", "tqdm", "filelock"} & sys.modules.keys()
assert not slow, slow
"""
    subprocess.run([sys.executable, "-W", "error", "-c", script], check=True)


def test_what_is_not_there_is_told():
    with pytest.raises(AttributeError, match="module 'catapults.data' has no attribute 'laod'"):
        data.laod  # noqa: B018


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cifr-2", "did you mean 'cifar-2'? allowed are"),
        ("CIFAR10:7,9", "did you mean 'cifar-10'? allowed are"),
        ("rank 3", "did you mean 'rank-3'? allowed are"),
        ("MINES", "did you mean 'mine'? allowed are"),
        ("photos", "'photos': allowed are"),
        ("cifar-10:cat,dog", "'cifar-10:cat,dog': allowed are NAME and NAME:CLASS,CLASS"),
        ("cifar-10:7", "two or more different classes"),
        ("sphere:1,2", "sphere takes no classes"),
    ],
)
def test_a_wrong_name_is_explained(folder, name, message):
    own(folder)
    with pytest.raises(ValueError) as error:
        data.check_name(name, "dataset")
    assert str(error.value).startswith(f"dataset = {name!r}: ") and message in str(error.value)
    if "allowed are NAME" in str(error.value):
        assert ", ".join(data.available_names()) in str(error.value)
        assert f"NAME.npz in the folder CATAPULTS_DATA ({folder})" in str(error.value)


def test_right_names_pass(folder):
    own(folder)
    for name in [*data.available_names(), "cifar-10:3,5,1", "mine:0,-1"]:
        data.check_name(name)
    (folder / "mine.npz").rename(folder / "cifar10.npz")  # a file of CIFAR-10, which can also go by its own name
    data.check_name("cifar10")
    with pytest.raises(ValueError, match="^name = 'mine': "):
        data.check_name("mine")


def test_names_without_their_files(folder, monkeypatch):
    """What is told without reading a file is told where there is none."""
    monkeypatch.delenv("CATAPULTS_DATA")
    assert [name for name in data.available_names() if data.is_synthetic(name)] == list(names.SYNTHETIC)
    for name, outputs in {
        "rank-3": 1, "sphere": 1, "cifar-2": 1, "cifar-10": 10, "cifar-10:0,1": 1, "cifar-10:4,2,9": 3,
        "svhn": 10, "svhn-2": 1, "usps": 10, "usps-2": 1, "fashion-mnist-2": 1, "celeba": 1,
        "mine": None, "mine:1,3": 1, "mine:1,3,0": 3,
    }.items():  # fmt: skip
        assert data.n_outputs(name) == outputs
    for function in (data.is_synthetic, data.n_outputs):
        with pytest.raises(ValueError, match="name = 'cifar-10:7'"):
            function("cifar-10:7")
