import json
import math
from dataclasses import replace

import numpy as np
import pytest
from catapults.compute import obtain
from catapults.display import MIME
from catapults.experiments import ParameterError
from catapults.experiments.gd_catapult import GDCatapult, GDRun
from catapults.figures import gd_catapult as figures
from catapults.paper import GIVEN, NOT_COMPARED, NOT_REPRODUCED, PARTLY, REPRODUCED, judge, quotes
from catapults.paper.descriptions import describe
from catapults.paper.gd_catapult import claims
from catapults.paper.quotes import CriticalRate
from histories import history, made, measured

PUBLISHED = quotes._CRITICAL_RATES
SMALL = {
    "dataset": "rank-2", "architecture": "fcn", "norm": None, "depth": 3, "width": 64, "image_size": None,
    "n_train": 16, "labels": "zero-one", "parameterization": "ntk", "gain": 1.0, "bias": False,
    "learning_rate": "1.5 eta_crit", "steps": 6, "top": 2, "hessian_every": 2, "seed": 0, "seeds": 1,
}  # fmt: skip
WRN = {"dataset": "cifar-2", "architecture": "wrn", "depth": 10}


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"width": 0}, "width = 0: input should be greater than or equal to 1"),
        ({"width": 2.5}, "width = 2.5: input should be a valid integer"),
        ({"width": "64"}, "width = '64': input should be a valid integer"),
        ({"steps": -3}, "steps = -3"),
        ({"bias": 1}, "bias = 1: input should be a valid boolean"),
        ({"architecture": "mlp"}, "architecture = 'mlp': input should be 'fcn', 'cnn', "),
        ({"labels": 1}, "labels = 1: input should be 'zero-one', 'plus-minus' or 'unit'"),
        ({"learning_rate": "big"}, "learning_rate = 'big': allowed are a positive number, a multiple"),
        ({"learning_rate": -2}, "learning_rate = -2: allowed are"),
        ({"learning_rate": "6; 3: 10"}, "learning_rate = '6; 3: 10': allowed are"),
        ({"gain": math.inf}, "gain = inf"),
        ({"top": 16}, "top = 16: allowed are whole numbers from 1 to 15"),
        ({"top": [2, 16]}, r"top = \[2, 16\]: allowed are whole numbers from 1 to 15, one or several that ascend"),
        ({"top": [3, 2]}, r"top = \[3, 2\]: allowed"),
        ({"top": [2, 2]}, r"top = \[2, 2\]: allowed"),
        ({"top": []}, r"top = \[\]: allowed"),
        ({"top": [1, "2"]}, r"top = \[1, '2'\]: input should be a valid integer"),
        ({"top": "2"}, "^top = '2': input should be a valid integer, or a valid list$"),
        ({"top": 0}, "^top = 0: input should be greater than or equal to 1, or a valid list$"),
        ({"dataset": "cifar-10", "top": [10, 160]}, r"top = \[10, 160\]: allowed are whole numbers from 1 to 159"),
        ({"hessian_every": 0}, "hessian_every = 0: input should be greater than or equal to 1"),
        ({"hessian_every": 2.5}, "hessian_every = 2.5: input should be a valid integer"),
        ({"dataset": "cifr-2"}, "dataset = 'cifr-2'.*did you mean 'cifar-2'"),
        ({"seeds": 0}, "seeds = 0: input should be greater than or equal to 1"),
        ({"architecture": "cnn"}, "architecture = 'cnn': 'rank-2' holds vectors; allowed is 'fcn'"),
        ({"architecture": "wrn", "depth": 10}, "architecture = 'wrn': 'rank-2' holds vectors; allowed is 'fcn'"),
        (WRN | {"depth": 11}, r"depth = 11: a Wide ResNet allows 6 b \+ 4"),
        (WRN | {"depth": 4}, r"depth = 4: a Wide ResNet allows 6 b \+ 4"),
        (WRN | {"image_size": 2}, "image_size = 2: architecture 'wrn' allows multiples of 4"),
        (WRN | {"norm": "batch"}, "norm = 'batch': input should be 'layer'"),
        ({"norm": "layer"}, "norm = 'layer': architecture 'fcn' has none; allowed is None"),
        ({"dataset": "cifar-2", "architecture": "cnn", "norm": "layer"}, "norm = 'layer': architecture 'cnn' has none"),
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


