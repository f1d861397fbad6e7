import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from catapults.claims import GIVEN, NOT_COMPARED, NOT_REPRODUCED, REPRODUCED
from catapults.claims.gd_catapult import claims
from catapults.display import MIME
from catapults.experiments import ParameterError
from catapults.experiments.gd_catapult import GDCatapult
from catapults.figures import gd_catapult as figures
from catapults.training import History, Step

SMALL = {
    "dataset": "rank-2", "architecture": "fcn", "depth": 3, "width": 64, "image_size": None, "n_train": 16,
    "labels": "zero-one", "parameterization": "ntk", "gain": 1.0, "bias": False, "learning_rate": "1.5 eta_crit",
    "steps": 6, "top": 2, "seed": 0, "device": "cpu",
}  # fmt: skip


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"width": 0}, "width = 0: input should be greater than or equal to 1"),
        ({"width": 2.5}, "width = 2.5: input should be a valid integer"),
        ({"width": "64"}, "width = '64': input should be a valid integer"),
        ({"steps": -3}, "steps = -3"),
        ({"bias": 1}, "bias = 1: input should be a valid boolean"),
        ({"architecture": "mlp"}, "architecture = 'mlp': input should be 'fcn' or 'cnn'"),
        ({"labels": 1}, "labels = 1: input should be 'zero-one' or 'plus-minus'"),
        ({"learning_rate": "big"}, "learning_rate = 'big': allowed are a positive number, or a multiple"),
        ({"learning_rate": -2}, "learning_rate = -2: allowed are"),
        ({"gain": math.inf}, "gain = inf"),
        ({"top": 16}, "top = 16: allowed are whole numbers from 1 to 15"),
        ({"dataset": "cifr-2"}, "dataset = 'cifr-2'.*did you mean 'cifar-2'"),
        ({"device": "tpu"}, "device = 'tpu': allowed on this machine are auto"),
        ({"architecture": "cnn"}, "architecture = 'cnn': 'rank-2' holds vectors; allowed is 'fcn'"),
        ({"image_size": 8}, "image_size = 8: 'rank-2' holds vectors; allowed is None"),
        ({"labels": "plus-minus"}, "labels = 'plus-minus': 'rank-2' has no classes"),
        ({"parameterization": "pytorch", "gain": 1.5}, "gain = 1.5: PyTorch's default parameterisation has none"),
        ({"widht": 3}, "widht: unknown parameter"),
    ],
)
def test_impossible_parameters(changed, message):
    with pytest.raises(ParameterError, match=message):
        GDCatapult.create(**SMALL | changed)


def test_every_problem_is_named_at_once():
    with pytest.raises(ParameterError) as error:
        GDCatapult.create(**SMALL | {"width": 0, "steps": 0, "labels": "a"})
    assert [line.split(" = ")[0] for line in str(error.value).splitlines()] == ["width", "labels", "steps"]


def test_a_missing_parameter():
    with pytest.raises(ParameterError, match="seed: missing"):
        GDCatapult.create(**{name: value for name, value in SMALL.items() if name != "seed"})


def test_a_namespace_may_hold_other_names():
    assert GDCatapult.from_namespace(SMALL | {"np": np, "_": 3}) == GDCatapult.create(**SMALL)


@pytest.fixture(scope="module")
def run():
    return GDCatapult.create(**SMALL).run()


def test_a_run(run):
    assert len(run.history) == 7
    assert run.learning_rate == pytest.approx(1.5 * run.critical_learning_rate, rel=1e-4)
    assert run.hessian_critical_learning_rate == pytest.approx(run.critical_learning_rate, rel=0.3)
    assert run.parameters == 100 * 64 + 64 * 64 + 64
    assert "rank-2" in run.describe().markdown and "16 samples" in run.describe().markdown


def test_a_run_is_the_same_again_and_another_with_another_seed(run):
    assert np.array_equal(run.history.loss, GDCatapult.create(**SMALL).run().history.loss)
    assert not np.array_equal(run.history.loss, GDCatapult.create(**SMALL | {"seed": 1}).run().history.loss)


def test_the_weights_do_not_depend_on_the_device_they_go_to():
    model = GDCatapult.create(**SMALL).model(torch.zeros(2, 100), 1)
    assert {p.device.type for p in model.parameters()} == {"cpu"}


def course(run, loss, top, norm, diverged=False):
    """The run with another history."""
    steps = [
        Step(i, L, T, L - T, k, 16 / k, 1, run.learning_rate, 0.0)
        for i, (L, T, k) in enumerate(zip(loss, top, norm, strict=True))
    ]
    return replace(run, history=History(steps, diverged, 2))


