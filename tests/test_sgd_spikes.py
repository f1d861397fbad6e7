import math
from dataclasses import replace

import numpy as np
import pytest
from catapults.catapult import Spike
from catapults.compute import ComputationFailed, obtain
from catapults.display import MIME
from catapults.experiments import ParameterError
from catapults.experiments.sgd_spikes import Matches, SGDRun, SGDSpikes, matches
from catapults.figures import sgd_spikes as figures
from catapults.paper import GIVEN, NOT_COMPARED, NOT_REPRODUCED, OURS, REPRODUCED, judge
from catapults.paper.descriptions import describe
from catapults.paper.sgd_spikes import claims, match_table, spike_table
from histories import history, made, measured

SMALL = {
    "dataset": "rank-2", "architecture": "fcn", "norm": None, "depth": 3, "width": 64, "image_size": None,
    "n_train": 16, "labels": "zero-one", "parameterization": "ntk", "gain": 1.0, "bias": False,
    "train_last_layer": True, "learning_rate": "1.5 eta_crit", "calm_learning_rate": "0.1 eta_crit", "batch_size": 4,
    "replacement": False, "steps": 12, "stop_below": 0.0, "top": 1, "rise": 2.0, "loss_every": 1, "kernel_every": 1,
    "hessian_every": 2, "seed": 0, "seeds": 1,
}  # fmt: skip
CIFAR = {"dataset": "cifar-2", "image_size": 8}


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"learning_rate": "big"}, "learning_rate = 'big': allowed are a positive number"),
        ({"learning_rate": "3 .. 1, 5"}, "learning_rate = '.*': allowed are cycles from a lower to a higher rate"),
        ({"calm_learning_rate": -1}, "calm_learning_rate = -1: allowed are a positive number"),
        ({"learning_rate": "1; 12: 2"}, "learning_rate = '1; 12: 2': allowed are changes before iteration 12"),
        ({"calm_learning_rate": "1; 30: 2"}, "calm_learning_rate = '1; 30: 2': allowed are changes before"),
        ({"batch_size": 17}, "batch_size = 17: allowed are 1 to n_train = 16"),
        ({"batch_size": 0}, "batch_size = 0"),
        ({"top": 16}, "top = 16: allowed are whole numbers from 1 to 15"),
        ({"rise": 1.0}, "rise = 1.0: input should be greater than 1"),
        ({"stop_below": -1.0}, "stop_below = -1.0"),
        ({"kernel_every": 0}, "kernel_every = 0"),
        ({"loss_every": 0}, "loss_every = 0"),
        ({"train_last_layer": 1}, "train_last_layer = 1: input should be a valid boolean"),
        ({"architecture": "vit"}, "architecture = 'vit': 'rank-2' holds vectors; allowed is 'fcn'"),
        (CIFAR | {"architecture": "vit", "width": 6}, "width = 6: a transformer with 4 heads allows multiples of 4"),
        (CIFAR | {"architecture": "vit", "image_size": 6}, "image_size = 6: architecture 'vit' allows multiples of 4"),
        (CIFAR | {"architecture": "myrtle", "depth": 4}, "depth = 4: the Myrtle network has 5 weight layers"),
        (CIFAR | {"architecture": "myrtle", "depth": 5, "image_size": 6}, "image_size = 6: architecture 'myrtle'"),
        (CIFAR | {"architecture": "cnn", "norm": "layer"}, "norm = 'layer': architecture 'cnn' has none"),
    ],
)
def test_impossible_parameters(changed, message):
    with pytest.raises(ParameterError, match=message):
        SGDSpikes.create(**SMALL | changed)


@pytest.mark.parametrize(
    "changed",
    [
        {"batch_size": 40, "replacement": True},
        {"learning_rate": "0.5 eta_crit .. 2 eta_crit, 4", "calm_learning_rate": None},
        {"learning_rate": 3, "kernel_every": None, "hessian_every": None},
    ],
)
def test_possible_parameters(changed):
    assert SGDSpikes.create(**SMALL | changed).model_dump() == SMALL | {"break_even_every": None} | changed


