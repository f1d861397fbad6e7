import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from catapults.experiments import ParameterError
from catapults.experiments.match_rates import MatchRates, Rates
from catapults.experiments.sgd_spikes import Matches, explained, matches
from catapults.figures import match_rates as figures
from catapults.paper import NOT_COMPARED, OURS, PARTLY, REPRODUCED, judge, quotes
from catapults.paper.descriptions import describe
from catapults.paper.match_rates import claims, parts_table, rate_table, search_result, search_table
from catapults.paper.quotes import MatchRate
from catapults.sgd import stochastic_gradient_descent
from histories import history, made, measured
from torch import nn

NETWORK = {"architecture": "fcn", "depth": 2, "width": 32, "gain": 1.0, "labels": "zero-one"}
NETWORK |= {"learning_rate": "2 eta_crit"}
SMALL = {
    "dataset": "rank-2", "shallow": NETWORK, "fcn": NETWORK | {"depth": 3}, "cnn": NETWORK | {"depth": 4},
    "search": [
        {"network": "shallow", "learning_rate": 1},
        {"network": "fcn", "rises_above": 0.1},
        {"network": "fcn", "learning_rate": "90 eta_crit"},
    ],
    "n_train": 12, "batch_size": 4, "steps": 15, "stop_below": 0.0, "seeds": [0, 1],
}  # fmt: skip
QUOTED = {
    name: MatchRate("table 2", {"dataset": "rank-2", "architecture": "fcn", "depth": depth}, mean, deviation, 0.8)
    for name, depth, mean, deviation in (("shallow", 2, 97.3, 0.5), ("fcn", 3, 96.2, 1.5))
}


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"seeds": []}, r"seeds = \[\]"),
        ({"seeds": [1, 1]}, r"seeds = \[1, 1\]: allowed is each seed once"),
        ({"seeds": [-1]}, r"seeds = \[-1\]"),
        ({"batch_size": 13}, "shallow: batch_size = 13: allowed are 1 to n_train = 12"),
        ({"fcn": NETWORK | {"width": 0}}, "fcn: width = 0"),
        ({"cnn": NETWORK | {"widht": 3}}, "cnn: widht: unknown parameter"),
        ({"cnn": {"architecture": "fcn"}}, "cnn: depth: missing"),
        ({"search": [{"network": "vit"}]}, r"search\[0\]: network = 'vit'; allowed are shallow, fcn, cnn"),
        ({"search": [{}]}, r"search\[0\]: network = None"),
        ({"search": [{"network": "fcn", "rises_above": -1}]}, r"search\[0\]: rises_above = -1; allowed are numbers"),
        ({"search": [{"network": "fcn", "rises_above": "a"}]}, r"search\[0\]: rises_above = 'a'"),
        ({"search": [{"network": "fcn"}, {"network": "cnn", "steps": 0}]}, r"search\[1\]: steps = 0"),
        ({"fcn": NETWORK | {"seed": 3}}, "fcn: seed = 3; allowed is one for all settings"),
        ({"search": [{"network": "fcn", "dataset": "rank-3"}]}, r"search\[0\]: dataset = 'rank-3'; allowed is one"),
        ({"dataset": "cifr-2"}, "did you mean 'cifar-2'"),
    ],
)
def test_impossible_parameters(changed, message):
    with pytest.raises(ParameterError, match=message):
        MatchRates.create(**SMALL | changed)


@pytest.fixture(autouse=True)
def _quoted(monkeypatch):
    monkeypatch.setattr(quotes, "_MATCH_RATES", QUOTED)


def result(experiment):
    """Another history for each experiment; at 90 times the critical rate it diverges."""
    loss = np.abs(np.random.default_rng(int(experiment.key[:8], 16)).normal(1.0, 0.3, experiment.steps + 1)) + 0.1
    diverged = experiment.learning_rate == "90 eta_crit"
    critical = np.where(np.diff(loss) > 0.2, 0.5, 2.0)
    found = history(
        loss, batch_critical_learning_rate=critical, batch_loss=1.0, batch_loss_after=0.9, diverged=diverged
    )
    return measured(found)


@pytest.fixture
def results():
    return made((experiment, result(experiment)) for experiment in MatchRates.create(**SMALL).experiments())


@pytest.fixture
def run(results):
    return MatchRates.create(**SMALL).runs(results)[0]


