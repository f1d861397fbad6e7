"""What a real data set is: its images and labels, the files that hold them, and the ways to obtain these."""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from jaxtyping import Integer, Shaped


class DataError(Exception):
    """A data set cannot be used."""


class DataUnavailable(DataError):
    """A data set cannot be had here; the message lists every way tried, why it failed and what to do."""


class DataCorrupt(DataError):
    """A file is not what it should be; the message names it, what is wrong with it and what to do."""


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
        """The identity of its content, as far as it is recorded."""
        return f"sha256:{self.sha256}" if self.sha256 else None


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


def beside(path: Path, names: Iterable[str]) -> list[Path]:
    """The files of these names in the folder of ``path``. Raises ``ValueError`` for a missing one."""
    files = [path.with_name(name) for name in names]
    if absent := [file.name for file in files if not file.exists()]:
        raise ValueError(f"{absent[0]} is missing beside it")
    return files