def test_experiments_are_described_by_name_type_and_range():
    assert set(SMALL) == set(SGDSpikes.model_fields) - {"break_even_every"}  # which was added later


@pytest.fixture(autouse=True)
def _results(tmp_path, monkeypatch):
    monkeypatch.setenv("CATAPULTS_RESULTS", str(tmp_path))


def computed(**changed) -> tuple[SGDRun, str]:
    """What training gives, and what is said of it; its claims are those of :func:`judge`."""
    page = SGDSpikes.create(**SMALL | changed)
    results = obtain(page, device="cpu", progress=False)
    runs = page.runs(results)
    assert dict(judge(page, results)) == dict(claims(runs))
    return runs[0], describe(runs, results).markdown


class TestATraining:
    def test_both_start_alike(self):
        run, said = computed()
        assert run.history.loss[0] == run.calm.loss[0] and np.array_equal(run.history.batches, run.calm.batches)
        assert run.calm.learning_rate[0] == pytest.approx(run.history.learning_rate[0] / 15)
        assert np.isnan(run.calm.batch_hessian_critical_learning_rate).all()
        assert len(run.hessian[0]) == len(run.hessian_exceeds) == 6
        assert "16 samples" in said and "batches of 4, by going through" in said and "The 2 trainings took" in said

    def test_without_a_second_one(self):
        run, said = computed(calm_learning_rate=None, replacement=True)
        assert run.calm is None and run.calm_spikes == [] and figures.calm(run) is None
        assert claims([run])["calm"].verdict == NOT_COMPARED and "with replacement" in said

    def test_nothing_to_train(self):
        with pytest.raises(
            ComputationFailed, match=r"stop_below = 1000.0: the loss is .* before the first step; allowed"
        ):
            computed(stop_below=1000.0)

    def test_a_fixed_last_layer(self):
        run, said = computed(depth=2, train_last_layer=False, steps=2)
        whole, _ = computed(depth=2, steps=2)
        assert run.history.kernel_norm[0] < whole.history.kernel_norm[0]
        assert "Its last layer is not trained." in said

    def test_the_special_sample_of_figure_5(self):
        """Batches of one on the unit sphere: the sample that is twice as long has a quarter of the critical rate."""
        sphere = {
            "dataset": "sphere", "depth": 2, "width": 8192, "n_train": 20, "train_last_layer": False,
            "learning_rate": 0.5, "calm_learning_rate": None, "batch_size": 1, "steps": 20, "hessian_every": None,
        }  # fmt: skip
        h = computed(**sphere)[0].history
        special = h.batches[:, 0] == 0
        ratio = h.batch_critical_learning_rate[~special] / h.batch_critical_learning_rate[special]
        assert special.sum() == 1 and ratio == pytest.approx(4.0, rel=0.1)

    def test_a_divergence(self):
        bad, said = computed(learning_rate="90 eta_crit", steps=60)
        assert bad.history.diverged and "diverges after" in said
        assert claims([bad])["spikes"].verdict == NOT_REPRODUCED and "diverges" in claims([bad])["spikes"].ours
        assert not [text for text in texts(bad) if "nan" in text or "inf" in text]


@pytest.fixture
def run():
    page = SGDSpikes.create(**SMALL | {"calm_learning_rate": None})
    return page.run({"spikes": measured(history([1.0, 1.0]))})