@pytest.mark.parametrize("changed", [WRN, WRN | {"norm": "layer", "image_size": 8}, {"top": [2, 15]}, {"top": [3]}])
def test_possible_parameters(changed):
    assert GDCatapult.create(**SMALL | changed).model_dump() == SMALL | changed


def test_a_namespace_may_hold_other_names():
    assert GDCatapult.from_namespace(SMALL | {"np": np, "_": 3}) == GDCatapult.create(**SMALL)


def computed(**changed) -> tuple[list[GDRun], object]:
    """What training gives, and the results."""
    page = GDCatapult.create(**SMALL | changed)
    results = obtain(page, device="cpu", progress=False)
    return page.runs(results), results


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CATAPULTS_RESULTS", str(tmp_path_factory.mktemp("results")))
        yield computed(seeds=2)


class TestATraining:
    def test_its_numbers(self, trained):
        run = trained[0][0]
        assert len(run.history) == 6 and len(run.history.loss) == 7
        assert run.learning_rate == pytest.approx(1.5 * run.critical_learning_rate, rel=1e-4)
        assert run.hessian[1][0] == pytest.approx(run.critical_learning_rate, rel=0.3)
        assert run.parameters == 100 * 64 + 64 * 64 + 64

    def test_the_hessian_is_measured_every_so_many_iterations(self, trained):
        run = trained[0][0]
        iterations, exact, approximate = run.hessian
        assert list(iterations) == [0, 2, 4, 6] and exact[0] == run.history.hessian_critical_learning_rate[0]
        np.testing.assert_array_equal(approximate, run.history.critical_learning_rate[::2])

    def test_each_seed_is_a_training(self, trained):
        first, second = trained[0]
        assert (first.experiment.seed, second.experiment.seed) == (0, 1) and len(trained[1]) == 2
        assert first.history.loss[0] != second.history.loss[0]

    def test_its_claims_and_its_description(self, trained):
        runs, results = trained
        page = GDCatapult.create(**SMALL | {"seeds": 2})
        assert dict(judge(page, results)) == dict(claims(runs))
        said = describe(runs, results).markdown
        assert "rank-2" in said and "16 samples" in said and "Seeds: 0, 1." in said and "The 2 trainings took" in said

    def test_a_divergence(self):
        (bad,), _ = computed(learning_rate="50 eta_crit", steps=40, top=[1, 3])
        assert bad.history.diverged and verdicts(bad)["spike"] is False
        assert len(bad.hessian[0]) >= 1 and bad.hessian[0][-1] < len(bad.history)
        assert not [text for text in texts(bad) if "nan" in text or "inf" in text]


@pytest.fixture(autouse=True)
def _results(tmp_path, monkeypatch):
    monkeypatch.setenv("CATAPULTS_RESULTS", str(tmp_path))


def course(run, loss, top, norm, diverged=False, hessian=1.0, tops=(2,), kind=np.float64):
    """The run with another history.

    ``top``: L_<=s over the iterations, for several dimensions a list of them. ``hessian``: its critical rate in units
    of the kernel's, one for all iterations or one each.
    """
    top, norm = np.reshape(top, (len(tops), -1)).T, np.array(norm)
    splits = np.stack([top, np.array(loss)[:, None] - top], 2)
    rates = {"critical_learning_rate": 16 / norm, "hessian_critical_learning_rate": np.array(hessian) * 16 / norm}
    found = history(
        loss,
        0.6,
        tops=tops,
        kernel_norm=norm,
        splits=splits,
        unstable_directions=1,
        diverged=diverged,
        kind=kind,
        **rates,
    )
    return replace(run, history=found)


