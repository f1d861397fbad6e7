import copy
import math

import nbformat
import pytest
import torch
from book_project import ROOT
from catapults import training
from catapults.book import runs
from catapults.book.execute import Result
from catapults.book.executed import contents, verdicts
from catapults.book.stage import page_of, summary
from catapults.claims import scaling as claims
from catapults.experiments import ParameterError
from catapults.experiments.scaling import (
    CNN,
    FCN,
    WARM_STEPS,
    Errors,
    Point,
    Scaling,
    ScalingRun,
    our_steps,
    plain_steps,
)
from catapults.figures import scaling as figures
from nbclient import NotebookClient

SMALL = {
    "samples": [8, 12], "input_dim": 6, "width": 16, "channels": 2, "image_size": 4, "depth": 3,
    "learning_rate": "0.5 eta_crit", "top": 2, "seconds": 1e-3, "seed": 0, "device": "cpu",
}  # fmt: skip


@pytest.fixture(scope="module")
def run():
    return Scaling.create(**SMALL).run()


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"samples": []}, r"samples = \[\]: allowed are one or several whole numbers that ascend"),
        ({"samples": [12, 8]}, r"samples = \[12, 8\]: allowed are one or several whole numbers that ascend"),
        ({"samples": [8, 8]}, r"samples = \[8, 8\]: allowed are"),
        ({"samples": [1, 8]}, r"samples = \[1, 8\]: input should be greater than or equal to 2"),
        ({"samples": 8}, "samples = 8: input should be a valid list"),
        ({"top": 8}, "top = 8: allowed are whole numbers from 1 to 7"),
        ({"width": 0}, "width = 0: input should be greater than or equal to 1"),
        ({"input_dim": 1}, "input_dim = 1: input should be greater than or equal to 2"),
        ({"depth": 2}, "depth = 2: input should be greater than or equal to 3"),
        ({"seconds": 0.0}, "seconds = 0.0: input should be greater than 0"),
        ({"seconds": math.inf}, "seconds = inf: input should be a finite number"),
        ({"learning_rate": "fast"}, "learning_rate = 'fast': allowed are a positive number"),
        ({"device": "tpu"}, "device = 'tpu': allowed on this machine are auto"),
        ({"widht": 16}, "widht: unknown parameter"),
    ],
)
def test_impossible_values_are_refused(changed, message):
    with pytest.raises(ParameterError, match=message):
        Scaling.create(**SMALL | changed)


def test_a_run_measures_both_networks_at_every_number_of_samples(run):
    assert list(run.points) == [FCN, CNN]
    for points in run.points.values():
        assert [point.n for point in points] == SMALL["samples"]
        for point in points:
            assert point.rounds >= 2 and point.ratio == point.ours / point.plain
            assert min(point.plain, point.ours, point.first, point.product) > 0
            assert point.kernel_mib == point.n**2 * 4 / 2**20
    assert run.compared == 12 and all(errors.largest < 1e-3 for errors in run.errors.values())


def test_the_largest_number_of_samples_that_float64_can_afford_is_compared():
    one = Scaling.create(**SMALL | {"samples": [1001]}).run()
    assert one.compared == 0 and not one.errors
    assert "float64" not in claims.bounds(one).markdown


def test_the_step_that_is_timed_is_the_librarys_own(monkeypatch):
    calls, descend = [], training.gradient_descent

    def recorded(*arguments, **named):
        calls.append(descend(*arguments, **named))
        return calls[-1]

    monkeypatch.setattr(training, "gradient_descent", recorded)
    network = Scaling.create(**SMALL).networks()[FCN]
    first, others, eta = our_steps(network.model, network.inputs, network.targets, "0.5 eta_crit", 2)
    (history,) = calls
    assert [first, *others] == history.seconds[:-1].tolist() and len(others) == WARM_STEPS
    assert eta == history.learning_rate[0]