class TestARun:
    def test_each_setting_is_the_training_that_it_describes(self, run):
        assert set(run.networks) == {"shallow", "fcn", "cnn"} and len(run.search) == 3
        for rates, setting in [(run.networks["fcn"], SMALL["fcn"]), (run.search[0], NETWORK | {"learning_rate": 1})]:
            for seed, training, whole in zip((0, 1), rates.runs, rates.counts["whole"], strict=True):
                page = run.experiment.page(setting, seed)
                assert page == training.experiment and page.seed == seed
                alone = result(page.trainings()["spikes"]).history
                assert (alone.loss == training.history.loss).all() and whole == matches(alone, "whole")
        assert run.search[1].counts["whole"] == [matches(r.history, "whole", 0.1) for r in run.networks["fcn"].runs]

    def test_what_differs_in_the_count_only_is_no_other_training(self, run):
        assert len({experiment.key for experiment in run.experiment.experiments()}) == 10
        histories = [[one.history for one in rates.runs] for rates in (run.search[1], run.networks["fcn"])]
        assert all(a is b for a, b in zip(*histories, strict=True))

    def test_its_texts(self, run, results):
        said = describe([run], results).markdown
        assert "seeds 0, 1" in said and "The 10 trainings took 15 s" in said and "- CNN: fully connected, 4" in said
        for text in (said, *(text(run).markdown for text in (rate_table, parts_table, search_table, search_result))):
            assert "nan" not in text and "inf" not in text
        assert len(claims([run])) == 9 and "2 diverged" in search_table(run).markdown
        assert dict(judge(run.experiment, results)) == dict(claims([run]))


def with_counts(run, counts, diverged=(False, False)):
    """The run where the FCN has these (hits, misses) by the whole set's loss, one pair a seed, and as many steps above
    without a rise as hits."""
    trained = [
        replace(one, history=replace(one.history, diverged=end))
        for one, end in zip(run.networks["fcn"].runs, diverged, strict=True)
    ]
    whole = [Matches(hits, misses, hits, misses) for hits, misses in counts]
    return replace(run, networks=run.networks | {"fcn": Rates({"batch": whole, "whole": whole}, trained)})