@pytest.fixture
def run():
    """Made by hand, at 1.5 times the critical rate, which is 16 / 40."""
    page = GDCatapult.create(**SMALL)
    experiment = page.trainings()["catapult"]
    blank = page.run({"catapult": measured(history([1.0, 1.0], 0.6))})
    assert experiment.learning_rate == page.learning_rate
    return course(blank, LOSS, TOP, NORM)


LOSS, TOP, NORM = [1.0, 3.0, 9.0, 0.5, 0.2], [0.5, 2.6, 8.3, 0.1, 0.05], [40.0, 42.0, 20.0, 5.0, 4.0]
DRAW = [figures.loss_curve, figures.loss_and_norm, figures.loss_split, figures.hessian_along]


def texts(run):
    """Every text that a page has on a run."""
    said = describe([run], made((e, measured(run.history)) for e in run.experiment.experiments())).markdown
    return [said] + [
        text
        for part in [*claims([run]).values(), *(draw(run) for draw in DRAW)]
        for name, text in vars(part).items()
        if name != "svg" and isinstance(text, str)
    ]


def quoted(monkeypatch, critical, **settings):
    """What the paper quotes is this."""
    quote = CriticalRate("figure 99", {"dataset": "rank-2", "architecture": "fcn"} | settings, critical, 0.6)
    monkeypatch.setattr(quotes, "_CRITICAL_RATES", (quote,))


@pytest.fixture
def catapult(run):
    """A textbook catapult: the loss rises by 8 up to iteration 2, by 7.8 of it in the top, and is back at 3."""
    return course(run, LOSS, TOP, NORM)


def test_the_numbers_of_a_catapult(catapult):
    assert (catapult.peak, catapult.back) == (2, 3)
    assert catapult.share_of_spike_in_top(2) == pytest.approx(7.8 / 8)
    assert catapult.largest_rise_of_rest(2) == pytest.approx((0.7 - 0.5) / 8)
    assert catapult.rest_after_spike(2) == pytest.approx(0.4 / 0.5)
    catapult.history.turning[1:, 0] = [0.0, 0.05, -0.1, 0.0]
    assert catapult.turned_at_peak_of_rest(2) == pytest.approx(0.05 / 0.2)


def verdicts(run):
    holds = {REPRODUCED: True, NOT_REPRODUCED: False, NOT_COMPARED: None, GIVEN: "given"}
    return {name: holds[claim.verdict] for name, claim in claims([run]).items()}


def test_claims_hold_for_a_catapult(catapult):
    found = verdicts(catapult)
    assert all(found[name] is True for name in ("spike", "norm", "top", "rest", "few", "hessian"))
    assert found["rate"] == "given"  # as a multiple
    assert found["value"] is None  # what is quoted is for another network


@pytest.mark.parametrize("critical, holds", [(0.45, True), (0.59, True), (0.61, False), (0.26, False)])
def test_a_quoted_critical_rate_is_a_prediction_within_a_factor_of_one_and_a_half(
    catapult, monkeypatch, critical, holds
):
    quoted(monkeypatch, critical)
    assert verdicts(catapult)["value"] is holds  # ours: 16 / 40


def test_the_one_that_was_fitted_is_no_evidence(catapult, monkeypatch):
    quoted(monkeypatch, 0.45)
    monkeypatch.setattr(quotes, "_CRITICAL_RATES", (replace(quotes._CRITICAL_RATES[0], fitted=True),))
    assert verdicts(catapult)["value"] == "given"
    fitted = [quote for quote in PUBLISHED if quote.fitted]
    assert [quote.item for quote in fitted] == ["figure 3a"]


@pytest.mark.parametrize("last, holds", [(0.55, False), (0.52, True)])
def test_the_rest_is_where_it_was_once_the_loss_is_back(run, last, holds):
    """It rose in between, as it does for a fixed kernel whose eigenvectors turn a little."""
    loss = [1.0, 3.0, 9.0, 0.9, 0.2]
    back = course(run, loss, [0.5, 2.6, 7.3, 0.9 - last, 0.05], NORM)
    claim = claims([back])["rest"]
    assert (claim.verdict == REPRODUCED) is holds and f"{last / 0.5:.3f} times" in claim.ours
    assert "15.0 % of the spike's height" in claim.ours