def course(
    run,
    loss,
    norm=4.0,
    top=1.0,
    exceeds=None,
    rise=2.0,
    batch=1,
    batch_loss=None,
    calm=None,
    hessian=1.0,
    kind=np.float64,
):
    """The run with another history, at the rate 1. ``top``: L_<=1 as a share of the loss or one value each.

    ``exceeds``: 1 where the rate exceeds the batch's critical one, which is 0.5 there and 2 elsewhere; ``hessian``: the
    Hessian's in units of it. ``batch_loss``: before and after each step. Where the loss is NaN, so is the kernel.
    """
    loss = np.array(loss, float)
    steps = len(loss) - 1
    there = np.where(np.isnan(loss), np.nan, 1.0)
    norm = np.broadcast_to(np.array(norm, float), len(loss)) * there
    top = np.array(top, float) if np.ndim(top) else top * loss
    exceeds = np.zeros(steps) if exceeds is None else np.array(exceeds)
    before, after = np.full((2, steps), 1.0) if batch_loss is None else np.array(batch_loss, float)
    critical = np.where(exceeds, 0.5, 2.0)
    found = history(
        loss,
        batches=np.zeros((steps, batch)),
        batch_loss=before,
        batch_loss_after=after,
        batch_critical_learning_rate=critical,
        batch_hessian_critical_learning_rate=critical * np.array(hessian, float),
        kernel_norm=norm,
        critical_learning_rate=16 / norm,
        splits=np.stack([top, loss - top], 1)[:, None],
        kind=kind,
    )
    experiment = run.experiment.model_copy(update={"batch_size": batch, "rise": rise})
    return replace(run, experiment=experiment, history=found, calm=calm)


LOSS = [1, 0.8, 4, 1, 0.5, 0.4, 2, 0.3, 0.2]  # spikes of 0.8 -> 4 and 0.4 -> 2
EXCEEDS = [0, 1, 0, 0, 0, 1, 0, 0]
NORM = [8, 8, 7, 5, 5.1, 5.2, 4, 3, 3.1]
TOP = [0.5, 0.3, 3.4, 0.6, 0.1, 0.1, 1.6, 0.1, 0.05]


@pytest.fixture
def spiky(run):
    return course(run, LOSS, NORM, TOP, EXCEEDS, batch=2)


def test_the_numbers_of_spikes(spiky):
    assert spiky.spikes == [Spike(1, 2, 3), Spike(5, 6, 7)]
    assert [spiky.back(s) for s in spiky.spikes] == [4, 7]  # where the loss is as low as 0.8 and 0.4 again
    assert [spiky.norms(s) for s in spiky.spikes] == [(8, 5.1), (5.2, 3)]
    assert [spiky.share_in_top(s) for s in spiky.spikes] == pytest.approx([3.1 / 3.2, 1.5 / 1.6])
    assert np.flatnonzero(spiky.in_spikes).tolist() == [1, 2, 5, 6]
    changes, inside = spiky.norm_changes
    np.testing.assert_allclose(np.exp(changes), np.array(NORM[1:]) / NORM[:-1])
    assert np.array_equal(inside, spiky.in_spikes)


def test_what_was_measured_now_and_then(run):
    loss, nan = np.array(LOSS, float), math.nan
    seldom = course(run, loss, NORM, TOP, EXCEEDS)
    seldom.history.kernel_norm[[1, 3, 4, 7]] = nan  # left: 0, 2, 5, 6, 8
    seldom.history.splits[[1, 3, 4, 7]] = nan
    assert [seldom.norms(s) for s in seldom.spikes] == [(8, 5.2), (5.2, 3.1)]
    assert [math.isnan(seldom.share_in_top(s)) for s in seldom.spikes] == [True, False]
    changes, inside = seldom.norm_changes
    np.testing.assert_allclose(np.exp(changes), [7 / 8, 5.2 / 7, 4 / 5.2, 3.1 / 4])
    assert inside.tolist() == [True, True, True, True]
    never = course(run, loss, nan, nan, EXCEEDS)
    assert len(never.norm_changes[0]) == 0 and all(math.isnan(v) for s in never.spikes for v in never.norms(s))
    assert figures.loss_and_norm(never) is figures.loss_split(never) is figures.highest_spike(never) is None
    assert "not measured" in claims([never])["rest"].ours and verdicts(never)["norm"] is None
    assert not [text for text in texts(seldom) + texts(never) if "nan" in text or "inf" in text]


