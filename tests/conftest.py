"""The shapes and types in the library's annotations are checked in every test."""

import functools
import http.server
import os
import threading
from pathlib import Path

import hypothesis
import jaxtyping
import pytest
import torch

HOOK = jaxtyping.install_import_hook("catapults", "beartype.beartype")

from catapults import data  # noqa: E402  (after the hook)
from catapults.data.folders import data_folder  # noqa: E402

hypothesis.settings.register_profile("untimed", deadline=None)  # no test fails because a machine is slow
hypothesis.settings.load_profile("untimed")

SHARED = Path(__file__).parents[2] / "shared" / "data"


def missing(what: str) -> None:
    """Skip a test on a machine without what it needs; where everything must be there, fail."""
    if os.environ.get("CATAPULTS_REQUIRE_ALL"):
        pytest.fail(what)
    pytest.skip(what)


@pytest.fixture(scope="session")
def cifar10():
    """CIFAR-10 through the ways that any user has."""
    try:
        return data.fetch("cifar-10")
    except data.DataUnavailable as error:
        missing(str(error))


@pytest.fixture(scope="session")
def fashion_mnist():
    """Fashion-MNIST through the ways that any user has."""
    try:
        return data.fetch("fashion-mnist")
    except data.DataUnavailable as error:
        missing(str(error))


def _here(name: str, monkeypatch) -> Path | None:
    """A data set from CATAPULTS_DATA, else from ../shared/data, else through the ways that any user has."""

    def holds_it(folder: Path | None) -> bool:
        return folder is not None and any((folder / file).exists() for file in data.DATASETS[name].files)

    if not holds_it(data_folder()) and holds_it(SHARED):
        monkeypatch.setenv("CATAPULTS_DATA", str(SHARED))
    try:
        return data.fetch(name)
    except data.DataUnavailable as error:
        missing(str(error))


@pytest.fixture
def svhn(monkeypatch):
    return _here("svhn", monkeypatch)


@pytest.fixture
def usps(monkeypatch):
    return _here("usps", monkeypatch)


@pytest.fixture
def celeba(monkeypatch):
    return _here("celeba", monkeypatch)


@pytest.fixture
def web(tmp_path):
    """A folder, and the address at which a local server offers its files."""
    (tmp_path / "web").mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    handler = functools.partial(Quiet, directory=tmp_path / "web")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=[0.02], daemon=True).start()
        yield tmp_path / "web", f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(autouse=True)
def _same_random_numbers():
    torch.manual_seed(0)


@pytest.fixture
def no_type_checks(monkeypatch):
    """For tests of the library's own messages on wrong types, which the checks of the annotations would forestall."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


def pytest_collection_modifyitems(items):
    if not torch.cuda.is_available():
        for item in items:
            if "gpu" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
