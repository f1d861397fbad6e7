import errno
import os
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from catapults import data
from catapults.data import DataCorrupt, DatasetStatus, DataUnavailable, finding
from catapults.data.dataset import Dataset, Way, records_sha256
from catapults.data.names import Name
from catapults.data.npz import read_npz
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import empty_folders, few_examples, own, same


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    return empty_folders(tmp_path, monkeypatch)


# The ways to a data set with a recorded hash, on a small one


class Toy:
    """A registered data set with two ways, each of which copies ``served`` unless told to fail."""

    def __init__(self, folder: Path, tmp_path: Path):
        self.file = own(tmp_path).rename(tmp_path / "served")
        self.served = {"first": self.file.read_bytes(), "second": self.file.read_bytes()}
        self.visits: list[str] = []
        self.in_folder, self.in_cache = folder / "toy.npz", tmp_path / "cache" / "toy.npz"
        ways = [Way(f"way {name}", partial(self.obtain, name), read_npz) for name in self.served]
        sha256 = records_sha256(read_npz(self.file))
        self.dataset = Dataset("toy", "Toy", 4, sha256, {"toy.npz": read_npz}, tuple(ways))

    def obtain(self, name: str, folder: Path) -> Path:
        self.visits.append(name)
        if isinstance(self.served[name], Exception):
            raise self.served[name]
        (folder / "file").write_bytes(self.served[name])
        return folder / "file"


@pytest.fixture
def toy(folder, tmp_path, monkeypatch) -> Toy:
    toy = Toy(folder, tmp_path)
    monkeypatch.setitem(data.DATASETS, "toy", toy.dataset)
    return toy


def test_ways_in_order(toy):
    task = data.load("toy", 5)
    assert "from way first" in task.source and toy.visits == ["first"]
    assert data.fetch("toy") == toy.in_cache
    cached = data.load("toy", 5)
    assert "cache" in cached.source and toy.visits == ["first"]
    shutil.copy(toy.file, toy.in_folder)
    from_folder = data.load("toy", 5)
    assert "CATAPULTS_DATA (toy.npz)" in from_folder.source
    assert same(task.train, cached.train) and same(task.train, from_folder.train)
    assert task.identity == cached.identity == from_folder.identity == data.identity("toy")
    assert [path.name for path in toy.in_cache.parent.iterdir()] == ["toy.npz"]


def test_corrupt_download_counts_as_a_failed_way(toy):
    toy.served["first"] = toy.served["first"][:-100]
    assert "from way second" in data.load("toy", 5).source


def test_nothing_reachable_lists_every_way(toy):
    toy.served = {
        "first": ConnectionError("no route to host"),
        "second": DataUnavailable("npm is missing"),
    }
    with pytest.raises(DataUnavailable) as error:
        data.load("toy", 5)
    for text in (
        "way first: ConnectionError: no route to host",
        "way second: DataUnavailable: npm is missing",
    ):
        assert text in str(error.value)
    for text in ("catapults data fetch toy", "set CATAPULTS_DATA", "toy.npz", str(toy.in_cache)):
        assert text in str(error.value)
    (status,) = [status for status in data.status() if status.name == "toy"]
    assert status == DatasetStatus("toy", False, None, data.identity("toy"), "catapults data fetch toy")


def test_relative_folders_are_shown_in_full(toy, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CATAPULTS_DATA", "here")
    monkeypatch.setenv("CATAPULTS_CACHE", "there")
    toy.served = dict.fromkeys(toy.served, ConnectionError("closed"))
    with pytest.raises(DataUnavailable) as error:
        finding.obtain(toy.dataset)
    assert f"{tmp_path / 'here'} has no file" in str(error.value)
    assert f"no {tmp_path / 'there' / 'toy.npz'}" in str(error.value)


def test_altered_file_in_the_folder_is_an_error(toy):
    altered = own(toy.in_folder.parent, train_labels=np.arange(20) % 3).rename(toy.in_folder)
    found = records_sha256(read_npz(altered))
    with pytest.raises(DataCorrupt) as error:
        data.load("toy", 5)
    for text in (str(altered), found, toy.dataset.sha256, "catapults data fetch toy"):
        assert text in str(error.value)
    assert not toy.visits
    (status,) = [status for status in data.status() if status.name == "toy"]
    assert not status.available and found in status.how


def test_corrupt_cache_is_fetched_again_or_raised(toy):
    data.fetch("toy")
    toy.in_cache.write_bytes(toy.in_cache.read_bytes()[:500])
    with pytest.warns(UserWarning, match="obtained again"):
        assert data.fetch("toy") == toy.in_cache
    assert "cache" in data.load("toy", 5).source
    toy.in_cache.write_bytes(b"")
    toy.served = dict.fromkeys(toy.served, ConnectionError("closed"))
    with pytest.warns(UserWarning), pytest.raises(DataCorrupt, match="closed") as error:
        data.load("toy", 5)
    assert str(toy.in_cache) in str(error.value)


@settings(few_examples, max_examples=60)
@given(position=st.floats(0, 1, exclude_max=True), flip=st.integers(0, 255))
def test_damage_is_noticed(toy, position, flip):
    """A flipped byte or, with no flip, a truncated file: the same arrays or an error, never others."""
    content = bytearray(toy.file.read_bytes())
    index = int(position * len(content))
    content[index] ^= flip
    toy.in_folder.write_bytes(content if flip else content[:index])
    try:
        task = data.load("toy", 5)
    except DataCorrupt as error:
        assert str(toy.in_folder) in str(error)
    else:
        assert task.identity == data.identity("toy") and flip


def test_full_disk_costs_a_warning(toy, monkeypatch):
    def savez(file, **arrays):
        file.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "savez", savez)
    with pytest.warns(UserWarning, match="not kept.*No space left"):
        task = data.load("toy", 5)
    assert len(task.train) == 5
    assert not list(toy.in_cache.parent.iterdir())
    with pytest.warns(UserWarning):
        assert data.fetch("toy") is None


def test_cache_that_cannot_be_made(toy, monkeypatch):
    monkeypatch.setenv("CATAPULTS_CACHE", str(toy.file / "below-a-file"))
    with pytest.warns(UserWarning, match="not kept"):
        assert len(data.load("toy", 5).train) == 5


def test_an_unchanged_file_is_read_once_and_a_changed_one_again(tmp_path, monkeypatch):
    monkeypatch.setenv("CATAPULTS_DATA", str(tmp_path))
    path, reads = tmp_path / "mine.npz", []

    def read(path):
        reads.append(path)
        return read_npz(path)

    dataset = Name("mine").dataset._replace(files={"mine.npz": read})

    def put(value):
        np.savez(path, images=np.full((2, 1, 1), value, np.uint8), labels=np.array([0, 1]))
        os.utime(path, ns=(value, value))

    put(1)
    first, again = finding.in_folder(dataset), finding.in_folder(dataset)
    assert len(reads) == 1 and first.identity == again.identity
    put(2)
    changed = finding.in_folder(dataset)
    assert len(reads) == 2 and changed.identity != first.identity
    assert (changed.pools[0].images == 2).all() and (first.pools[0].images == 1).all()