class TestMatches:
    def test_both_readings(self, run):
        before, after = [1, 1, 1, 1, 1], [2, 0.5, 1.04, 0.9, math.nan]
        h = course(run, [1, 2, 1, 1.5, 1.2, 1.3], exceeds=[1, 1, 0, 0, 1], batch_loss=(before, after)).history
        assert matches(h, "batch") == Matches(1, 1, 1, 1)  # the last step's is unknown
        assert matches(h, "batch", 0.05) == Matches(1, 0, 1, 2)
        assert matches(h, "whole") == Matches(2, 1, 1, 1)
        assert matches(h, "whole", 0.2) == Matches(1, 1, 2, 1)
        assert matches(h, "whole").rises == 3 and matches(h, "whole").rate == pytest.approx(2 / 3)
        assert matches(h, "whole").base == pytest.approx(3 / 5) and matches(h, "batch").base == pytest.approx(2 / 4)
        assert matches(h, "whole", 9.0).rises == 0 and math.isnan(matches(h, "whole", 9.0).rate)

    def test_unknown_losses_are_left_out(self, run):
        h = course(run, [1, math.nan, 1, 1.5], exceeds=[1, 1, 1]).history
        assert matches(h, "whole") == Matches(1, 0, 0, 0)

    def test_the_table(self, run):
        rows = match_table(course(run, LOSS, NORM, TOP, EXCEEDS)).markdown.splitlines()
        assert rows[2] == "| the loss of the whole training set | 2 | 0 | 0 | 6 | 100.0 % | 25.0 % |"
        assert rows[3] == "| the batch's own loss | 0 | 0 | 2 | 6 | – | 25.0 % |"


def verdicts(run):
    holds = {REPRODUCED: True, NOT_REPRODUCED: False, NOT_COMPARED: None, GIVEN: "given"}
    return {name: holds[claim.verdict] for name, claim in claims([run]).items()}


def texts(run):
    """Every text that a page has on a run."""
    drawn = [draw(run) for draw in DRAW]
    parts = [*claims([run]).values(), *(figure for figure in drawn if figure is not None)]
    shown = [text for part in parts for name, text in vars(part).items() if name != "svg" and isinstance(text, str)]
    results = made((e, measured(run.history)) for e in run.experiment.experiments())
    return (
        shown
        + [describe([run], results).markdown, match_table(run).markdown]
        + [spike_table(run).markdown if np.isfinite(run.history.kernel_norm).any() else ""]
    )


DRAW = [figures.critical_rates, figures.calm, figures.loss_and_norm, figures.loss_split, figures.highest_spike]
DRAW += [figures.hessian]


