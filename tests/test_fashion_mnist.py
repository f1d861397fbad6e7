import gzip
import hashlib
import re
import shutil
import struct
from pathlib import Path

import numpy as np
import pooch
import pytest
from catapults import data
from catapults.data import fashion_mnist as module
from catapults.data import finding
from conftest import missing
from samples import empty_folders, images, same

LABELS = {"train": [9, 0, 2, 2, 0, 0, 2], "t10k": [2, 0, 9]}


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    return empty_folders(tmp_path, monkeypatch)


@pytest.fixture
def clothes(tmp_path, monkeypatch) -> dict[str, np.ndarray]:
    """A few images of 28 rows and 20 columns instead of the published ones, known by their hash, and no other way."""
    pools = {name: images(len(labels), 28, 20, seed=len(labels)) for name, labels in LABELS.items()}
    content = b"".join(
        bytes([label]) + image.tobytes()
        for name in LABELS
        for image, label in zip(pools[name], LABELS[name], strict=True)
    )
    sha256 = hashlib.sha256(content).hexdigest()
    monkeypatch.setitem(data.DATASETS, "fashion-mnist", module.FASHION_MNIST._replace(sha256=sha256))
    monkeypatch.setattr(module, "INSTALLED", tmp_path / "installed")
    monkeypatch.setattr(shutil, "which", lambda _: None)
    return pools


