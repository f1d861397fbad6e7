"""Chapter 6: trainings with and without catapults."""

import math

import numpy as np
import pytest
from catapults.compute import obtain
from catapults.experiments import ParameterError
from catapults.experiments.causes import (
    Causes,
    CausesRun,
    Fork,
    Forked,
    Intervened,
    Without,
    above,
    arm_words,
    best_step,
)
from catapults.experiments.fits import Fit
from catapults.figures import causes as figures
from catapults.paper import NOT_COMPARED, NOT_REPRODUCED, REPRODUCED, judge
from catapults.paper.causes import FVU, arms_table, claims, fork_sentence, headline, kept
from catapults.paper.descriptions_agop import describe
from learning_samples import IMAGES, VECTORS, made, mine, results

__all__ = ["mine", "results"]  # fixtures
GD = {"learning_rate": "0.5; 4: 2; 8: 4", "settle": 3, "critical_every": 2}
OWN = {
    "learning_rate": "0.5 eta_crit", "batch_sizes": [4], "large_batch": 8, "limits": [0.5, 1.0], "replacement": True,
    "critical_every": 1, "gd": GD, "moments": [0, 3], "fork_batches": 2, "multiples": [0.5, 2.0], "seed": 0, "seeds": 2,
}  # fmt: skip
SMALL = VECTORS | OWN
ARMS = ["as it is", "clip 0.5", "clip 1", "shrink", "matched", "control"]


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"batch_sizes": [8, 4]}, r"batch_sizes = \[8, 4\]: allowed are numbers that ascend"),
        ({"batch_sizes": [4, 8]}, "large_batch = 8: allowed is more than 8"),
        ({"batch_sizes": [4, 64], "large_batch": 99}, "batch_size = 99: allowed are 1 to n_train = 32"),
        ({"batch_sizes": [], "gd": None}, r"batch_sizes = \[\]: allowed where there is gradient descent"),
        ({"limits": []}, r"limits = \[\]"),
        ({"limits": [0.0]}, r"limits = \[0.0\]"),
        ({"limits": [1.0, 0.5]}, r"limits = \[1.0, 0.5\]: allowed are numbers that ascend"),
        ({"gd": {"learning_rate": "1"}}, "gd: learning_rate has no raise"),
        ({"gd": {}}, "learning_rate = ''"),
        ({"gd": GD | {"lables": "unit"}}, "gd: lables is unknown; allowed are "),
        ({"gd": GD | {"learning_rate": "1; 16: 2"}}, "allowed are changes before 16"),
        ({"moments": [3, 0]}, "moments = .3, 0.: allowed are one or several numbers that ascend"),
        ({"moments": [-1]}, "moments"),
        ({"multiples": []}, "multiples"),
        ({"learning_rate": "x"}, "learning_rate = 'x'"),
        ({"fork_batches": 0}, "fork_batches = 0"),
    ],
)
def test_impossible_parameters(changed, message):
    with pytest.raises(ParameterError, match=message):
        Causes.create(**SMALL | changed)