class TestClaims:
    def test_of_textbook_spikes(self, spiky):
        found = verdicts(spiky)
        assert found["rate"] == "given" and found["norm"] is found["top"] is True
        assert found["spikes"] is False  # two are not many
        assert found["between"] is True and found["exact"] is None
        assert found["whole"] is None and found["calm"] is None and found["converged"] is None

    def test_spikes(self, spiky, run):
        assert "2 spikes; the highest 0.8 → 4" in claims([spiky])["spikes"].ours
        assert "rises from 0.8 at iteration 1 to 4 at iteration 2, and is down to 1 at iteration 3" in (
            claims([spiky])["spikes"].sentence
        )
        calm = course(run, [1, 0.9, 0.8])
        assert verdicts(calm)["spikes"] is None  # no rate exceeds
        none = course(run, [1, 0.9, 0.8], exceeds=[1, 0], batch=2)
        assert verdicts(none)["spikes"] is False and claims([none])["spikes"].ours == "none"

    @pytest.mark.parametrize("after, holds, ours", [(7.9, True, "after 1 of 1"), (8.1, False, "after 0 of 1")])
    def test_the_norm_is_lower_after_each_spike(self, run, after, holds, ours):
        one = course(run, [1, 4, 1, 0.5], [8, 8, after, after])
        assert verdicts(one)["norm"] is holds and ours in claims([one])["norm"].ours

    def test_high_spikes_are_counted_apart(self, run):
        """Two of three lower the norm; the one by a factor of nine does."""
        one = course(run, [1, 3, 1, 3, 1, 9, 0.5], norm=[8, 8, 7, 7, 7.5, 7.5, 6])
        said = claims([one])["norm"].sentence
        assert "After 2 of 3 spikes" in said and "of spikes by a factor of 5 or more after 1 of 1" in said

    def test_without_spikes_nothing_is_said_of_them(self, run):
        calm = course(run, [1, 0.9, 0.8], exceeds=[1, 1])
        assert [verdicts(calm)[name] for name in ("norm", "between", "top", "rest")] == [None] * 4

    @pytest.mark.parametrize("share, holds", [(0.95, True), (0.85, False)])
    def test_the_share_in_the_top_direction(self, run, share, holds):
        one = course(run, [1, 4, 1, 0.5], top=share, batch=2)
        assert verdicts(one)["top"] is holds and f"median share {100 * share:.1f} %" in claims([one])["top"].ours

    @pytest.mark.parametrize(
        "rest, holds, after, rise", [([1, 1.6, 1.04, 0.4], True, 1.04, 10), ([1, 0.5, 1.06, 0.4], False, 1.06, 1)]
    )
    def test_a_spike_leaves_the_rest_as_it_was(self, run, rest, holds, after, rise):
        loss = np.array([2.0, 8.0, 2.0, 1.0])
        one = course(run, loss, top=loss - rest, batch=2)
        assert verdicts(one)["rest"] is holds
        said = claims([one])["rest"]
        assert f"{after:.2f} times in the median spike; its largest rise is {rise}.0 % of the spike" in said.ours
        one.history.turning[1:, 0] = [0.12, 0.0, 0.0]
        assert one.rest(one.spikes[0]).turned == pytest.approx((0.12 if rise == 10 else 0.12) / 6)
        assert "2.0 % of the spike are due to the turning" in claims([one])["rest"].sentence
        assert verdicts(course(run, loss, top=loss - rest))["rest"] is None  # of a batch of one sample it says nothing

    @pytest.mark.parametrize("outside, holds", [([8, 8.1, 8.2], True), ([8, 7.9, 7.8], False), ([8, 8, 8], True)])
    def test_between_the_spikes_the_norm_rises_or_stays(self, run, outside, holds):
        two = course(run, [1, 0.9, 0.8, 4, 0.7], [*outside, 6, 5])
        assert verdicts(two)["between"] is holds

    @pytest.mark.parametrize("hits, holds", [(20, True), (19, True), (18, False), (3, None)])
    def test_match_rates_are_shown_and_judged_for_table_2_only(self, run, hits, holds):
        rises, others = (4 if hits == 3 else 20), 5
        loss = np.concatenate([1.0 + np.arange(rises + 1), np.full(others, 0.5)])
        exceeds = [1] * hits + [0] * (rises - hits + others)
        before = np.ones(rises + others)
        both = course(run, loss, exceeds=exceeds, batch=2, batch_loss=(before, before + (np.diff(loss) > 0)))
        assert verdicts(both)["whole"] is None and verdicts(both)["batch"] is None
        for reading in ("whole", "batch"):
            assert f"{hits} of {rises} rises" in claims([both])[reading].ours
        m = matches(both.history, "whole")
        beta, p, q = m.base, m.above, m.below
        assert m.rate == pytest.approx(hits / rises)
        assert m.rate == pytest.approx(beta * p / (beta * p + (1 - beta) * q))

    @pytest.mark.parametrize("even, holds", [([0.5, 2, -1, 2] * 5, True), ([2.0] * 20, False), ([math.nan] * 20, None)])
    def test_what_the_break_even_rate_explains(self, run, even, holds):
        """The rate is 1, and the loss rises on every second step."""
        loss = np.tile([1.0, 2.0], 11)[:21]
        one = course(run, loss, exceeds=[1] * 20, batch=2)
        one.history.whole_break_even_rate[:] = even
        found = claims([one])["explained"]
        assert verdicts(one)["explained"] is holds and found.shown_in == (OURS,)
        if holds is not None:
            assert f"{10 if holds else 0} of 10 rises; right at {100 if holds else 50}.0 % of the steps" == found.ours

    @pytest.mark.parametrize(
        "loss, exceeds, holds",
        [
            ([1, 2, 1, 1.05, 1], [1, 0, 0, 0], True),  # the second rise is small
            ([1, 2, 1, 1.2, 1], [1, 0, 0, 0], False),
            ([1, 2, 1, 1.2, 1], [1, 1, 1, 0], False),
            ([1, 2, 1, 0.9, 0.8], [0, 1, 0, 0], False),
            ([1, 0.9, 0.8, 0.7], [0, 0, 0], None),  # there is nothing to match
        ],
    )
    def test_an_exact_match(self, run, loss, exceeds, holds):
        assert verdicts(course(run, loss, exceeds=exceeds))["exact"] is holds
        assert verdicts(course(run, loss, exceeds=exceeds, batch=2))["exact"] is None

    @pytest.mark.parametrize(
        "loss, exceeds, holds",
        [
            (np.linspace(1, 0.5, 41), 0, True),
            (np.r_[np.linspace(1, 0.5, 40), 0.51], 0, True),
            (np.r_[1, 1.05, 1.09, 1.07, 1.2], 0, False),
            (np.r_[1, 0.5, 0.54, 0.5, 0.54, 0.5], 0, True),  # not monotone, but not to be seen
            (np.r_[1, 4, 1, 0.5], 0, False),
            (np.linspace(1, 0.5, 41), 1, None),
            (np.where(np.arange(41) % 2, math.nan, 1.0), 0, None),  # no step has the loss before and after
        ],
    )
    def test_below_all_critical_rates(self, run, loss, exceeds, holds):
        calm = course(run, loss, exceeds=np.full(len(loss) - 1, exceeds)).history
        found = course(run, LOSS, NORM, TOP, EXCEEDS, calm=calm)
        assert verdicts(found)["calm"] is holds
        said = claims([found])["calm"].sentence
        known = np.isfinite(loss).all()
        assert ("all above that rate" in said) is (exceeds == 0) and (
            not known or ("not monotone" in said) is bool((np.diff(loss) > 0).any())
        )

    @pytest.mark.parametrize(
        "hessian, holds",
        [
            ([1.0] * 8, True),
            ([1.05, 0.95] * 4, True),
            ([1.2] * 8, True),  # farther, and as well as ever whether the rate exceeds
            ([4.0, 1.0] * 4, False),
            ([1.0] * 4 + [math.nan] * 4, None),
        ],
    )
    def test_the_hessian(self, run, hessian, holds):
        both = course(run, LOSS, exceeds=[0, 1, 0, 1, 1, 0, 1, 0], hessian=hessian)
        assert verdicts(both)["hessian"] is holds
        assert (figures.hessian(both) is None) is bool(np.isnan(hessian).all())
        known = np.isfinite(hessian)
        assert list(both.hessian_exceeds) == list(both.history.exceeds[known])
        assert ("where η exceeds b/‖K_batch‖ it is" in claims([both])["hessian"].sentence) is (holds is not None)

    def test_no_hessian_at_all(self, run):
        assert figures.hessian(course(run, LOSS, hessian=math.nan)) is None
        assert "not measured" in claims([course(run, LOSS, hessian=math.nan)])["hessian"].ours

    def test_convergence(self, run):
        done = course(run, LOSS)
        goal = done.experiment.model_copy(update={"stop_below": 0.001})
        ends = {True: {"converged": True}, False: {"diverged": True}, None: {}}
        for holds, end in ends.items():
            some = replace(done, experiment=goal, history=replace(done.history, **end))
            assert verdicts(some)["converged"] is holds
            assert verdicts(replace(some, experiment=done.experiment))["converged"] is None  # no goal

    def test_they_show_a_table_and_carry_their_verdicts(self, spiky):
        bundle = claims([spiky])._repr_mimebundle_()
        assert bundle["text/markdown"].count("\n") == 14  # a header, a line, thirteen claims
        assert bundle[MIME]["claims"]["norm"]["verdict"] == "reproduced"
        shown = {name: c.shown_in for name, c in claims([spiky]).items() if c.shown_in}
        assert shown == {"explained": (OURS,), "hessian": ("figure 12",)}


