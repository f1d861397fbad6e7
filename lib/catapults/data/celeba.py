"""CelebA's faces, with glasses (class 1) against without (class 0): a part known here, or a person's own file.

Its authors give CelebA out by hand, under their terms, so there is no way to download it.
"""

from pathlib import Path

import numpy as np

from .dataset import Dataset, Pools
from .npz import read_npz

PART = "sha256:e31004ea4307e04e60f56068d5bad2112936009359c0fc72d217bc1f69dc4f49 of 1836x32x32x3"


def _read(path: Path) -> Pools:
    """Any ``.npz`` of the two classes: no two people cut and scale CelebA's images in the same way."""
    pools = read_npz(path)
    if other := sorted({*np.unique(np.concatenate([pool.labels for pool in pools])).tolist()} - {0, 1}):
        raise ValueError(f"its labels have {other[0]}, allowed are 1 (Eyeglasses) and 0 (not)")
    return pools


CELEBA = Dataset(
    name="celeba",
    title="Images given as CelebA's, glasses (1) against none (0), in a version not known to this library",
    classes=2,
    sha256=None,
    files={"celeba.npz": _read},
    versions={
        PART: "CelebA, glasses (1) against none (0) (only 918 + 918 of its 202,599 images, all of its official test "
        "partition, from another, re-cropped version, at 32x32; who is shown is not known and a person can appear "
        "several times, so that a random split puts some people on both sides)"
    },
    advice="images (n, H, W, 3), uint8, and labels (n,), 1 for the attribute Eyeglasses, else 0; its authors give the "
    "originals out at mmlab.ie.cuhk.edu.hk/projects/CelebA.html",
)
