"""What cannot fit is refused by name with the numbers, before any work; what takes longer is known to."""

import re
from typing import get_args

import psutil
import pytest
import torch
from catapults.compute import estimate, sweep, workers
from catapults.compute.trainings.networks import at_initialisation
from catapults.experiments.descent import GradientDescent, Restart
from catapults.experiments.network import Architecture
from catapults.paper import descriptions
from test_experiments import REAL, STRONG, descent, expanded, fit, sgd

HUGE = 10**22
IMAGES = {"dataset": "cifar-10:0,1"}
SMALL = {
    "else": {"depth": 10, "width": 8, "image_size": 8},
    "myrtle": {"depth": 5, "width": 8, "image_size": 8},
    "wrn": {"depth": 10, "width": 1, "image_size": 8},
}


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    monkeypatch.setenv("CATAPULTS_RESULTS", str(tmp_path / "results"))
    monkeypatch.setenv("CATAPULTS_RECORD", str(tmp_path / "record"))


@pytest.fixture
def memory(monkeypatch):
    """Set how much this machine has."""

    def has(gib: float) -> None:
        machine = psutil.virtual_memory()._replace(total=int(gib * 2**30))
        monkeypatch.setattr(psutil, "virtual_memory", lambda: machine)

    return has


class TestWhatCannotFit:
    @pytest.mark.parametrize(
        "experiment, said",
        [
            (descent(width=HUGE), f"width = {HUGE}, depth = 3: 1e+44 parameters would need 2.24e+36 GiB; allowed is"),
            (descent(depth=HUGE), f"width = 32, depth = {HUGE}: 1.02e+25 parameters would need "),
            (
                descent(n_train=10**15),
                f"n_train = {10**15}: {10**15} samples would need 3.73e+08 GiB; allowed is what fi",
            ),
            (descent(steps=10**18), f"steps = {10**18}: its history would need "),
            (sgd(width=HUGE), f"width = {HUGE}, depth = 3: "),
            (fit(n_test=10**15), f"n_train = 8: {10**15 + 12} samples would need "),
            (fit(steps=10**18), f"steps = {10**18}: its history would need "),
            (Restart(of=descent(width=HUGE), steps=3), f"width = {HUGE}, depth = 3: "),
            (Restart(of=descent(), steps=10**18), f"steps = {10**18}: its history would need "),
            (
                fit(**REAL, architecture="cnn", image_size=10**15),
                f"depth = 3, image_size = {10**15}: ",
            ),
            (fit(**REAL | {"strong": STRONG | {"width": HUGE}}).needs[0], f"width = {HUGE}, depth = 2: "),
            (descent(width=10**400), "width = about 10^400, depth = 3: 1e+200 parameters would need "),
            (descent(n_train=10**400), "n_train = about 10^400: about 10^400 samples would need "),
            (descent(steps=10**400), "steps = about 10^400: its history would need "),
        ],
        ids=lambda value: type(value).__name__,
    )
    def test_is_refused_by_name_with_the_numbers(self, experiment, said, memory):
        memory(24)
        with pytest.raises(ValueError, match=re.escape(said)):
            estimate.refuse_impossible(experiment, "cpu")
        assert estimate.seconds(experiment) > 0  # by which it could be ordered

    def test_is_refused_before_any_work(self, monkeypatch):
        monkeypatch.setattr(workers, "attempt", lambda *_: pytest.fail("something was computed"))
        with pytest.raises(ValueError, match=f"width = {HUGE}"):
            sweep([descent(), descent(width=HUGE)], processes=1)

    def test_depends_on_the_machine(self, memory):
        experiment = descent(width=2**14)  # 2^28 weights, a GiB in float32
        memory(16)
        estimate.refuse_impossible(experiment, "cpu")
        memory(4)
        with pytest.raises(
            ValueError, match=r"width = 16384, depth = 3: 2\.7e\+08 parameters would need 6\.04 GiB; allo"
        ):
            estimate.refuse_impossible(experiment, "cpu")

    @pytest.mark.parametrize("experiment", [descent(), expanded(), sgd(), fit(), Restart(of=descent(), steps=3)])
    def test_what_fits_is_not_refused(self, experiment):
        estimate.refuse_impossible(experiment, "cpu")


class TestSeconds:
    @pytest.mark.parametrize(
        "shorter, longer",
        [
            (descent(), descent(steps=100)),
            (descent(), descent(n_train=2000)),
            (descent(), descent(width=2000)),
            (descent(), descent(depth=9)),
            (descent(), expanded()),
            (expanded(model="linear"), expanded()),
            (expanded(), expanded(multiples=[1, 2, 3])),
            (Restart(of=descent(), steps=3), descent()),
            (sgd(), sgd(batch_size=8)),
            (sgd(n_train=1000), sgd(n_train=1000, kernel_every=1)),
            (sgd(n_train=1000, loss_every=10), sgd(n_train=1000, loss_every=1)),
            (fit(), fit(batch_size=8)),
            (fit(n_train=1000, evaluate_every=10), fit(n_train=1000, evaluate_every=1)),
            (fit(n_train=1000, batch_size=1000), fit(n_train=1000, batch_size=1000, critical_every=1)),
            (fit(**REAL, architecture="cnn", image_size=8), fit(**REAL, architecture="cnn")),
            (fit(**REAL, architecture="myrtle", depth=5), fit(**REAL, architecture="myrtle", depth=5, width=64)),
            (descent(**IMAGES, architecture="wrn", depth=10), descent(**IMAGES, architecture="wrn", depth=16)),
            (descent(**IMAGES, architecture="vit", depth=2), descent(**IMAGES, architecture="vit", depth=4)),
        ],
    )  # fmt: skip
    def test_grow_with_the_work(self, shorter, longer):
        assert 0 < estimate.seconds(shorter) < estimate.seconds(longer) < 1e5


@pytest.mark.parametrize("architecture", get_args(Architecture))
def test_every_network_is_made_sized_and_described(architecture):
    """Everywhere its name has to be known: what it is made of is what no other one is, and of the estimated size."""

    def example(name: str) -> GradientDescent:
        return descent(**IMAGES, architecture=name, **SMALL.get(name, SMALL["else"]))

    def made(name: str) -> torch.nn.Module:
        return at_initialisation(example(name), torch.zeros(1, 3, 8, 8), 1)

    def layers(name: str) -> set[type]:
        return {type(layer) for layer in made(name).modules()}

    assert [name for name in get_args(Architecture) if layers(name) == layers(architecture)] == [architecture]
    parameters = sum(p.numel() for p in made(architecture).parameters())
    assert estimate.size(example(architecture))[0] == pytest.approx(parameters, rel=0.35)
    assert f"{parameters:,} parameters" in descriptions.network(example(architecture), parameters)


def test_a_training_of_months_is_refused(monkeypatch):
    network = dict(dataset="rank-2", architecture="fcn", depth=2, width=64, norm=None, image_size=None, n_train=32)
    form = dict(labels="zero-one", parameterization="ntk", gain=1.0, bias=False, seed=0, top=2, hessian_every=None)
    long = GradientDescent.create(**network, **form, learning_rate=1.0, steps=10**10 // 4)
    monkeypatch.setattr("psutil.virtual_memory", lambda: type("Memory", (), {"total": 2**50}))
    with pytest.raises(
        ValueError, match=r"steps = 2500000000: would take about [\d.e+]+ days of one core; allowed are 30"
    ):
        estimate.refuse_impossible(long, "cpu")
