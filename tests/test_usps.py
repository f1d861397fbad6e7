import bz2
import gzip
import hashlib
import re
from pathlib import Path

import numpy as np
import pooch
import pytest
from catapults import data
from catapults.data import finding
from catapults.data import usps as module
from samples import empty_folders, same

FORMS = {"ESL": list(module.ESL_FILES), "LIBSVM": list(module.LIBSVM_FILES)}
forms = pytest.mark.parametrize("form", FORMS)
LABELS = ([2, 0, 9, 0, 2, 0, 7, 2], [0, 2, 5])


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    return empty_folders(tmp_path, monkeypatch)


def record(images: np.ndarray, labels: list[int]) -> bytes:
    """An image after the other: its class, a byte, then its values, four bytes each."""
    return b"".join(bytes([label]) + image.astype("<f4").tobytes() for image, label in zip(images, labels, strict=True))


@pytest.fixture
def digits(monkeypatch) -> list[np.ndarray]:
    """A few images instead of the published ones, with every thousandth as a value, known by their hash."""
    values = np.random.default_rng(0).permutation(np.arange(-1000, 1001)) / 1000
    pools = [np.resize(values, (len(labels), 16, 16)) for labels in LABELS]
    sha256 = hashlib.sha256(b"".join(map(record, pools, LABELS))).hexdigest()
    monkeypatch.setitem(data.DATASETS, "usps", module.USPS._replace(sha256=sha256))
    return pools