class TestTrainings:
    def test_which_there_are(self):
        one, two = Causes.create(**SMALL).of_each_seed()
        assert (one.seed, two.seed) == (0, 1)
        trainings = two.trainings()
        expected = [("4", arm) for arm in ARMS] + [("GD", a) for a in ("as it is", "follow", "shrink", "control")]
        assert list(trainings) == [*expected, ("fork", "fork")]
        assert {e.seed for e in trainings.values()} == {1}
        kinds = {key: (e.kind, e.c) for key, e in trainings.items() if isinstance(e, Intervened)}
        assert kinds["4", "clip 0.5"] == ("clip", 0.5) and kinds["GD", "follow"] == ("follow", 0.95)
        assert trainings["4", "matched"].needs == (trainings["4", "clip 1"],)
        assert type(trainings["fork", "fork"]) is Fork and trainings["fork", "fork"].batch_size == 4

    def test_those_without_intervention_are_the_trainings_of_chapter_4(self):
        from catapults.experiments.agop_gd import RaisedRates
        from catapults.experiments.agop_sgd import BatchSizes

        page = Causes.create(**SMALL).trainings()
        names = "replacement", "critical_every"
        sgd = {"learning_rates": ["0.5 eta_crit"], "batch_sizes": [4, 8], "seeds": [0]}
        sizes = BatchSizes.create(**VECTORS | sgd | {name: OWN[name] for name in names}).trainings()
        assert page["4", "as it is"] == sizes["0.5 eta_crit", 4, 0]
        assert page["4", "control"] == sizes["0.5 eta_crit", 8, 0]
        more = {"literal_schedule": None, "small_scale": None, "small_learning_rate": None, "seed": 0, "seeds": 1}
        raised = RaisedRates.create(**VECTORS | more | GD).trainings()
        assert page["GD", "as it is"] == raised["2"] and page["GD", "control"] == raised["0"]

    def test_of_a_small_page(self, results):
        page = Causes.create(**SMALL)
        found = obtain(page, device="cpu")
        runs = page.runs(found)
        assert len(runs) == 2 and list(runs[0].groups["4"]) == ARMS
        for run in runs:
            assert above(run.groups["4"]["clip 1"]) == above(run.groups["4"]["clip 0.5"]) == 0
            assert run.groups["4"]["clip 0.5"].mean_rate <= run.groups["4"]["clip 1"].mean_rate
            matched = run.groups["4"]["matched"]
            assert np.ptp(matched.rate) == 0
            assert matched.mean_rate == pytest.approx(run.groups["4"]["clip 1"].mean_rate)
            assert run.fork.whole_loss.shape == (2, 2, 2)
        said = describe(runs, found).markdown
        assert "SGD has the learning rate 0.5 η_crit" in said and "Gradient descent has the learning rates 0.5" in said
        for figure in (figures.arms(runs), figures.steps(runs)):
            assert figure.svg.count("<svg") == 1 and len(figure.alt) > 60 and figure.caption.endswith(".")
        assert "steps above" in arms_table(runs, "GD").markdown
        assert judge(page, found) and fork_sentence(runs).markdown.startswith("A step at 0.5 times")

    def test_of_images_with_a_strong_model(self, results, mine):
        page = Causes.create(**IMAGES | OWN | {"gd": None, "moments": [], "seeds": 1, "limits": [1.0]})
        runs = page.runs(obtain(page, device="cpu"))
        assert runs[0].strong is not None and runs[0].fork is None and list(runs[0].groups) == ["4"]
        assert 0 <= runs[0].groups["4"]["clip 1"].test_error <= 1
        assert figures.steps(runs) is None and "no single steps" in fork_sentence(runs).markdown


def test_single_steps_against_autograd(results):
    """The first of them, at initialisation."""
    import torch
    from catapults.compute import draws
    from catapults.compute.trainings.networks import at_initialisation
    from catapults.training.run import Batches

    page = Causes.create(**SMALL | {"seeds": 1, "gd": None})
    fork = page.trainings()["fork", "fork"]
    result = page.runs(obtain(page, device="cpu"))[0].fork
    train = draws.draw(fork).train
    model = at_initialisation(fork, train.inputs, 1).double()
    x, y = train.inputs.double(), train.targets.double()
    batch = next(Batches(len(x), 4, True, fork.seed + 2**32))

    def losses():
        squares = (model(x)[:, 0] - y).square()
        return squares[batch].mean(), squares.mean()

    rows = [torch.autograd.grad(f, list(model.parameters()), retain_graph=True) for f in model(x[batch])[:, 0].split(1)]
    J = torch.stack([torch.cat([g.flatten() for g in row]) for row in rows])
    critical = 4 / torch.linalg.eigvalsh(J @ J.T)[-1].item()
    before = losses()
    gradient = torch.autograd.grad(before[0], list(model.parameters()))
    with torch.no_grad():
        for p, g in zip(model.parameters(), gradient, strict=True):
            p.sub_(g, alpha=2.0 * critical)
    expected = [(after / b).item() for after, b in zip(losses(), before, strict=True)]
    assert [result.batch_loss[0, 0, 1], result.whole_loss[0, 0, 1]] == pytest.approx(expected, rel=1e-4)


def test_a_training_that_is_finished_before_its_first_step(results):
    page = Causes.create(**SMALL | {"stop_below": 1e6, "seeds": 1, "moments": []})
    run = page.runs(obtain(page, device="cpu"))[0]
    assert {result.steps for group in run.groups.values() for result in group.values()} == {0}
    assert figures.arms([run]).svg and arms_table([run], "4").markdown