def test_what_is_quoted_for_another_network_is_not_compared(catapult, monkeypatch):
    quoted(monkeypatch, 0.4, width=1024, depth=3)
    found = claims([catapult])
    assert found["value"].verdict == NOT_COMPARED and "width = 1024 there, 64 here" in found["value"].sentence
    assert found["rate"].paper == "0.6 > 0.4 (1.5 times; Fig. 99)"


@pytest.mark.parametrize("rate, holds", [(0.59, True), (0.39, False)])
def test_an_absolute_rate_is_compared(run, rate, holds):
    page = run.experiment.model_copy(update={"learning_rate": rate})
    changed = replace(run.history, learning_rate=np.full(4, rate))
    assert verdicts(replace(run, experiment=page, history=changed))["rate"] is holds


def test_over_seeds_the_first_is_shown_and_all_are_counted(catapult, run):
    calm = course(run, [1.0, 0.9, 0.8], [0.5, 0.45, 0.4], [40.0, 40.1, 40.2])
    found = claims([catapult, calm, catapult])
    assert (found["spike"].verdict, found["spike"].held) == (PARTLY, (2, 3))
    assert found["norm"].held == (2, 2)  # without a spike it is not compared
    assert found["rate"].held is None  # we chose it
    table = found._repr_mimebundle_()["text/markdown"].splitlines()
    assert "| 2 of 3 seeds (21–94 %) |" in table[3] and "| – |" in table[2]
    only = claims([calm, catapult])["norm"]
    assert only.verdict == REPRODUCED and only.held == (1, 1) and "not compared in 1: the loss does not" in only.ours


def test_claims_fail_without_a_catapult(run):
    calm = course(run, [1.0, 0.9, 0.8], [0.5, 0.45, 0.4], [40.0, 40.1, 40.2])
    assert calm.peak == 0 and calm.back is None and math.isnan(calm.share_of_spike_in_top(2))
    found = verdicts(calm)
    assert found["spike"] is False
    assert [found[name] for name in ("norm", "top", "rest")] == [None] * 3  # they speak of a spike
    assert "no catapult" in claims([calm])["spike"].sentence


@pytest.mark.parametrize(
    "last, hessian, tops, top",
    [
        (math.inf, 1.0, (2,), [0.5, 29, 890, math.nan]),
        (3e6, [1.0, math.nan, math.nan, math.nan], (1, 2), [0.4, 27, 880, math.nan] * 2),
        (math.inf, [1.0, math.inf, 1.0, math.nan], (1, 2), [0.4, 27, 880, math.nan] * 2),
    ],
)
def test_claims_fail_for_a_divergence(run, last, hessian, tops, top):
    norm = [40.0, 50.0, 90.0, math.nan]
    bad = replace(course(run, [1.0, 30.0, 900.0, last], top, norm, True, hessian, tops), outputs=3)
    found = verdicts(bad)
    assert found["spike"] is False
    assert [found[name] for name in ("norm", "top", "rest", "few")] == [None] * 4
    said = claims([bad])
    assert "diverges" in said["spike"].sentence and "diverges" in figures.loss_curve(bad).alt
    assert not [text for text in texts(bad) if "nan" in text or "inf" in text]


def test_a_spike_that_does_not_come_back(run):
    high = course(run, [1.0, 9.0, 5.0], [0.5, 8.5, 4.5], [40.0, 20.0, 10.0])
    assert high.back is None and verdicts(high)["spike"] is False
    assert "does not come back" in claims([high])["spike"].sentence


def test_claims_show_a_table_and_carry_their_verdicts(catapult):
    bundle = claims([catapult])._repr_mimebundle_()
    assert bundle["text/markdown"].count("\n") == 10  # a header, a line, nine claims
    assert "✓ reproduced" in bundle["text/markdown"] and "– not compared: the paper" in bundle["text/markdown"]
    assert bundle[MIME]["claims"]["spike"]["verdict"] == "reproduced"
    read_again = json.loads(json.dumps(bundle[MIME], sort_keys=True))  # as a notebook is written
    assert read_again["order"] == list(claims([catapult])) != list(read_again["claims"])


