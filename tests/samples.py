"""Small data sets for the tests, and what they are compared by."""

from pathlib import Path

import numpy as np
import torch
from catapults import data
from hypothesis import HealthCheck, settings

few_examples = settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))


def empty_folders(tmp_path: Path, monkeypatch) -> Path:
    """An empty CATAPULTS_DATA beside an empty cache."""
    (tmp_path / "data").mkdir()
    monkeypatch.setenv("CATAPULTS_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("CATAPULTS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "data"


def images(n: int, *shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, *shape), np.uint8)


def own(folder: Path, **changes) -> Path:
    """Twenty training and eight test images of 6x6 pixels, classes 0 to 3."""
    arrays = dict(train_images=images(20, 6, 6), train_labels=np.arange(20) % 4)
    arrays |= dict(test_images=images(8, 6, 6, seed=1), test_labels=np.arange(8) % 4)
    arrays = {key: value for key, value in (arrays | changes).items() if value is not None}
    np.savez(folder / "mine.npz", **arrays)
    return folder / "mine.npz"


def same(a: data.Split, b: data.Split) -> bool:
    return torch.equal(a.inputs, b.inputs) and torch.equal(a.targets, b.targets)


def rows(split: data.Split) -> set[bytes]:
    return {sample.numpy().tobytes() for sample in split.inputs}
