"""Fashion-MNIST: its published files, their decoder, and the ways to obtain it."""

import gzip
import math
from functools import partial
from pathlib import Path

import numpy as np

from .dataset import Dataset, Pool, Pools, Way, beside
from .downloads import debian_package, download_files
from .npz import read_npz

ADDRESS = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"
FILES = {  # as published by its authors
    "train-images-idx3-ubyte.gz": "md5:8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    "train-labels-idx1-ubyte.gz": "md5:25c81989df183df01b3e8a0aad5dffbe",
    "t10k-images-idx3-ubyte.gz": "md5:bef4ecab320f06d8554ea6380940ec79",
    "t10k-labels-idx1-ubyte.gz": "md5:bb300cfdad3c16e7a12a480ee83cd310",
}
INSTALLED = Path("/usr/share/datasets/fashion-mnist")  # where the Debian package puts them


def _from_debian(folder: Path) -> Path:
    """A file of the Debian package as it is installed here, else unpacked in ``folder``."""
    if not INSTALLED.exists():
        folder = debian_package("dataset-fashion-mnist", folder)
        return folder / INSTALLED.relative_to("/") / "train-images-idx3-ubyte.gz"
    return INSTALLED / "train-images-idx3-ubyte.gz"


def _read(path: Path) -> Pools:
    """The four files, of which ``path`` is one and the others lie beside it, all compressed or none."""
    names = FILES if path.suffix == ".gz" else [name.removesuffix(".gz") for name in FILES]
    arrays = [_read_idx(file) for file in beside(path, names)]
    return [Pool(images[..., None], labels) for images, labels in zip(arrays[::2], arrays[1::2], strict=True)]


def _read_idx(path: Path) -> np.ndarray:
    """The format's header: two zeros, type 8 (uint8), the number of axes, and each axis' length, big-endian."""
    with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
        content = file.read()
    axes = content[3]
    shape = tuple(np.frombuffer(content, ">u4", axes, offset=4).tolist())
    if content[:3] != b"\0\0\x08" or len(content) != 4 + 4 * axes + math.prod(shape):
        raise ValueError(f"{path.name} is not a whole idx file of bytes")
    return np.frombuffer(content, np.uint8, offset=4 + 4 * axes).reshape(shape)


FASHION_MNIST = Dataset(
    name="fashion-mnist",
    title="Fashion-MNIST",
    classes=10,
    sha256="21aad080a5e96a3fcb882b59494caf34246facf76eb482bfc80b62d8b626c88e",
    files={
        "fashion-mnist.npz": read_npz,
        "FashionMNIST/raw/train-images-idx3-ubyte": _read,  # as torchvision lays them out
        "FashionMNIST/raw/train-images-idx3-ubyte.gz": _read,
        "train-images-idx3-ubyte": _read,
        "train-images-idx3-ubyte.gz": _read,
    },
    ways=(
        Way("Debian package dataset-fashion-mnist", _from_debian, _read),
        Way("fashion-mnist.s3-website.eu-central-1.amazonaws.com", partial(download_files, ADDRESS, FILES), _read),
    ),
)
