import hashlib
import shutil
from pathlib import Path

import numpy as np
import pooch
import pytest
from catapults import data
from catapults.data import finding
from catapults.data import svhn as module
from catapults.data.dataset import Pool, content_identity, records_sha256
from catapults.data.npz import read_npz
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from samples import empty_folders, few_examples, images, rows, same
from scipy.io import savemat

LABELS = {"train_32x32.mat": [1, 10, 2, 9, 10, 2, 10, 2, 5], "test_32x32.mat": [10, 2, 3, 10, 2]}


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    return empty_folders(tmp_path, monkeypatch)


@pytest.fixture
def published(tmp_path, monkeypatch) -> Path:
    """A folder with both files in the layout of the published ones, a few images each, known by their hashes."""
    folder = tmp_path / "published"
    folder.mkdir()
    for seed, (name, labels) in enumerate(LABELS.items()):
        stacked = np.stack(list(images(len(labels), 32, 32, 3, seed=seed)), axis=3)
        write(folder / name, stacked, labels, monkeypatch)
    return folder


def write(path: Path, stacked: np.ndarray, labels: list[int], monkeypatch) -> None:
    savemat(path, {"X": stacked, "y": np.array(labels, np.uint8)[:, None]}, do_compression=True)
    monkeypatch.setitem(module.SHA256, path.name, hashlib.sha256(path.read_bytes()).hexdigest())


def put(published: Path, folder: Path) -> None:
    for name in LABELS:
        shutil.copy(published / name, folder)


def svhn_status() -> data.DatasetStatus:
    (status,) = [status for status in data.status() if status.name == "svhn"]
    return status


# The published files


def test_published_files(published, folder):
    put(published, folder)
    task = data.load("svhn-2", 4, 2, 4)
    assert task.train.inputs.shape == (4, 3, 32, 32) and task.train.targets.shape == (4,)
    assert len(rows(task.train) | rows(task.validation) | rows(task.test)) == 10
    assert same(task.train, data.load("svhn:0,2", 4).train)
    assert task.identity == data.identity("svhn") == svhn_status().identity
    assert task.identity.endswith(" of 9x32x32x3 + 5x32x32x3")
    assert task.source.startswith("SVHN, classes 0, 2, from the folder CATAPULTS_DATA (train_32x32.mat), test images")
    assert data.fetch("svhn-2") == folder / "train_32x32.mat"
    assert data.n_outputs("svhn") == 10
    with pytest.raises(ValueError, match=r"n_train \+ n_validation = 7: svhn-2 allows at most 6.*\{0: 3, 2: 3\}"):
        data.load("svhn-2", 7)


def test_label_10_is_the_digit_0(published, folder):
    put(published, folder)
    pools = finding.obtain(module.SVHN).pools
    assert [pool.labels.tolist() for pool in pools] == [[1, 0, 2, 9, 0, 2, 0, 2, 5], [0, 2, 3, 0, 2]]
    assert all(pool.labels.dtype == np.uint8 for pool in pools)


def test_axes_are_those_of_a_picture(published, folder, monkeypatch):
    """Rows, columns and channels, against a picture whose dots are set by Pillow's coordinates and colours."""
    pictures = []
    for number in range(2):
        picture = Image.new("RGB", (32, 32))
        picture.putpixel((3 + number, 20), (255, 0, 0))  # column, row
        picture.putpixel((30, 7), (0, 0, 51 * (number + 1)))
        pictures.append(np.asarray(picture))
    write(published / "train_32x32.mat", np.stack(pictures, axis=3), [10, 2], monkeypatch)
    put(published, folder)
    split = data.load("svhn-2", 2).train
    for image, number in zip(split.inputs, split.targets.int().tolist(), strict=True):
        dots = {tuple(place): round(image[tuple(place)].item(), 4) for place in (image > -1).nonzero().tolist()}
        assert dots == {(0, 20, 3 + number): 1, (2, 7, 30): round(0.4 * (number + 1) - 1, 4)}


@pytest.mark.parametrize("name", LABELS)
def test_altered_file_is_refused(published, folder, name):
    put(published, folder)
    content = bytearray((folder / name).read_bytes())
    content[-1] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(data.DataCorrupt) as error:
        data.load("svhn-2", 2)
    found = hashlib.sha256(content).hexdigest()
    assert f"{folder / name} is not SVHN's: it has sha256 {found}, expected {module.SHA256[name]}" in str(error.value)
    assert "catapults data fetch svhn" in str(error.value)
    assert not svhn_status().available and found in svhn_status().how


@pytest.mark.parametrize(("there", "absent"), [tuple(LABELS), tuple(reversed(LABELS))])
def test_second_file_missing(published, folder, there, absent):
    shutil.copy(published / there, folder)
    with pytest.raises(data.DataCorrupt) as error:
        data.fetch("svhn")
    assert f"{folder / there} cannot be read: ValueError: {absent} is missing beside it" in str(error.value)


# Download and cache


def test_download_is_kept(published, folder, web, monkeypatch):
    offered, address = web
    put(published, offered)
    monkeypatch.setattr(module, "ADDRESS", address)
    task = data.load("svhn-2", 6, 0, 4)
    assert "from ufldl.stanford.edu/housenumbers" in task.source
    shutil.rmtree(offered)
    cached = data.load("svhn-2", 6, 0, 4)
    assert "from the user's cache" in cached.source
    put(published, folder)
    from_folder = data.load("svhn-2", 6, 0, 4)
    assert "CATAPULTS_DATA" in from_folder.source
    assert task.identity == cached.identity == from_folder.identity
    for other in (cached, from_folder):
        assert same(task.train, other.train) and same(task.test, other.test)


