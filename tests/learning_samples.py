"""Small trainings of chapter 4 for the tests: tasks, results made by hand, and what every page's text has to be."""

import math
from dataclasses import replace

import numpy as np
import pytest
from catapults.compute import Results, processes
from catapults.compute.sweep import Outcome
from catapults.experiments.fits import Fitted, Strong
from samples import images

VECTORS = {
    "dataset": "rank-2", "architecture": "fcn", "depth": 2, "width": 16, "norm": None, "image_size": None,
    "n_train": 32, "n_validation": 16, "n_test": 16, "labels": "zero-one", "label_noise": 0.0, "strong": None,
    "parameterization": "ntk", "gain": 1.0, "bias": False, "steps": 16, "stop_below": 0.001, "evaluate_every": 4,
    "patience": None,
}  # fmt: skip
STRONG = {
    "architecture": "cnn", "depth": 2, "width": 4, "n_train": 40, "n_validation": 8, "n_test": 16, "batch_size": 8,
    "learning_rate": 0.01, "steps": 5,
}  # fmt: skip
IMAGES = VECTORS | {"dataset": "mine", "architecture": "cnn", "width": 4, "label_noise": 0.25, "strong": STRONG}


@pytest.fixture
def results(tmp_path, monkeypatch):
    """The folder of the results, empty; one process computes them."""
    monkeypatch.setenv("CATAPULTS_RESULTS", str(tmp_path / "results"))
    with processes.threads(1):
        yield tmp_path / "results"


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A data set of 6x6 images: three classes, told apart by their brightness."""
    (tmp_path / "data").mkdir()
    monkeypatch.setenv("CATAPULTS_DATA", str(tmp_path / "data"))
    arrays = {}
    for pool, n, seed in (("train", 60, 0), ("test", 30, 1)):
        numbers = np.arange(n) % 3
        arrays[f"{pool}_images"] = (images(n, 6, 6, seed=seed) // 3 + 80 * numbers[:, None, None]).astype(np.uint8)
        arrays[f"{pool}_labels"] = numbers
    np.savez(tmp_path / "data" / "mine.npz", **arrays)


def made(
    loss: float, alignment: float, catapults: int = 0, spikes: int = 0, diverged: bool = False, error: float = math.nan
) -> Fitted:
    """A training of 40 steps with these figures; ``error`` is that of the test set, the loss is of both sets."""
    batch_loss = np.linspace(1.0, 0.5, 40)
    batch_loss[1 : 2 * spikes : 2] = 10.0
    true = np.diag([1.0, 1.0] + [0.0] * 8)
    return Fitted(
        steps=40 + diverged,
        catapults=catapults,
        spikes=spikes,
        lowered=False,
        curve=np.arange(40 + diverged),
        loss=np.append(batch_loss, [1e9] * diverged),
        learning_rate=np.full(40 + diverged, 2.0),
        evaluated=np.array([0, 20, 40]),
        training_loss=np.array([1.0, 0.7, math.inf if diverged else 0.5]),
        validation_loss=np.array([2.0, loss, 1.5 * loss]),
        validation_error=np.array([0.9, error, error]),
        best=1,
        initial_critical_learning_rate=4.0,
        converged=not diverged,
        diverged=diverged,
        test_loss=float(loss),
        test_error=error,
        test_variance=1.0,
        linear_test_loss=0.9 if math.isnan(error) else math.nan,
        alignment=float(alignment),
        corner=np.zeros((10, 10)) if math.isnan(alignment) else true + (1 - alignment) * np.eye(10),
        true_corner=true,
        measure="loss" if math.isnan(error) else "error",
        source="Synthetic task, seed 0.",
        parameters=100,
    )


def strong_result(test_error: float = 0.125) -> Strong:
    """What a strong model of 6x6 images gave."""
    return Strong(np.eye(36), test_error, "Images.", 123)


def results_of(page, by_name: dict) -> Results:
    """As if all of a page with one seed had been computed now, each in 1.5 s; ``by_name``: as the page names them."""
    found = [(experiment, by_name[name]) for name, experiment in page.trainings().items()]
    if (strong := page.strong_model()) is not None:
        found.append((strong, strong_result()))
    return Results({e.key: Outcome(e, result, {"seconds": 1.5}, computed=True) for e, result in found})


def at_once(result: Fitted) -> Fitted:
    """The same training, whose loss is below the goal before its first step."""
    evaluations = ("evaluated", "training_loss", "validation_loss", "validation_error")
    first = {name: getattr(result, name)[:1] for name in evaluations}
    nothing = {"curve": np.zeros(0, int), "loss": np.zeros(0), "learning_rate": np.zeros(0)}
    return replace(result, **first, **nothing, steps=0, best=0, catapults=0, converged=True, diverged=False)


def assert_readable(*shown) -> None:
    """Texts, claims and figures without ``nan``."""
    for item in shown:
        for text in vars(item).values():
            assert not isinstance(text, str) or text.startswith("<?xml") or not {"nan", "inf"} & words(text), text


def words(text: str) -> set[str]:
    return set("".join(letter if letter.isalnum() else " " for letter in text).split())


def assert_drawn(draw, *arguments, **options):
    """The figure, which has a caption and an alternative text."""
    figure = draw(*arguments, **options)
    assert (
        figure.svg.startswith("<?xml")
        and figure.caption.endswith(".")
        and figure.alt.endswith(".")
        and len(figure.alt) > 60
    )
    assert_readable(figure)
    return figure