def test_over_seeds(spiky, run):
    none = course(run, [1, 0.9, 0.8], exceeds=[1, 0], batch=2)
    found = claims([course(run, [1, 4, 1, 3, 1, 5, 0.5], exceeds=[1] * 6, batch=2), none, course(run, [1, 0.9]), spiky])
    assert found["spikes"].held == (1, 3) and found["norm"].held == (1, 2) and found["rate"].held is None


def test_what_the_record_has_in_single_precision_is_judged_and_drawn(spiky, run):
    single = course(run, LOSS, NORM, TOP, EXCEEDS, batch=2, kind=np.float32)
    assert single.history.loss.dtype == np.float32
    assert verdicts(single) == verdicts(spiky) and texts(single) == texts(spiky)


def test_the_table_of_spikes(spiky, run):
    rows = spike_table(spiky).markdown.splitlines()
    assert rows[2] == "| 1 → 2 → 3 | 0.8 → 4 → 1 | 8 → 5.1 | 96.9 % |"
    assert spike_table(course(run, [1, 0.9])).markdown == "There is no spike."
    many = course(run, [1, 4] * 20 + [1])
    table = spike_table(many, most=5).markdown
    assert len(many.spikes) == 20 and "The 5 highest of 20 spikes are listed." in table
    assert len([line for line in table.splitlines() if "→" in line]) == 5