def test_altered_download_is_refused(published, folder, web, monkeypatch):
    offered, address = web
    put(published, offered)
    monkeypatch.setattr(module, "ADDRESS", address)
    shutil.copy(offered / "train_32x32.mat", offered / "test_32x32.mat")
    with pytest.raises(data.DataUnavailable, match=r"housenumbers: ValueError: .*hash"):
        data.fetch("svhn")
    assert not (folder.parent / "cache").exists()


@pytest.fixture
def cached(published, folder, web, monkeypatch) -> Path:
    """The file in the cache, and no way to obtain it again."""
    offered, address = web
    put(published, offered)
    monkeypatch.setattr(module, "ADDRESS", address)
    path = data.fetch("svhn")
    monkeypatch.setattr(pooch, "retrieve", closed)
    return path


def closed(*_, **__):
    raise ConnectionError("the web is closed")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(train_labels=np.arange(9, dtype=np.uint8)), "stored as sha256:"),
        (dict(identity=np.array("sha256:0 of 9x32x32x3 + 5x32x32x3")), "stored as sha256:0 of 9x32x32x3 + 5x32x32x3"),
        (dict(identity=None), "identity is not a file in the archive"),
        (dict(train_labels=None), "lacks train_labels"),
    ],
)
def test_altered_cache_is_noticed(cached, changes, message):
    with np.load(cached) as archive:
        arrays = {name: array for name, array in (dict(archive) | changes).items() if array is not None}
    np.savez(cached, **arrays)
    with pytest.warns(UserWarning, match="obtained again"), pytest.raises(data.DataCorrupt, match="closed") as error:
        data.load("svhn-2", 2)
    assert str(cached) in str(error.value) and message in str(error.value)
    assert not svhn_status().available and message in svhn_status().how


def test_the_cut_of_the_cache_is_part_of_its_identity(cached):
    with np.load(cached) as archive:
        arrays = dict(archive)
    for kind in ("images", "labels"):
        both = np.concatenate([arrays[f"train_{kind}"], arrays[f"test_{kind}"]])
        arrays[f"train_{kind}"], arrays[f"test_{kind}"] = both[:10], both[10:]
    np.savez(cached, **arrays)
    assert "of 10x32x32x3 + 4x32x32x3, stored as" in svhn_status().how


@few_examples
@given(position=st.floats(0, 1, exclude_max=True), flip=st.integers(0, 255))
def test_damage_of_the_cache_is_noticed(cached, position, flip):
    """A flipped byte or, with no flip, a truncated file: the same arrays or an error, never others."""
    whole = cached.read_bytes()
    identity = svhn_status().identity
    content = bytearray(whole)
    index = int(position * len(content))
    content[index] ^= flip
    cached.write_bytes(content if flip else content[:index])
    status = svhn_status()
    cached.write_bytes(whole)
    assert identity and (status.identity == identity if status.available else str(cached) in status.how)


def test_unreachable(folder, monkeypatch):
    monkeypatch.setattr(pooch, "retrieve", closed)
    with pytest.raises(data.DataUnavailable) as error:
        data.load("svhn-2", 128)
    for text in (
        f"the folder CATAPULTS_DATA: {folder} has no file of it",
        f"the user's cache: no {folder.parent / 'cache' / 'svhn.npz'}",
        "ufldl.stanford.edu/housenumbers: ConnectionError: the web is closed",
        "catapults data fetch svhn",
        "train_32x32.mat, test_32x32.mat, svhn.npz",
    ):
        assert text in str(error.value)
    assert svhn_status() == data.DatasetStatus("svhn", False, None, None, "catapults data fetch svhn")


# The known part, and the data set as it is here


def test_a_conversion_of_ones_own_needs_another_name(folder):
    arrays = dict(train_images=images(8, 32, 32, 3), train_labels=np.arange(8) % 4)
    np.savez(folder / "svhn.npz", **arrays)
    with pytest.raises(data.DataCorrupt) as error:
        data.load("svhn-2", 2)
    found = content_identity(read_npz(folder / "svhn.npz"))
    for text in (str(folder / "svhn.npz"), found, module.PART, "under another name, NAME.npz"):
        assert text in str(error.value)
    (folder / "svhn.npz").rename(folder / "my-svhn.npz")
    assert data.load("my-svhn:0,2", 2).identity == found


def test_the_data_set(svhn):
    found = finding.obtain(module.SVHN)
    counts = [np.bincount(pool.labels).tolist() for pool in found.pools]
    task = data.load("svhn-2", 128, 100, 100)
    assert task.train.inputs.shape == (128, 3, 32, 32) and set(task.train.targets.tolist()) == {0, 1}
    assert task.train.inputs.min() >= -1 and task.train.inputs.max() <= 1
    assert task.identity == found.identity == data.identity("svhn-2") and found.path == svhn
    if found.identity == module.PART:
        assert counts[0] == [544, 1536, 1278, 889, 795, 732, 616, 605, 503, 503]
        assert counts[1] == [140, 432, 312, 215, 169, 177, 157, 162, 118, 117]
        assert "first 10,000 images of its official test split" in task.source and "8,001" in task.source
    else:
        assert [sum(count) for count in counts] == [73_257, 26_032]
        beginning = Pool(*(array[:10_000] for array in found.pools[1]))
        assert f"sha256:{records_sha256([beginning])} " in module.PART
        assert task.source.startswith("SVHN, classes 0, 2, ")
