"""SVHN's cropped digits (format 2): its published files, a part of them known here, and the way to obtain it.

Classes are the digits 0 to 9; the published files give 0 the label 10.
"""

import hashlib
from pathlib import Path

from .dataset import DataCorrupt, Dataset, Pool, Pools, Way, beside, content_identity
from .downloads import download_files
from .npz import read_npz

ADDRESS = "http://ufldl.stanford.edu/housenumbers"
SHA256 = {  # as published by TensorFlow Datasets and torchvision
    "train_32x32.mat": "435e94d69a87fde4fd4d7f3dd208dfc32cb6ae8af2240d066de1df7508d083b8",
    "test_32x32.mat": "cdce80dfb2a2c4c6160906d0bd7c68ec5a99d7ca4831afa54f09182025b6a75b",
}
# That these are the beginning of test_32x32.mat was told by their labels and order. The tests compare the two where
# that file is.
PART = "sha256:c69ff9acdeb3485293b9f5d414cdd999258d720aa4f5bf6abb4d8f0c3461eecb of 8001x32x32x3 + 1999x32x32x3"


def _download(folder: Path) -> Path:
    return download_files(ADDRESS, SHA256, folder)


def _read_mats(path: Path) -> Pools:
    """The published files, of which ``path`` is one and the other lies beside it."""
    return [_read_mat(file, SHA256[file.name]) for file in beside(path, SHA256)]


def _read_mat(path: Path, sha256: str) -> Pool:
    from scipy.io import loadmat  # which takes a quarter of a second to import

    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != sha256:
            raise DataCorrupt(f"{path} is not SVHN's: it has sha256 {found}, expected {sha256}")
        file.seek(0)
        arrays = loadmat(file)
    return Pool(arrays["X"].transpose(3, 0, 1, 2), arrays["y"].ravel() % 10)


def _read_part(path: Path) -> Pools:
    """The one ``.npz`` that is known; the hash of the complete images and labels is published nowhere."""
    pools = read_npz(path)
    if (found := content_identity(pools)) != PART:
        content = f"its images and labels are {found}, expected {PART}"
        own = "a conversion of your own can be loaded under another name, NAME.npz"
        raise DataCorrupt(f"{path} is not the part of SVHN known by this name: {content}; {own}")
    return pools


SVHN = Dataset(
    name="svhn",
    title="SVHN",
    classes=10,
    sha256=None,
    files={"train_32x32.mat": _read_mats, "test_32x32.mat": _read_mats, "svhn.npz": _read_part},
    ways=(Way("ufldl.stanford.edu/housenumbers", _download, _read_mats),),
    versions={
        PART: "SVHN (only the first 10,000 images of its official test split, cut here into a training split of 8,001 "
        "and a test split of 1,999; none of its official training images)"
    },
)
