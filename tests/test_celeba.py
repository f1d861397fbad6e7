from pathlib import Path

import numpy as np
import pytest
from catapults import data
from catapults.data import finding
from catapults.data.celeba import CELEBA, PART
from conftest import missing
from samples import empty_folders, images, rows


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    return empty_folders(tmp_path, monkeypatch)


def celeba_status() -> data.DatasetStatus:
    return finding.status_of(CELEBA)


@pytest.fixture
def part(celeba) -> Path:
    if data.identity("celeba") != PART:
        missing(f"{celeba} is not the known part of CelebA")
    return celeba


def test_the_known_part(part):
    task = data.load("celeba", 1000, 400, 436)
    splits = (task.train, task.validation, task.test)
    assert task.train.inputs.shape == (1000, 3, 32, 32) and task.train.inputs.abs().max() <= 1
    assert len(set.union(*map(rows, splits))) == 1836
    assert sum(split.targets.sum().item() for split in splits) == 918
    assert task.identity == celeba_status().identity == PART and data.n_outputs("celeba") == 1
    assert celeba_status().where == part == data.fetch("celeba")
    for text in (
        "CelebA, glasses (1) against none (0) (only 918 + 918 of its 202,599 images",
        "official test partition",
        "re-cropped version, at 32x32",
        "a person can appear several times, so that a random split puts some people on both sides",
        "all sets drawn from one pool, disjoint",
    ):
        assert text in task.source
    with pytest.raises(ValueError, match=r"n_train \+ n_validation \+ n_test = 1837.*\{0: 918, 1: 918\}"):
        data.load("celeba", 1837)


def test_one_is_with_glasses(part):
    """They darken the rows of the eyes."""
    images, labels = finding.obtain(CELEBA).pools[0]
    eyes = images[:, 14:19, 6:26].mean((1, 2, 3)) / images.mean((1, 2, 3))
    assert np.median(eyes[labels == 1]) < np.median(eyes[labels == 0]) - 0.1


@pytest.mark.parametrize("split", [True, False])
def test_a_file_of_ones_own_has_a_title_of_its_own(folder, split):
    arrays = dict(images=images(20, 8, 8, 3), labels=np.arange(20) % 2)
    if split:
        arrays = {f"train_{key}": array for key, array in arrays.items()}
        arrays |= dict(test_images=images(6, 8, 8, 3, seed=1), test_labels=np.arange(6) % 2)
    np.savez(folder / "celeba.npz", **arrays, ids=np.arange(20))
    task = data.load("celeba", 10, 4, 6)
    assert task.train.inputs.shape == (10, 3, 8, 8) and task.train.targets.shape == (10,)
    assert task.source.startswith("Images given as CelebA's, glasses (1) against none (0), in a version not known")
    assert "918" not in task.source and ("own test split" in task.source) == split
    assert task.identity == data.identity("celeba") == celeba_status().identity != PART
    assert data.available_names().count("celeba") == 1


@pytest.mark.parametrize(("labels", "message"), [([0, 1, 2], "labels have 2"), ([-1, 1, 1], "labels have -1")])
def test_other_labels_are_refused(folder, labels, message):
    """CelebA's own lists have -1 for an attribute that is absent."""
    np.savez(folder / "celeba.npz", images=images(3, 8, 8, 3), labels=np.array(labels))
    with pytest.raises(data.DataCorrupt) as error:
        data.load("celeba", 2)
    assert f"{message}, allowed are 1 (Eyeglasses) and 0 (not)" in str(error.value)
    assert str(folder / "celeba.npz") in str(error.value) and "Replace it" in str(error.value)
    assert message in celeba_status().how


def test_what_to_do_where_it_is_missing(folder):
    with pytest.raises(data.DataUnavailable) as error:
        data.load("celeba", 2)
    for text in (
        f"the folder CATAPULTS_DATA: {folder} has no file of it",
        "set CATAPULTS_DATA to a folder with celeba.npz (images (n, H, W, 3), uint8, and labels (n,), 1 for the",
        "mmlab.ie.cuhk.edu.hk/projects/CelebA.html",
    ):
        assert text in str(error.value)
    assert "data fetch" not in str(error.value)
    status = celeba_status()
    assert not status.available and status.how.startswith("set CATAPULTS_DATA to a folder with celeba.npz (images")