@pytest.mark.parametrize("draw", DRAW)
def test_figures(draw, catapult):
    figure = draw(catapult)
    assert figure.svg.startswith("<?xml") and figure.svg == draw(catapult).svg
    assert figure.caption.endswith(".") and figure.alt.endswith(".")


@pytest.mark.parametrize("draw", DRAW[:3])
def test_alternative_texts_tell_the_course_of_the_loss(draw, catapult, run):
    assert "starts at 1, peaks at 9 at iteration 2 and ends at 0.2." in draw(catapult).alt
    calm = course(run, [1.0, 0.9, 0.8], [0.5, 0.45, 0.4], [40.0, 40.1, 40.2])
    assert "starts at 1, never rises above that and ends at 0.8." in draw(calm).alt


class TestSeveralDimensions:
    """In the top 1 lies three quarters of the rise, in the top 2 nearly all of it."""

    @pytest.fixture
    def catapult(self, run):
        return course(run, LOSS, [[0.3, 2.0, 6.3, 0.1, 0.05], TOP], NORM, tops=(1, 2))

    def test_all_shares_are_claimed_and_the_largest_dimension_decides(self, catapult, run):
        claim = claims([catapult])["top"]
        assert claim.verdict == REPRODUCED and "top-2 eigenspace" in claim.statement
        for text in (claim.ours, claim.sentence):
            assert "75.0 % in the top 1, 97.5 % in the top 2" in text
        turned = course(run, LOSS, [TOP, [0.3, 2.0, 6.3, 0.1, 0.05]], NORM, tops=(1, 2))
        assert claims([turned])["top"].verdict == NOT_REPRODUCED

    def test_the_rest_is_that_of_the_largest_dimension(self, catapult):
        claim = claims([catapult])["rest"]
        assert "L>2" in claim.statement and claim.ours.startswith("0.800 times; in between it rises by 2.5 %")

    def test_a_panel_each(self, catapult, run):
        figure, alone = figures.loss_split(catapult), figures.loss_split(course(run, LOSS, TOP, NORM))
        assert figure.svg.count('id="axes_') == 2 and alone.svg.count('id="axes_') == 1
        assert "a panel per dimension" in figure.alt and "panel" not in alone.alt
        assert "top-1 eigenspace goes from 0.3 to at most 6.3" in figure.alt
        assert "top-2 eigenspace goes from 0.5 to at most 8.3" in figure.alt
        assert (
            "one panel for each s = 1 and 2: in the top-s eigenspace" in figure.caption and "Fig. 16" in figure.caption
        )
        assert "top-2 eigenspace" in alone.caption and "Fig. 3" in alone.caption