COURSES = {
    "spikes": (LOSS, NORM, TOP, EXCEEDS),
    "calm": ([1, 0.9, 0.8], 4.0, 0.5, None),
    "one step": ([1, 0.9], 4.0, 0.5, [1]),
    "seldom": ([1, math.nan, 4, math.nan, 0.5], 4.0, 0.5, [1, 0, 0, 1]),
}


@pytest.mark.parametrize("name", COURSES)
def test_all_texts_and_figures(run, name):
    some = course(run, *COURSES[name], calm=course(run, [1, 0.9]).history)
    assert not [text for text in texts(some) if "nan" in text or "inf" in text]
    for draw in DRAW:
        figure = draw(some)
        if figure is None:
            assert draw is figures.highest_spike and not some.spikes
            continue
        assert figure.svg.startswith("<?xml") and figure.svg == draw(some).svg
        assert figure.caption.endswith(".") and figure.alt.endswith(".") and len(figure.alt) > 60


def test_the_alternative_texts(spiky, run):
    course_ = "The loss starts at 1, is at most 4, has 2 spikes and ends at 0.2 after 8 steps; at 2 of them the rate"
    for draw in (figures.critical_rates, figures.loss_and_norm, figures.loss_split):
        assert course_ in draw(spiky).alt
    assert "dots between 0.5 and 2" in figures.critical_rates(spiky).alt
    assert "goes from 8 to 3.1, between 3 and 8" in figures.loss_and_norm(spiky).alt
    near = figures.highest_spike(spiky).alt
    assert "from 0.8 at iteration 1 to 4 at iteration 2 and is 1 at iteration 3; the norm goes 8 → 5" in near
    assert figures.highest_spike(course(run, [1, 0.9])) is None
    assert "8 steps" in figures.hessian(spiky).alt


def test_what_is_counted_is_marked(spiky, run):
    for draw in (figures.critical_rates, figures.loss_and_norm):
        assert "Circles: the peaks that are counted" in draw(spiky).caption
        assert "Circles" not in draw(course(run, [1, 0.9])).caption


def test_steps_above_are_one_bar_where_there_is_no_gap(run):
    def bars(exceeds):
        return figures.critical_rates(course(run, np.linspace(1, 0.5, 9), exceeds=exceeds)).svg.count('id="patch_')

    none = bars([0] * 8)
    assert bars([1] * 8) == none + 1 and bars([1, 0] * 4) == none + 4


def test_a_part_of_the_loss_that_vanishes_does_not_flatten_the_rest(run):
    """The axis ends at a hundredth of the smallest loss."""
    small = course(run, [1.0, 4.0, 1.0, 0.5], top=[1.0, 4.0, 1e-9, 0.5])
    large = course(run, [1.0, 4.0, 1.0, 0.5], top=[1.0, 4.0, 1e-12, 0.5])
    ticks = [figures.loss_split(one).svg.count('id="ytick_') for one in (small, large)]
    assert ticks[0] == ticks[1]