@pytest.mark.parametrize("name", [FCN, CNN])
def test_the_plain_step_makes_the_same_update(name):
    network = Scaling.create(**SMALL).networks()[name]
    ours, plain = copy.deepcopy(network.model), copy.deepcopy(network.model)
    _, warm, eta = our_steps(ours, network.inputs, network.targets, 0.1, 2)
    plain_steps(plain, network.inputs, network.targets, eta, steps=1 + len(warm))
    for before, one, other in zip(*(m.parameters() for m in (network.model, ours, plain)), strict=True):
        assert (one - before).norm() > 0
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_a_rate_at_which_the_training_diverges_is_refused():
    network = Scaling.create(**SMALL).networks()[FCN]
    with pytest.raises(ValueError, match="learning_rate = '1e9 eta_crit': diverges at once; allowed is a smaller one"):
        our_steps(network.model, network.inputs, network.targets, "1e9 eta_crit", 2)


def test_the_count_of_multiplications():
    network = Scaling.create(**SMALL).networks()[FCN]
    n, d, w = 10, SMALL["input_dim"], SMALL["width"]
    plain = n * (2 * d * w + 3 * w)
    kernel = n * (n + 1) / 2 * (d + w + w + 1)
    assert network.expected_ratio(n) == pytest.approx(1 + kernel / plain)
    cnn = Scaling.create(**SMALL).networks()[CNN]
    weights = [layer.inputs * layer.outputs for layer in cnn.layers]
    assert weights == [parameter.numel() for parameter in cnn.model.parameters()]


def test_the_figure_says_its_numbers(run):
    figure = figures.cost(run)
    assert "n = 8" in figure.alt and "n = 12" in figure.alt and FCN in figure.alt and CNN in figure.alt
    assert figures.number(run.points[FCN][0].ratio) in figure.alt
    assert figure.caption.endswith(".") and "cpu" in figure.caption and "bound" not in figure.caption
    assert figure.svg.lstrip().startswith("<?xml")


def made_up(ratio: float, expected: float = 2.0, error: float = 1e-5) -> ScalingRun:
    """A run at the sizes that the bound on the step's time is for."""
    experiment = Scaling.create(**SMALL | {"samples": [128, 5000], "width": 1024, "input_dim": 3072})
    points = [Point(n, 3, 1.0, ratio, 2 * ratio, 1.0, expected) for n in experiment.samples]
    return ScalingRun(experiment, "cpu", {FCN: points, CNN: points}, 128, {FCN: Errors(error, 0.0, 0.0)}, 1.0)


def test_bounds_hold_or_do_not():
    good, slow, bad = made_up(6.5), made_up(20.0, expected=27.0), made_up(3.0, error=2e-3)
    assert claims.bounds(good).markdown.count("✓ holds") == 2 and "bound holds" in claims.limit(good).markdown
    assert claims.bounds(slow).markdown.count("✗ does not hold") == 1
    assert "no matter of details" in claims.limit(slow).markdown and "26 times" in claims.limit(slow).markdown
    assert "no matter of details" not in claims.limit(made_up(20.0)).markdown
    assert claims.bounds(bad).markdown.count("✗ does not hold") == 1
    assert "The triangle is our bound" in figures.cost(good).caption


def test_bounds_are_not_compared_at_other_sizes(run):
    assert "– not compared" in claims.bounds(run).markdown and "other sizes" in claims.limit(run).markdown


def test_the_page_executes_at_smoke_size():
    every = runs.load(ROOT / "chapters")
    page = every["performance"]
    assert page.settings["laptop"]["samples"][-1] == 5000
    notebook = copy.deepcopy(page.chapter.notebook)
    place = next(i for i, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", []))
    lines = "\n".join(f"{name} = {value!r}" for name, value in page.settings["smoke"].items())
    notebook.cells.insert(place + 1, nbformat.v4.new_code_cell(lines, metadata={"tags": ["injected-parameters"]}))
    resources = {"metadata": {"path": str(ROOT / "chapters")}}
    done = NotebookClient(notebook, timeout=300, kernel_name="python3", resources=resources).execute()
    (figure,) = contents(done, "figure")
    assert "n = 64" in figure["alt"]
    assert len(contents(done, "provenance")) == 1
    assert not [o for cell in done.cells for o in cell.get("outputs", []) if o.output_type == "stream"]
    assert not any(verdicts(done).values())  # our bounds are no claims of the paper
    row = summary({"performance": page}, {"performance": Result(done)}, "smoke").splitlines()[-1]
    assert row.startswith("| [](/chapters/performance) | – | – | ")
    staged = page_of(page, done, every, "smoke")
    assert "The paper has no such run" in staged.cells[0].source