def without(loss: float, alignment: float, diverged: bool = False, over: int = 0) -> Without:
    return Without(
        steps=40, above=over, best_step=20, mean_rate=1.0, curve=np.arange(40), loss=np.ones(40), rate=np.ones(40),
        converged=not diverged, diverged=diverged, test_loss=loss, test_error=math.nan, test_variance=1.0,
        alignment=alignment, norms=(2.0, 1.0), source="Synthetic task, seed 0.",
    )  # fmt: skip


def runs_with(kept_share: float, seeds: int = 5, gain: float = 0.4, diverges: int = 0) -> list[CausesRun]:
    """Of the gain of each seed, which differ, this share is kept."""
    page = Causes.create(**SMALL | {"gd": None, "moments": [], "seeds": seeds})
    runs = []
    for k, one in enumerate(page.of_each_seed()):
        control, whole = 0.8 + 0.01 * k, 0.8 + 0.01 * k - gain * (1 + 0.1 * k)
        middle = without(control - kept_share * (control - whole), 1 - (control - kept_share * (control - whole)))
        arms = dict.fromkeys(ARMS, middle) | {
            "as it is": made(whole, 1 - whole, catapults=10, diverged=k < diverges),
            "control": made(control, 1 - control),
        }
        runs.append(CausesRun(one, {"4": arms}, None))
    return runs


class TestKept:
    @pytest.mark.parametrize("share", [0.0, 0.25, 0.9, 1.1])
    def test_is_the_share_of_the_gain(self, share):
        found = kept(runs_with(share), "4", "clip 1", FVU)
        assert found.share == pytest.approx(share) and found.seeds == 5
        assert found.interval == pytest.approx((share, share))

    def test_there_is_none_without_a_gain(self):
        assert math.isnan(kept(runs_with(0.5, gain=0.0), "4", "clip 1", FVU).share)

    def test_leaves_out_seeds_that_diverge(self):
        assert kept(runs_with(0.5, diverges=2), "4", "clip 1", FVU).seeds == 3
        assert math.isnan(kept(runs_with(0.5, diverges=5), "4", "clip 1", FVU).share)


class TestClaims:
    @pytest.mark.parametrize(("share", "verdict"), [(0.95, NOT_REPRODUCED), (0.1, REPRODUCED)])
    def test_the_gain_is_lost_or_kept(self, share, verdict):
        found = claims(runs_with(share))
        assert found["gain_test_4"].verdict == found["gain_alignment_4"].verdict == REPRODUCED
        assert found["lost_test_4"].verdict == found["lost_alignment_4"].verdict == verdict
        assert f"{100 * share:.0f} %" in headline(runs_with(share)).markdown

    def test_without_a_gain_nothing_is_compared(self):
        found = claims(runs_with(0.5, gain=0.0))
        assert found["lost_test_4"].verdict == NOT_COMPARED and "no gain" in found["lost_test_4"].why
        assert "no gain" in headline(runs_with(0.5, gain=0.0)).markdown

    def test_of_one_seed(self):
        assert claims(runs_with(0.1, seeds=1))["lost_test_4"].held == (1, 1)


def test_words():
    assert arm_words("clip 0.5") == "rate ≤ 0.5 η_crit(B)" and arm_words("clip 1") == "rate ≤ η_crit(B)"
    assert (above(without(1.0, 1.0, over=7)), best_step(without(1.0, 1.0))) == (7, 20)
    assert (above(made(0.5, 0.5, catapults=3)), best_step(made(0.5, 0.5))) == (3, 20)


def test_steps_far_above_raise_the_loss_in_the_sentence():
    page = Causes.create(**SMALL | {"gd": None, "multiples": [1.0, 2.0]})
    ratios = np.stack([np.full((2, 2), 0.9), np.full((2, 2), 1.2)], -1)
    run = CausesRun(page, {}, Forked(ratios, ratios, 2 - ratios, np.ones((2, 2)), "s"))
    said = fork_sentence([run]).markdown
    assert "in 0 % of the cases and lowers ‖K‖ in 0 %; the median change of ‖K‖ is 10 %" in said
    assert "At 2 times it these are 100 %, 100 % and 20 %." in said


def test_a_fit_and_an_intervened_one_have_different_keys():
    trainings = Causes.create(**SMALL).trainings()
    assert len({e.key for e in trainings.values()}) == len(trainings)
    assert isinstance(trainings["4", "clip 1"], Fit)