class TestRates:
    @pytest.mark.parametrize(
        "counts, diverged, mean, deviation",
        [
            ([(9, 1), (8, 2)], (False, False), 85.0, 10 / math.sqrt(2)),
            ([(9, 1), (0, 0)], (False, False), 90.0, math.nan),  # no rise from the second seed
            ([(9, 1), (5, 0)], (False, True), 90.0, math.nan),
            ([(0, 0), (0, 0)], (False, False), math.nan, math.nan),
        ],
    )
    def test_mean_and_deviation(self, run, counts, diverged, mean, deviation):
        rates = with_counts(run, counts, diverged).networks["fcn"]
        assert rates.percent("whole") == pytest.approx((mean, deviation), nan_ok=True)
        assert rates.base("whole") == pytest.approx(mean, nan_ok=True)  # made so

    @pytest.mark.parametrize(
        "counts, verdict, ours",
        [
            ([(46, 4), (46, 4)], REPRODUCED, "92.0 ± 0.0 % (of all steps 92.0 %)"),
            ([(45, 5), (46, 4)], PARTLY, "91.0 ± 1.4 % (of all steps 91.0 %)"),  # 5 points below are allowed
            ([(50, 0), (50, 0)], REPRODUCED, "100.0 ± 0.0 % (of all steps 100.0 %)"),
            ([(0, 0), (0, 0)], NOT_COMPARED, "–"),
        ],
    )
    def test_the_claim(self, run, counts, verdict, ours):
        claim = claims([with_counts(run, counts)])["fcn_whole"]
        assert (claim.verdict, claim.ours) == (verdict, ours) and "96.2 ± 1.5 % (Table 2)" in claim.paper

    def test_what_a_rate_is_made_of(self, run):
        changed = with_counts(run, [(6, 2), (3, 1)])  # and as many steps above without a rise, and below
        beta, p, q = (changed.networks["fcn"].parts("whole")[name] / 100 for name in ("beta", "p", "q"))
        assert (beta, p, q) == pytest.approx((18 / 24, 0.5, 0.5))
        assert beta * p / (beta * p + (1 - beta) * q) == pytest.approx(9 / 12)
        assert "| 75.0 ± 0.0 % | 75.0 % | 50.0 % | 50.0 % | 1 |" in parts_table(changed).markdown

    def test_what_the_break_even_rate_explains(self, run):
        """Of the losses 1, 2, 1, 2, ... every second step is a rise; the rate is 1."""
        loss = np.array([1.0, 2.0] * 4 + [1.0])
        trained = []
        for even in ([0.5, 2.0] * 4, [0.5, 2.0] * 3 + [2.0, 0.5]):
            one = history(loss, 1.0)
            one.whole_break_even_rate[:] = even
            trained.append(replace(run.networks["fcn"].runs[0], history=one))
        counts = [matches(one.history, "whole") for one in trained]
        changed = replace(run, networks=run.networks | {"fcn": Rates({"whole": counts, "batch": counts}, trained)})
        claim = claims([changed])["fcn_explained"]
        assert claim.held == (2, 2) and claim.shown_in == (OURS,)
        assert claim.ours == "87.5 ± 17.7 % of the rises; right at 87.5 ± 17.7 % of the steps"

    def test_a_rate_that_we_chose_stands_beside_the_verdict(self, run):
        assert "at a rate that we chose, 2 η_crit, not the paper's 0.8" in claims([run])["fcn_whole"].tolerance
        assert "chose" not in claims([run])["fcn_batch"].tolerance  # which the paper does not quote

    def test_what_is_not_quoted_is_not_compared(self, run, monkeypatch):
        monkeypatch.setattr(quotes, "_MATCH_RATES", {})
        claim = claims([with_counts(run, [(5, 0), (5, 0)])])["fcn_whole"]
        assert claim.verdict == NOT_COMPARED and claim.paper == "not quoted"
        assert "on 100.0 ± 0.0 % of the steps" in claim.sentence and claim.sentence.endswith("100.0 % of all steps.")

    def test_what_is_quoted_for_other_settings_is_not_compared(self, run, monkeypatch):
        settings = {"dataset": "rank-2", "architecture": "fcn", "depth": 3, "batch_size": 32}
        monkeypatch.setattr(quotes, "_MATCH_RATES", {"fcn": replace(QUOTED["fcn"], settings=settings)})
        claim = claims([with_counts(run, [(5, 0), (5, 0)])])["fcn_whole"]
        assert claim.verdict == NOT_COMPARED and "batch_size = 32 there, 4 here" in claim.sentence

    def test_the_tables(self, run):
        some = with_counts(run, [(9, 1), (8, 2)])
        row = next(line for line in rate_table(some).markdown.splitlines() if "FCN" in line)
        assert "| 96.2 ± 1.5 % | 85.0 ± 7.1 % | 85.0 ± 7.1 % | 85.0 % | 9 of 10, 8 of 10 |" in row
        assert claims([some])["fcn_batch"].verdict == NOT_COMPARED  # the paper counts the total training loss
        lines = search_table(some).markdown.splitlines()[2:]
        assert [line.split("|")[1].strip().split()[0] for line in lines] == ["shallow"] * 2 + ["FCN"] * 3 + ["CNN"]
        assert "nothing: as above | 85.0 ± 7.1 % | 85.0 % | no | 9 of 10, 8 of 10 |" in lines[2]
        assert "only rises by more than 10 %" in lines[3] and "`learning_rate = '90 eta_crit'`" in lines[4]

    def test_what_the_search_found(self, run):
        some, few = with_counts(run, [(50, 0), (50, 0)]), with_counts(run, [(1, 9), (1, 9)]).networks["fcn"]
        said = search_result(replace(some, search=[run.search[0], few, run.search[2]])).markdown
        assert (
            "For the FCN, 2 settings gave a match rate, from 10 % to 100 %; 1 of these meet the paper's 96.2 ± 1.5 %."
            in said
        )

    def test_the_figure(self, run):
        figure = figures.rates(run)
        assert figure.svg == figures.rates(run).svg and figure.caption.endswith(".")
        assert "paper: 97.3 (shallow network), 96.2 (FCN)" in figure.alt
        assert "nan" not in figures.rates(with_counts(run, [(0, 0), (0, 0)])).alt


@pytest.mark.parametrize("rate", [0.2, 0.6])
def test_where_all_samples_move_together_the_loss_rises_on_half_of_the_steps(rate):
    """The chapter's theorem: with the kernel 1 1^T, of a model that is a bias alone, the critical rate is 1."""
    model = nn.Linear(1, 1)
    generator = torch.Generator().manual_seed(1)
    targets = torch.randn(400, generator=generator)
    h = stochastic_gradient_descent(
        model, torch.zeros(400, 1), targets, rate, 40, 3000, replacement=True, kernel_every=None, break_even_every=1
    )
    assert not h.exceeds.any()
    rises = (np.diff(h.loss) > 0)[100:]
    assert abs(rises.mean() - 0.5) < 4 * 0.5 / math.sqrt(len(rises))
    assert explained(h).right > 0.99  # the model is linear