def write(form: str, folder: Path, pools: list[np.ndarray], labels=LABELS) -> None:
    """Both files of a published form."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, images, numbers in zip(FORMS[form], pools, labels, strict=True):
        lines = []
        for image, label in zip(images.reshape(len(images), -1).tolist(), numbers, strict=True):
            if form == "ESL":
                lines.append(" ".join([f"{label}.0000", *(f"{value:.4f}" for value in image)]) + " \n")
            else:
                lines.append(" ".join([str(label + 1), *(f"{k}:{v:.6g}" for k, v in enumerate(image, 1))]) + " \n")
        compress = gzip.compress if form == "ESL" else bz2.compress
        (folder / name).write_bytes(compress("".join(lines).encode(), 1))


def closed(*_, **__):
    raise ConnectionError("the web is closed")


@forms
def test_published_files(digits, folder, form):
    write(form, folder, digits)
    task = data.load("usps-2", 6, 0, 2)
    assert task.source.startswith(f"USPS, classes 0, 2, from the folder CATAPULTS_DATA ({FORMS[form][0]}), test images")
    right = {image.astype(np.float32).tobytes(): label for image, label in zip(digits[0], LABELS[0], strict=True)}
    for image, target in zip(task.train.inputs, task.train.targets.tolist(), strict=True):
        assert image.shape == (1, 16, 16) and right[image.numpy().tobytes()] == 2 * target
    assert task.identity == data.identity("usps") == data.identity("usps-2")
    assert same(task.test, data.load("usps:0,2", 1, 0, 2).test)


@forms
@pytest.mark.parametrize("absent", [0, 1])
def test_second_file_missing(digits, folder, form, absent):
    write(form, folder, digits)
    (folder / FORMS[form][absent]).unlink()
    with pytest.raises(data.DataCorrupt, match=f"ValueError: {re.escape(FORMS[form][absent])} is missing beside it"):
        data.load("usps-2", 2)


@forms
def test_another_value_is_refused(digits, folder, form):
    digits[1][2, 5, 7] += 0.001
    write(form, folder, digits)
    with pytest.raises(data.DataCorrupt, match=f"is not USPS: .* expected {data.identity('usps')[7:]}"):
        data.load("usps-2", 2)


@pytest.mark.parametrize(
    "content", [b"", b"6.0 -1.0 0.5\n", b"6.0 " + b"0.5 " * 256 + b"\n6.0 0.5\n", b"six\n", b"\xff"]
)
def test_text_that_does_not_fit_is_explained(folder, content):
    for name in FORMS["ESL"]:
        (folder / name).write_bytes(gzip.compress(content))
    with pytest.raises(data.DataCorrupt) as error:
        data.load("usps-2", 2)
    assert f"{folder / 'zip.train.gz'} cannot be read: " in str(error.value)


@pytest.mark.parametrize(
    ("form", "place", "way"),
    [
        ("ESL", "hastie.su.domains/ElemStatLearn/datasets", "hastie.su.domains/ElemStatLearn"),
        ("LIBSVM", "www.csie.ntu.edu.tw/~cjlin/libsvmtools/datasets/multiclass", "www.csie.ntu.edu.tw/~cjlin"),
    ],
)
def test_download_is_kept(digits, folder, web, monkeypatch, form, place, way):
    offered, address = web
    write(form, offered / place, digits)
    retrieve = pooch.retrieve
    monkeypatch.setattr(pooch, "retrieve", lambda url, *a, **k: retrieve(url.replace("https:/", address), *a, **k))
    for name in FORMS["LIBSVM"]:
        if form == "LIBSVM":
            md5 = hashlib.md5((offered / place / name).read_bytes()).hexdigest()
            monkeypatch.setitem(module.LIBSVM_FILES, name, f"md5:{md5}")
    task = data.load("usps-2", 6, 0, 2)
    assert f"from {way}, test images" in task.source
    monkeypatch.setattr(pooch, "retrieve", closed)
    cached = data.load("usps-2", 6, 0, 2)
    assert "from the user's cache" in cached.source
    assert same(task.train, cached.train) and same(task.test, cached.test)


def test_altered_download_is_refused(digits, folder, web, monkeypatch):
    """By the hash of the file where one is published, else by that of the content."""
    offered, address = web
    digits[0][0, 0, 0] = -digits[0][0, 0, 0]
    write("ESL", offered / "hastie.su.domains/ElemStatLearn/datasets", digits)
    write("LIBSVM", offered / "www.csie.ntu.edu.tw/~cjlin/libsvmtools/datasets/multiclass", digits)
    retrieve = pooch.retrieve
    monkeypatch.setattr(pooch, "retrieve", lambda url, *a, **k: retrieve(url.replace("https:/", address), *a, **k))
    with pytest.raises(data.DataUnavailable) as error:
        data.fetch("usps")
    assert re.search(r"~cjlin: ValueError: .*hash", str(error.value))
    assert re.search(r"ElemStatLearn: DataCorrupt: .*is not USPS", str(error.value))
    assert not (folder.parent / "cache").exists()


def test_unreachable(folder, monkeypatch):
    monkeypatch.setattr(pooch, "retrieve", closed)
    with pytest.raises(data.DataUnavailable) as error:
        data.load("usps-2", 128)
    for text in (
        f"the folder CATAPULTS_DATA: {folder} has no file of it",
        "www.csie.ntu.edu.tw/~cjlin: ConnectionError: the web is closed",
        "hastie.su.domains/ElemStatLearn: ConnectionError: the web is closed",
        "run `catapults data fetch usps` where the web can be reached",
        "with one of usps.npz, usps.bz2, usps.t.bz2, zip.train.gz, zip.test.gz",
    ):
        assert text in str(error.value)


def test_the_data_set(usps):
    found = finding.obtain(module.USPS)
    assert [np.bincount(pool.labels).tolist() for pool in found.pools] == [
        [1194, 1005, 731, 658, 652, 556, 664, 645, 542, 644],
        [359, 264, 198, 166, 200, 160, 170, 147, 166, 177],
    ]
    task = data.load("usps-2", 1000, 500, 557)
    assert task.train.inputs.shape == (1000, 1, 16, 16) and set(task.train.targets.tolist()) == {0, 1}
    assert task.train.inputs.min() == -1 and task.train.inputs.max() == 1
    assert task.identity == found.identity == data.identity("usps") and found.path == usps
    assert data.load("usps", 10, image_size=8).train.inputs.shape == (10, 1, 8, 8)
    with pytest.raises(ValueError, match=r"n_test = 558.*\{0: 359, 2: 198\}"):
        data.load("usps-2", 1000, 500, 558)