def write(folder: Path, pools: dict[str, np.ndarray], compressed: bool = True) -> None:
    """The four published files."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, pool in pools.items():
        labels = LABELS[name]
        contents = {
            f"{name}-images-idx3-ubyte": struct.pack(">IIII", 0x803, *pool.shape) + pool.tobytes(),
            f"{name}-labels-idx1-ubyte": struct.pack(">II", 0x801, len(labels)) + bytes(labels),
        }
        for file, content in contents.items():
            if compressed:
                (folder / f"{file}.gz").write_bytes(gzip.compress(content))
            else:
                (folder / file).write_bytes(content)


def closed(*_, **__):
    raise ConnectionError("the web is closed")


@pytest.mark.parametrize("place", ["", "FashionMNIST/raw/"])
@pytest.mark.parametrize("compressed", [True, False])
def test_published_files(clothes, folder, place, compressed):
    write(folder / place, clothes, compressed)
    task = data.load("fashion-mnist-2", 6, 0, 2)
    file = f"{place}train-images-idx3-ubyte{'.gz' if compressed else ''}"
    assert task.source.startswith(f"Fashion-MNIST, classes 0, 2, from the folder CATAPULTS_DATA ({file}), test images")
    shown = ((task.train.inputs + 1) * 127.5).round().byte()
    right = {image.tobytes(): label for image, label in zip(clothes["train"], LABELS["train"], strict=True)}
    for image, target in zip(shown, task.train.targets.tolist(), strict=True):
        assert image.shape == (1, 28, 20) and right[image.numpy().tobytes()] == 2 * target
    assert task.identity == data.identity("fashion-mnist-2")
    assert same(task.test, data.load("fashion-mnist:0,2", 1, 0, 2).test)


@pytest.mark.parametrize("absent", list(module.FILES)[1:])
def test_a_file_missing(clothes, folder, absent):
    write(folder, clothes)
    (folder / absent).unlink()
    with pytest.raises(data.DataCorrupt, match=f"ValueError: {re.escape(absent)} is missing beside it"):
        data.load("fashion-mnist-2", 2)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot be read"),
        (struct.pack(">II", 0x801, 7) + bytes(6), "train-labels-idx1-ubyte is not a whole idx file of bytes"),
        (struct.pack(">II", 0x801, 7) + bytes(8), "train-labels-idx1-ubyte is not a whole idx file of bytes"),
        (struct.pack(">II", 0xD01, 7) + bytes(7), "train-labels-idx1-ubyte is not a whole idx file of bytes"),
        (struct.pack(">II", 0x801, 7) + bytes(7), "is not Fashion-MNIST: its images and labels have sha256"),
    ],
)
def test_damage_is_explained(clothes, folder, content, message):
    write(folder, clothes, compressed=False)
    (folder / "train-labels-idx1-ubyte").write_bytes(content)
    with pytest.raises(data.DataCorrupt) as error:
        data.load("fashion-mnist-2", 2)
    assert message in str(error.value) and str(folder / "train-images-idx3-ubyte") in str(error.value)


def test_truncated_archive_is_explained(clothes, folder):
    write(folder, clothes)
    path = folder / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(data.DataCorrupt, match="cannot be read: EOFError"):
        data.load("fashion-mnist-2", 2)


def test_installed_files_are_used_and_kept(clothes, folder, monkeypatch):
    write(module.INSTALLED, clothes)
    monkeypatch.setattr(pooch, "retrieve", closed)
    installed = data.load("fashion-mnist-2", 6, 0, 2)
    assert "from Debian package dataset-fashion-mnist, test images" in installed.source
    shutil.rmtree(module.INSTALLED)
    assert same(installed.train, data.load("fashion-mnist-2", 6).train)


def test_canonical_download_is_kept(clothes, folder, web, monkeypatch):
    offered, address = web
    place = offered / module.ADDRESS.removeprefix("http://")
    write(place, clothes)
    retrieve = pooch.retrieve
    monkeypatch.setattr(pooch, "retrieve", lambda url, *a, **k: retrieve(url.replace("http:/", address), *a, **k))
    with pytest.raises(data.DataUnavailable, match=r"amazonaws\.com: ValueError: .*hash"):
        data.fetch("fashion-mnist")
    for name in module.FILES:
        monkeypatch.setitem(module.FILES, name, f"md5:{hashlib.md5((place / name).read_bytes()).hexdigest()}")
    task = data.load("fashion-mnist-2", 6, 0, 2)
    assert "from fashion-mnist.s3-website.eu-central-1.amazonaws.com, test images" in task.source
    monkeypatch.setattr(pooch, "retrieve", closed)
    cached = data.load("fashion-mnist-2", 6, 0, 2)
    assert "from the user's cache" in cached.source
    assert same(task.train, cached.train) and same(task.test, cached.test)


def test_unreachable(clothes, folder, monkeypatch):
    monkeypatch.setattr(pooch, "retrieve", closed)
    with pytest.raises(data.DataUnavailable) as error:
        data.load("fashion-mnist-2", 128)
    for text in (
        "Debian package dataset-fashion-mnist: DataUnavailable: apt-get is not installed",
        "fashion-mnist.s3-website.eu-central-1.amazonaws.com: ConnectionError: the web is closed",
        "run `catapults data fetch fashion-mnist` where the web can be reached",
        "FashionMNIST/raw/train-images-idx3-ubyte.gz",
    ):
        assert text in str(error.value)


def test_the_debian_package(folder):
    dataset = module.FASHION_MNIST._replace(ways=module.FASHION_MNIST.ways[:1])
    try:
        found = finding.obtain(dataset)
    except data.DataUnavailable as error:
        missing(str(error))
    assert found.origin == "from Debian package dataset-fashion-mnist" and found.identity == data.identity(
        "fashion-mnist"
    )
    assert found.path == folder.parent / "cache" / "fashion-mnist.npz"


def test_the_data_set(fashion_mnist):
    """Against what is published of it: its counts, its first classes, its mean and deviation (0.2860 and 0.3530)."""
    found = finding.obtain(module.FASHION_MNIST)
    assert [np.bincount(pool.labels).tolist() for pool in found.pools] == [[6000] * 10, [1000] * 10]
    assert [pool.labels[:10].tolist() for pool in found.pools] == [
        [9, 0, 0, 3, 0, 2, 7, 2, 5, 5],
        [9, 2, 1, 1, 6, 1, 4, 6, 5, 7],
    ]
    values = found.pools[0].images / np.float32(255)
    assert values.mean(dtype=float) == pytest.approx(0.2860, abs=5e-5)
    assert values.std(dtype=float) == pytest.approx(0.3530, abs=5e-5)
    task = data.load("fashion-mnist-2", 2000, 5000, 2000)
    assert task.train.inputs.shape == (2000, 1, 28, 28) and set(task.train.targets.tolist()) == {0, 1}
    assert task.identity == found.identity == data.identity("fashion-mnist")
    assert data.load("fashion-mnist", 10, image_size=14).train.inputs.shape == (10, 1, 14, 14)
    with pytest.raises(ValueError, match=r"n_test = 2001.*\{0: 1000, 2: 1000\}"):
        data.load("fashion-mnist-2", 2000, 0, 2001)