@pytest.fixture
def catapult(run):
    """A textbook catapult: the loss rises by 8 up to iteration 2, by 7.8 of it in the top, and is back at 3."""
    return course(run, [1.0, 3.0, 9.0, 0.5, 0.2], [0.5, 2.6, 8.3, 0.1, 0.05], [40.0, 42.0, 20.0, 5.0, 4.0])


def test_the_numbers_of_a_catapult(catapult):
    assert (catapult.peak, catapult.back) == (2, 3)
    assert catapult.share_of_spike_in_top == pytest.approx(7.8 / 8)
    assert catapult.largest_rise_of_rest == pytest.approx((0.7 - 0.4) / 0.5)


def verdicts(run, quoted=None):
    holds = {REPRODUCED: True, NOT_REPRODUCED: False, NOT_COMPARED: None, GIVEN: "given"}
    return {name: holds[claim.verdict] for name, claim in claims(run, quoted or {}).items()}


def test_claims_hold_for_a_catapult(catapult):
    found = verdicts(catapult)
    assert all(found[name] is True for name in ("spike", "norm", "top", "few"))
    assert found["rate"] == "given"  # as a multiple
    assert found["rest"] is False  # it rises by 60 % of its start
    assert found["value"] is None  # nothing is quoted


@pytest.mark.parametrize("quoted, holds", [(0.45, True), (0.81, False), (0.19, False)])
def test_the_quoted_critical_rate_is_compared_within_a_factor_of_two(catapult, quoted, holds):
    assert verdicts(catapult, {"critical_learning_rate": quoted})["value"] is holds  # ours: 16 / 40


def test_what_is_quoted_for_another_network_is_not_compared(catapult):
    quoted = {"critical_learning_rate": 0.4, "learning_rate": 0.6, "settings": {"width": 1024, "depth": 3}}
    claim = claims(catapult, quoted)["value"]
    assert claim.verdict == NOT_COMPARED and "width = 1024 there, 64 here" in claim.sentence
    assert claims(catapult, quoted)["rate"].paper == "0.6 > 0.4 (1.5 times)"


def test_an_absolute_rate_is_compared(run):
    rates = (run.critical_learning_rate * factor for factor in (0.9, 1.1))
    found = (GDCatapult.create(**SMALL | {"learning_rate": rate, "steps": 1}).run() for rate in rates)
    assert [verdicts(run)["rate"] for run in found] == [False, True]


def test_claims_fail_without_a_catapult(run):
    calm = course(run, [1.0, 0.9, 0.8], [0.5, 0.45, 0.4], [40.0, 40.1, 40.2])
    assert calm.peak == 0 and calm.back is None and math.isnan(calm.share_of_spike_in_top)
    found = verdicts(calm)
    assert found["spike"] is False and found["norm"] is False and found["top"] is None and found["rest"] is True
    assert "no catapult" in claims(calm, {})["spike"].sentence


def test_claims_fail_for_a_divergence(run):
    nan = math.nan
    bad = course(run, [1.0, 30.0, 900.0, math.inf], [0.5, 29.0, 890.0, nan], [40.0, 50.0, 90.0, nan], diverged=True)
    found = verdicts(bad)
    assert found["spike"] is False and found["norm"] is False
    assert found["top"] is None and found["rest"] is None and found["few"] is None
    said = claims(bad, {})
    assert "diverges" in said["spike"].sentence and "diverges" in figures.loss_curve(bad).alt
    texts = [claim.sentence + claim.ours for claim in said.values()]
    texts += [draw(bad).alt for draw in (figures.loss_curve, figures.loss_and_norm, figures.loss_split)]
    assert not [text for text in texts if "nan" in text]


def test_a_spike_that_does_not_come_back(run):
    high = course(run, [1.0, 9.0, 5.0], [0.5, 8.5, 4.5], [40.0, 20.0, 10.0])
    assert high.back is None and verdicts(high)["spike"] is False
    assert "does not come back" in claims(high, {})["spike"].sentence


def test_claims_show_a_table_and_carry_their_verdicts(catapult):
    bundle = claims(catapult, {"critical_learning_rate": 0.9})._repr_mimebundle_()
    assert bundle["text/markdown"].count("\n") == 9  # a header, a line, eight claims
    assert "✗ not reproduced" in bundle["text/markdown"]
    assert bundle[MIME]["claims"]["spike"]["verdict"] == "reproduced"


@pytest.mark.parametrize("draw", [figures.loss_curve, figures.loss_and_norm, figures.loss_split])
def test_figures(draw, catapult):
    figure = draw(catapult)
    assert figure.svg.startswith("<?xml") and figure.svg == draw(catapult).svg
    assert "peaks at 9 at iteration 2" in figure.alt and "ends at 0.2" in figure.alt
    assert figure.caption.endswith(".")


def test_experiments_are_described_by_name_type_and_range():
    assert set(SMALL) == set(GDCatapult.model_fields)