class TestTheHessian:
    @pytest.mark.parametrize(
        "hessian, norm, at_start, along",
        [
            ([1.0, 1.1, 0.95, 1.0, 1.02], NORM, True, True),
            (1 / 1.3, NORM, False, False),
            (1.3, NORM, False, False),
            ([1.0, 1.0, 0.6, 1.0, 1.0], NORM, True, False),  # far off at one of five iterations
            ([1.2, 1.0, 1.0, 1.0, 1.0], NORM, False, False),
        ],
    )
    def test_both_thresholds_are_compared(self, run, hessian, norm, at_start, along):
        found = verdicts(course(run, LOSS, TOP, norm, hessian=hessian))
        assert (found["hessian"], found["hessian_along"]) == (at_start, along)

    def test_differences_are_named(self, run):
        claim = claims([course(run, LOSS, TOP, NORM, hessian=[1.0, 1.0, 0.5, 0.5, 0.8])])["hessian_along"]
        assert "within 15 % at 40 % of 5 iterations; median 25.0 %, worst 100 % (iteration 2)" in claim.ours
        assert "median difference is 0.0 % where η exceeds n/‖K‖ and 100.0 % where it does not" in claim.sentence

    @pytest.mark.parametrize(
        "missing, said", [([1, 2, 3, 4], "too rarely"), ([1, 2, 3], "too rarely"), ([1, 3], "At 3 iterations")]
    )
    @pytest.mark.parametrize("value", [math.nan, math.inf])
    def test_what_is_not_measured_or_infinite_is_left_out(self, run, missing, said, value):
        hessian = np.ones(5)
        hessian[missing] = value
        catapult = course(run, LOSS, TOP, NORM, hessian=hessian)
        claim, figure = claims([catapult])["hessian_along"], figures.hessian_along(catapult)
        assert said in claim.sentence and (claim.verdict == REPRODUCED) is (len(missing) == 2)
        assert (claim.verdict == NOT_COMPARED) is (len(missing) > 2)
        assert figure.svg == figures.hessian_along(catapult).svg
        assert not [text for text in texts(catapult) if "nan" in text or "inf" in text]

    def test_an_infinite_rate_of_the_kernel_is_left_out(self, run):
        dead = course(run, LOSS, TOP, NORM)
        dead.history.critical_learning_rate[4] = math.inf
        assert list(dead.hessian[0]) == [0, 1, 2, 3] and verdicts(dead)["hessian_along"] is True

    def test_the_figure_tells_both_rates(self, run):
        alt = figures.hessian_along(course(run, LOSS, TOP, NORM, hessian=0.5)).alt
        assert "Hessian's critical rate goes from 0.2 to 2, n/‖K‖ from 0.4 to 4, at 5 iterations" in alt
        once = figures.hessian_along(course(run, LOSS, TOP, NORM, hessian=[0.5, *[math.nan] * 4])).alt
        assert "at iteration 0 the Hessian's critical rate is 0.2, n/‖K‖ is 0.4" in once


class TestWhichAverage:
    @pytest.mark.parametrize("theirs, said", [(0.35, "first"), (0.05, "second")])
    def test_the_nearer_of_two_readings(self, catapult, monkeypatch, theirs, said):
        ten = replace(catapult, outputs=10)  # 16 / 40 if averaged over outputs too, else a tenth of that
        quoted(monkeypatch, theirs)
        claim = claims([ten])["average"]
        assert claim.verdict == GIVEN and f"nearer to the {said}" in claim.sentence
        assert "nc/‖K‖ = 0.4" in claim.sentence and "n/‖K‖ = 0.04" in claim.sentence
        assert "0.4 if averaged over both, 0.04 over samples only" in claim.ours

    def test_what_is_quoted_for_other_settings_decides_nothing(self, catapult, monkeypatch):
        quoted(monkeypatch, 0.35, width=1024)
        assert "quotes" not in claims([replace(catapult, outputs=10)])["average"].sentence

    def test_it_is_no_question_with_one_output(self, catapult):
        assert "average" not in claims([catapult])


def test_what_the_record_has_in_single_precision_is_judged_and_drawn(run):
    single = course(run, LOSS, TOP, NORM, kind=np.float32)
    assert single.history.loss.dtype == np.float32
    assert verdicts(single) == verdicts(run) and texts(single) == texts(run)


def test_experiments_are_described_by_name_type_and_range():
    assert set(SMALL) == set(GDCatapult.model_fields)


def test_below_the_critical_rate_there_is_nothing_to_reproduce(run):
    calm = course(run, [1.0, 0.9, 0.8], [0.5, 0.45, 0.4], [1.0, 1.1, 1.2])
    assert calm.learning_rate < calm.critical_learning_rate
    assert verdicts(calm)["spike"] is None


def test_a_hessian_that_was_not_measured_in_the_spike_decides_nothing(run):
    hessian = [0.4, math.nan, math.nan, 3.0, 4.0]
    late = course(
        run, [1.0, 3.0, 9.0, 0.5, 0.2], [0.5, 2.6, 8.3, 0.1, 0.05], [40.0, 42.0, 20.0, 5.0, 4.0], False, hessian
    )
    claim = claims([late])["hessian_along"]
    assert verdicts(late)["hessian_along"] is None and "none of them in the spike" in claim.sentence
