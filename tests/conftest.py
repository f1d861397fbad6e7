"""The shapes and types in the library's annotations are checked in every test."""

import os

import jaxtyping
import pytest
import torch

HOOK = jaxtyping.install_import_hook("catapults", "beartype.beartype")

from catapults import data  # noqa: E402  (after the hook)


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
