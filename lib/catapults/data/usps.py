"""USPS's handwritten digits: its published forms, their decoder, and the ways to obtain it.

Both forms are text, an image a line: its class, then its 16 x 16 values from -1 (paper) to 1 (ink), row by row.
"""

import bz2
import gzip
from functools import partial
from pathlib import Path

import numpy as np

from .dataset import Dataset, Pool, Pools, Way, beside
from .downloads import download_files
from .npz import read_npz

LIBSVM = "https://www.csie.ntu.edu.tw/~cjlin/libsvmtools/datasets/multiclass"
LIBSVM_FILES = {  # as published by torchvision
    "usps.bz2": "md5:ec16c51db3855ca6c91edd34d0e9b197",
    "usps.t.bz2": "md5:8ea070ee2aca1ac39742fdd1ef5ed118",
}
ESL = "https://hastie.su.domains/ElemStatLearn/datasets"
ESL_FILES = dict.fromkeys(["zip.train.gz", "zip.test.gz"])  # no hashes are published; their content is checked


def _read_libsvm(path: Path) -> Pools:
    """LIBSVM's pair of files, whose classes are 1 to 10 and whose values are numbered, ``10:-0.167``."""
    return [_read_lines(file, first_class=1) for file in beside(path, LIBSVM_FILES)]


def _read_esl(path: Path) -> Pools:
    """The pair of files of "The Elements of Statistical Learning"."""
    return [_read_lines(file, first_class=0) for file in beside(path, ESL_FILES)]


def _read_lines(path: Path, first_class: int) -> Pool:
    with (bz2.open if path.suffix == ".bz2" else gzip.open)(path, "rt", encoding="utf-8") as lines:
        table = np.array([[float(entry.rpartition(":")[2]) for entry in line.split()] for line in lines])
    images = table[:, 1:].reshape(-1, 16, 16, 1).round(3).astype("<f4")
    return Pool(images, (table[:, 0] - first_class).astype(np.uint8))


USPS = Dataset(
    name="usps",
    title="USPS",
    classes=10,
    sha256="1e8076169f3d3d09d307c66748388c5263e960693cd90284786d3fd14623dc03",
    files={
        "usps.npz": read_npz,
        **dict.fromkeys(LIBSVM_FILES, _read_libsvm),
        **dict.fromkeys(ESL_FILES, _read_esl),
    },
    ways=(
        Way("www.csie.ntu.edu.tw/~cjlin", partial(download_files, LIBSVM, LIBSVM_FILES), _read_libsvm),
        Way("hastie.su.domains/ElemStatLearn", partial(download_files, ESL, ESL_FILES), _read_esl),
    ),
)
