from pathlib import Path

import numpy as np
import pytest
from catapults import data
from catapults.data import DataCorrupt
from samples import empty_folders, images, own


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    return empty_folders(tmp_path, monkeypatch)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(train_images=None), "lacks train_images"),
        (dict(test_labels=None), "lacks test_labels"),
        (dict(train_labels=np.arange(19)), "images (20, 6, 6) and labels (19,)"),
        (dict(train_images=images(20, 36)), "images (20, 36) and labels (20,)"),
        (dict(train_images=images(20, 3, 8, 8)), "C = 1, 3 or 4, as images.transpose(0, 2, 3, 1) gives"),
        (dict(train_images=images(20, 1, 4, 4)), "C = 1, 3 or 4, as images.transpose(0, 2, 3, 1) gives"),
        (dict(train_images=images(20, 8, 6, 2)), "images (20, 8, 6, 2): allowed are (n, H, W) and (n, H, W, C) with"),
        (dict(train_labels=np.ones(20)), "labels are float64"),
        (dict(train_images=images(20, 6, 6).astype(int)), "images are int64"),
        (dict(train_images=images(20, 6, 6) / 255 * 3), "outside [-1, 1]"),
        (dict(train_images=np.full((20, 6, 6), np.nan)), "outside [-1, 1]"),
        (dict(test_images=images(8, 5, 5)), "differ in shape"),
        (dict(train_labels=np.array([{}] * 20, object)), "allow_pickle=False"),
    ],
)
def test_own_file_that_does_not_fit_is_explained(folder, changes, message):
    path = own(folder, **changes)
    with pytest.raises(DataCorrupt) as error:
        data.load("mine", 2)
    assert message in str(error.value) and str(path) in str(error.value)


@pytest.mark.parametrize("shape", [(5, 7), (3, 8), (8, 3), (5, 7, 1), (3, 8, 3), (1, 9, 4), (3, 3, 3), (1, 1, 1)])
def test_images_of_any_sides_and_one_three_or_four_channels(folder, shape):
    own(folder, train_images=images(20, *shape), test_images=None, test_labels=None)
    height, width, channels = (*shape, 1)[:3]
    inputs = data.load("mine", 20).train.inputs
    assert inputs.shape == (20, channels, height, width)
    expected = images(20, *shape).reshape(20, height, width, channels).transpose(0, 3, 1, 2) / np.float32(127.5) - 1
    assert {image.numpy().tobytes() for image in inputs} == {image.tobytes() for image in expected}
