import math
from dataclasses import replace

import pytest
from catapults.claims import NOT_COMPARED, NOT_REPRODUCED, REPRODUCED
from catapults.claims.match_rates import claims, rate_table, search_result, search_table
from catapults.experiments import ParameterError
from catapults.experiments.match_rates import MatchRates, Rates
from catapults.experiments.sgd_spikes import Matches, matches
from catapults.figures import match_rates as figures

NETWORK = {"architecture": "fcn", "depth": 2, "width": 32, "gain": 1.0, "labels": "zero-one"}
NETWORK |= {"learning_rate": "2 eta_crit"}
SMALL = {
    "dataset": "rank-2", "shallow": NETWORK, "fcn": NETWORK | {"depth": 3}, "cnn": NETWORK | {"depth": 4},
    "search": [
        {"network": "shallow", "learning_rate": 1},
        {"network": "fcn", "rises_above": 0.1},
        {"network": "fcn", "learning_rate": "90 eta_crit"},
    ],
    "n_train": 12, "batch_size": 4, "steps": 15, "stop_below": 0.0, "seeds": [0, 1], "device": "cpu",
}  # fmt: skip
QUOTED = {"shallow": 97.3, "shallow_deviation": 0.5, "fcn": 96.2, "fcn_deviation": 1.5}


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


@pytest.fixture(scope="module")
def run():
    return MatchRates.create(**SMALL).run()


class TestARun:
    def test_each_setting_is_the_training_that_it_describes(self, run):
        assert set(run.networks) == {"shallow", "fcn", "cnn"} and len(run.search) == 3
        for rates, setting in [(run.networks["fcn"], SMALL["fcn"]), (run.search[0], NETWORK | {"learning_rate": 1})]:
            for seed, training, whole in zip((0, 1), rates.runs, rates.counts["whole"], strict=True):
                alone = run.experiment.experiment(setting, seed).run()
                assert alone.experiment == training.experiment and alone.experiment.seed == seed
                assert (alone.history.loss == training.history.loss).all()
                assert whole == matches(alone.history, "whole")
        assert run.search[1].counts["whole"] == [matches(r.history, "whole", 0.1) for r in run.networks["fcn"].runs]

    def test_what_differs_in_the_count_only_is_not_trained_again(self, run):
        assert run.search[1].runs is run.networks["fcn"].runs

    def test_its_texts(self, run):
        said = run.describe().markdown
        assert "seeds 0, 1" in said and "All 10 trainings" in said and "- CNN: fully connected, 4" in said
        for text in (said, *(text(run, QUOTED).markdown for text in (rate_table, search_table, search_result))):
            assert "nan" not in text and "inf" not in text
        assert len(claims(run, QUOTED)) == 6 and "2 diverged" in search_table(run, QUOTED).markdown

    def test_the_data_are_those_of_the_trainings(self, run):
        assert run.experiment.task().identity == run.networks["cnn"].runs[0].experiment.task().identity


def made(run, counts, diverged=(False, False)):
    """The run where the FCN has these (hits, misses) by the whole set's loss, one pair a seed."""
    trained = [
        replace(one, history=replace(one.history, diverged=end))
        for one, end in zip(run.networks["fcn"].runs, diverged, strict=True)
    ]
    whole = [Matches(hits, misses, 0, 0) for hits, misses in counts]
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
        found = made(run, counts, diverged).networks["fcn"].percent("whole")
        assert found == pytest.approx((mean, deviation), nan_ok=True)

    @pytest.mark.parametrize(
        "counts, verdict, ours",
        [
            ([(46, 4), (46, 4)], REPRODUCED, "92.0 ± 0.0 %"),
            ([(45, 5), (46, 4)], NOT_REPRODUCED, "91.0 ± 1.4 %"),  # 5 points below are allowed
            ([(50, 0), (50, 0)], REPRODUCED, "100.0 ± 0.0 %"),
            ([(0, 0), (0, 0)], NOT_COMPARED, "–"),
        ],
    )
    def test_the_claim(self, run, counts, verdict, ours):
        claim = claims(made(run, counts), QUOTED)["fcn_whole"]
        assert (claim.verdict, claim.ours) == (verdict, ours) and "96.2 ± 1.5 % (Table 2)" in claim.paper

    def test_what_is_not_quoted_is_not_compared(self, run):
        claim = claims(made(run, [(5, 0), (5, 0)]), {})["fcn_whole"]
        assert (
            claim.verdict == NOT_COMPARED and claim.paper == "not quoted" and claim.sentence.endswith("100.0 ± 0.0 %.")
        )

    def test_the_tables(self, run):
        some = made(run, [(9, 1), (8, 2)])
        row = next(line for line in rate_table(some, QUOTED).markdown.splitlines() if "FCN" in line)
        assert "| 96.2 ± 1.5 % | 85.0 ± 7.1 % | 85.0 ± 7.1 % | 9 of 10, 8 of 10 |" in row
        assert claims(some, QUOTED)["fcn_batch"].verdict == NOT_COMPARED  # the paper counts the total training loss
        lines = search_table(some, QUOTED).markdown.splitlines()[2:]
        assert [line.split("|")[1].strip().split()[0] for line in lines] == ["shallow"] * 2 + ["FCN"] * 3 + ["CNN"]
        assert "nothing: as above | 85.0 ± 7.1 % | no | 9 of 10, 8 of 10 |" in lines[2]
        assert "only rises by more than 10 %" in lines[3] and "`learning_rate = '90 eta_crit'`" in lines[4]

    def test_what_the_search_found(self, run):
        said = search_result(made(run, [(50, 0), (50, 0)]), QUOTED).markdown
        assert "FCN: of 2 settings with a rate they range from " in said and "to 100 %, and " in said

    def test_the_figure(self, run):
        figure = figures.rates(run, QUOTED)
        assert figure.svg == figures.rates(run, QUOTED).svg and figure.caption.endswith(".")
        assert "paper: 97.3 (shallow network), 96.2 (FCN)" in figure.alt
        assert "nan" not in figures.rates(made(run, [(0, 0), (0, 0)]), {}).alt
