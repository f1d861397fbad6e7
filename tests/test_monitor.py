"""The monitor in loops of a person's own: the same training with and without it, readings, diagnoses, and limits."""

import copy
import csv
import math

import numpy as np
import pytest
import torch
from catapults import models, tangent
from catapults.figures.monitor import plot
from catapults.monitor import CriticalRate, Monitor, Readings
from catapults.monitor.diagnosis import diagnosed
from torch import nn


def problem(outputs=1, n=24):
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(n, 6, generator=generator)
    return x, torch.randn(n, outputs, generator=generator)


def network(outputs=1):
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, outputs))


def with_batch_norm_and_dropout():
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 1))


def plain(model, x, y, watch_with=None, optimizer=torch.optim.SGD, steps=12, batch=8, **options):
    """A loop as people write it; what it leaves behind."""
    options = {"lr": 0.05} | options
    optimizer = optimizer(model.parameters(), **options)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    loss, losses = nn.MSELoss(), []
    watch = watch_with(model, loss, optimizer) if watch_with else None
    torch.manual_seed(5)
    for _ in range(steps):
        some = torch.randperm(len(x))[:batch]
        optimizer.zero_grad()
        value = loss(model(x[some]), y[some])
        value.backward()
        if watch:
            watch.before_step(x[some], y[some], value)
        optimizer.step()
        schedule.step()
        losses.append(value.item())
    return losses, model.state_dict(), [p.grad.clone() for p in model.parameters()], torch.get_rng_state(), watch


def same(a, b):
    assert a[0] == b[0]
    assert all(torch.equal(a[1][k], b[1][k]) for k in a[1])
    assert all(torch.equal(g, h) for g, h in zip(a[2], b[2], strict=True))
    assert torch.equal(a[3], b[3])


class TestLeavesATrainingAsItIs:
    @pytest.mark.parametrize("make", [network, with_batch_norm_and_dropout])
    @pytest.mark.parametrize(
        ("optimizer", "options"),
        [
            (torch.optim.SGD, {}),
            (torch.optim.SGD, {"momentum": 0.9, "weight_decay": 0.01}),
            (torch.optim.Adam, {}),
            (torch.optim.RMSprop, {"momentum": 0.5}),
            (torch.optim.Adagrad, {}),
        ],
    )
    def test_to_the_last_bit(self, make, optimizer, options):
        x, y = problem()
        without = plain(make(), x, y, optimizer=optimizer, **options)
        probe = (x[:6], y[:6])
        watched = plain(make(), x, y, lambda *a: Monitor(*a, every=3, probe=probe), optimizer=optimizer, **options)
        same(without, watched)
        readings = watched[-1].readings
        np.testing.assert_allclose(readings.column("loss"), without[0], rtol=1e-6)
        known = np.isfinite(readings.column("critical"))
        assert list(np.flatnonzero(known)) == ([] if optimizer is torch.optim.Adagrad else [0, 3, 6, 9])
        assert list(np.flatnonzero(np.isfinite(readings.column("norm")))) == [0, 3, 6, 9]

    def test_with_accumulated_gradients(self):
        x, y = problem()

        def train(watched):
            model, loss = network(), nn.MSELoss()
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            watch = Monitor(model, loss, optimizer, every=1) if watched else None
            for _ in range(4):
                for part in (slice(0, 12), slice(12, 24)):
                    value = loss(model(x[part]), y[part])
                    (value / 2).backward()
                    if watch:
                        watch.before_step(x[part], y[part], value)
                optimizer.step()
                optimizer.zero_grad()
            return model.state_dict(), watch

        (without, _), (weights, watch) = train(False), train(True)
        assert all(torch.equal(without[k], weights[k]) for k in without)
        K = tangent.tangent_kernel(network(), x)
        assert watch.readings.column("critical")[0] == pytest.approx(tangent.critical_learning_rate(K, 24), rel=0.02)
        assert watch.readings.column("loss")[0] == pytest.approx(nn.MSELoss()(network()(x), y).item())

    def test_under_autocast_with_a_scaler(self):
        x, y = problem()

        def train(watched):
            model, loss = network(), nn.MSELoss()
            optimizer, scaler = torch.optim.SGD(model.parameters(), lr=0.1), torch.amp.GradScaler("cpu")
            watch = Monitor(model, loss, optimizer, every=2) if watched else None
            for _ in range(4):
                optimizer.zero_grad()
                with torch.autocast("cpu", torch.bfloat16):
                    value = loss(model(x), y)
                scaler.scale(value).backward()
                if watch:
                    watch.before_step(x, y, value)
                scaler.step(optimizer)
                scaler.update()
            return model.state_dict(), watch

        (without, _), (weights, watch) = train(False), train(True)
        assert all(torch.equal(without[k], weights[k]) for k in without)
        K = tangent.tangent_kernel(network(), x)  # in float32, as the weights are
        assert watch.readings.column("critical")[0] == pytest.approx(tangent.critical_learning_rate(K, 24), rel=1e-5)

    def test_of_a_compiled_model(self):
        x, y = problem()
        without = plain(torch.compile(network(), backend="eager"), x, y)
        watched = plain(torch.compile(network(), backend="eager"), x, y, lambda *a: Monitor(*a, every=4))
        same(without, watched)
        assert np.isfinite(watched[-1].readings.column("critical")[[0, 4, 8]]).all()


class TestReads:
    def test_the_paper_s_critical_rate(self):
        """n / ||K|| of each batch, as the library has it."""
        x, y = problem()
        model, start = models.fcn(6, 8, 3), None
        start = copy.deepcopy(model)
        watch = plain(model, x, y, lambda *a: Monitor(*a, every=1), steps=3, lr=0.02)[-1]
        torch.manual_seed(5)
        first = x[torch.randperm(24)[:8]]
        expected = tangent.critical_learning_rate(tangent.tangent_kernel(start, first), 8)
        assert watch.readings.column("critical")[0] == pytest.approx(expected, rel=1e-5)
        assert watch.readings.column("rate")[0] == watch.readings.column("applied")[0] == 0.02

    def test_the_probe(self):
        x, y = problem(outputs=2)
        model = network(2)
        watch = plain(model, x, y, lambda *a: Monitor(*a, probe=(x, y), probe_every=1, top=3), steps=2)[-1]
        K = tangent.tangent_kernel(network(2), x)
        residual = network(2)(x).detach() - y
        read = {name: watch.readings.column(name)[0] for name in ("norm", "top", "rest", "probe_loss", "alignment")}
        assert read["norm"] == pytest.approx(torch.linalg.eigvalsh(K)[-1].item(), rel=1e-4)
        top, rest = tangent.split_loss(residual, K, 3)
        assert read["top"] / read["rest"] == pytest.approx(top / rest, rel=1e-3)
        assert read["probe_loss"] == pytest.approx(top + rest, rel=1e-4) and read["alignment"] == pytest.approx(
            1, abs=1e-3
        )
        assert watch.readings.column("alignment")[1] < 1

    def test_probe_in_evaluation_mode(self):
        x, y = problem()
        watch = plain(with_batch_norm_and_dropout(), x, y, lambda *a: Monitor(*a, probe=(x, y)))[-1]
        assert not watch.readings.failures() and watch.readings.column("norm")[0] > 0

    def test_losses_that_were_not_told_at_measured_steps(self):
        x, y = problem()
        model, loss = network(), nn.MSELoss()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        with Monitor(model, loss, optimizer, every=2) as watch:
            for _ in range(4):
                optimizer.zero_grad()
                loss(model(x), y).backward()
                watch.before_step(x, y)
                optimizer.step()
        optimizer.step()  # which nobody watches any more
        assert list(np.isfinite(watch.readings.column("loss"))) == [True, False, True, False]

    def test_csv(self, tmp_path):
        x, y = problem()
        watch = plain(network(), x, y, lambda *a: Monitor(*a, every=4), steps=5)[-1]
        watch.readings.to_csv(tmp_path / "steps.csv")
        with (tmp_path / "steps.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == 5 and rows[1]["critical"] == "" and float(rows[4]["critical"]) > 0
        with pytest.raises(ValueError, match="name = 'sharp': allowed are step, loss"):
            watch.readings.column("sharp")


class TestNeverTakesATrainingDown:
    @pytest.mark.parametrize(
        ("loss", "says"),
        [
            (nn.MSELoss(reduction="none"), "loss: returns a tensor of shape"),
            (lambda f, y: -f.square().mean(), "loss: is not convex"),
            (lambda f, y: 1 / 0, "ZeroDivisionError"),
        ],
    )
    def test_but_records_why(self, loss, says):
        x, y = problem()
        without = plain(network(), x, y)
        watched = plain(network(), x, y, lambda model, _, optimizer: Monitor(model, loss, optimizer, every=5))
        same(without, watched)
        ((reason, steps),) = watched[-1].readings.failures().items()
        assert says in reason and steps == [0, 5, 10]
        assert says in str(watched[-1].readings)

    def test_of_an_optimiser_that_it_does_not_know(self):
        x, y = problem()
        watch = plain(network(), x, y, Monitor, torch.optim.Adagrad)[-1]
        assert "optimizer: Adagrad has no threshold" in str(watch.readings)
        assert np.isfinite(watch.readings.column("loss")).all()

    def test_when_the_batch_was_not_told(self):
        model, x = network(), problem()[0]
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        watch = Monitor(model, nn.MSELoss(), optimizer)
        model(x).mean().backward()
        optimizer.step()
        assert "before_step was not called" in watch.readings.rows[0].reason

    def test_a_batch_of_one(self):
        x, y = problem()
        watch = plain(network(), x, y, lambda *a: Monitor(*a, every=1), batch=1)[-1]
        assert np.isfinite(watch.readings.column("critical")).all()

    def test_weights_that_diverge(self):
        x, y = problem()
        model = nn.Sequential(nn.Linear(6, 16), nn.GELU(), nn.Linear(16, 1))
        watch = plain(model, x, y, lambda *a: Monitor(*a, every=2), steps=60, lr=50.0)[-1]
        (last,) = [d for d in watch.readings.diagnoses() if d.kind == "diverged"]
        assert last.above and "did not come back" in str(last)


@pytest.mark.usefixtures("no_type_checks")
class TestRefusesAtOnce:
    def given(self, **changed):
        model = network()
        given = {"model": model, "loss": nn.MSELoss(), "optimizer": torch.optim.SGD(model.parameters(), lr=0.1)}
        return given | changed

    @pytest.mark.parametrize(
        ("changed", "says"),
        [
            ({"every": 0}, "every = 0: allowed are whole numbers"),
            ({"probe_every": 1.5}, "probe_every = 1.5: allowed"),
            ({"matrix": "fisher"}, "matrix = 'fisher': allowed are gauss-newton, hessian"),
            ({"probe": (torch.ones(3, 6), torch.ones(2, 1))}, "probe: allowed is a pair of tensors"),
            (
                {"probe": (torch.ones(3, 6), torch.ones(3, 1)), "top": 3},
                "top = 3: allowed are whole numbers from 1 to 2",
            ),
            ({"model": nn.Linear(2, 1)}, "optimizer: has parameters that are not the model's"),
            ({"model": nn.ReLU()}, "model: none of its parameters requires a gradient"),
        ],
    )
    def test_values(self, changed, says):
        with pytest.raises(ValueError, match=says):
            Monitor(**self.given(**changed))

    @pytest.mark.parametrize("changed", [{"loss": "mse"}, {"optimizer": "sgd"}])
    def test_types(self, changed):
        (name,) = changed
        with pytest.raises(TypeError, match=f"{name}: str; allowed is"):
            Monitor(**self.given(**changed))


class TestCriticalRate:
    @pytest.mark.parametrize(
        ("optimizer", "options"),
        [(torch.optim.SGD, {}), (torch.optim.SGD, {"momentum": 0.9}), (torch.optim.Adam, {"eps": 1e-3})],
    )
    def test_no_step_exceeds(self, optimizer, options):
        x, y = problem()
        asked = plain(network(), x, y, lambda *a: Monitor(*a, every=1), optimizer, steps=30, lr=4.0, **options)[-1]
        assert any(row.exceeds for row in asked.readings.rows)

        def limited(*given):
            watch = Monitor(*given, every=1)
            CriticalRate(watch, c=0.8)
            return watch

        watch = plain(network(), x, y, limited, optimizer, steps=30, lr=4.0, **options)[-1]
        applied, critical = (watch.readings.column(name) for name in ("applied", "critical"))
        assert not any(row.exceeds for row in watch.readings.rows)
        np.testing.assert_allclose(applied, np.minimum(watch.readings.column("rate"), 0.8 * critical), rtol=1e-6)
        assert "It was lowered at" in str(watch.readings)

    def test_step_is_the_one_at_the_lowered_rate_and_schedules_do_not_notice(self):
        x, y = problem()
        model = network()
        by_hand, loss = copy.deepcopy(model), nn.MSELoss()
        optimizer = torch.optim.SGD(model.parameters(), lr=100.0)
        watch = Monitor(model, loss, optimizer, every=1)
        limit = CriticalRate(watch)
        loss(model(x), y).backward()
        watch.before_step(x, y)
        optimizer.step()
        assert optimizer.param_groups[0]["lr"] == 100.0
        loss(by_hand(x), y).backward()
        rate = watch.readings.rows[0].applied
        for p, q in zip(by_hand.parameters(), model.parameters(), strict=True):
            torch.testing.assert_close(p - rate * p.grad, q)
        limit.close()
        watch.before_step(x, y)
        optimizer.step()
        assert watch.readings.rows[1].applied == 100.0

    def test_between_measurements_the_last_one_counts(self):
        x, y = problem()

        def limited(*given):
            watch = Monitor(*given, every=5)
            CriticalRate(watch)
            return watch

        watch = plain(network(), x, y, limited, lr=10.0)[-1]
        assert (watch.readings.column("applied") < 10).all()

    @pytest.mark.usefixtures("no_type_checks")
    @pytest.mark.parametrize("c", [0, -1, math.inf, "1"])
    def test_refuses(self, c):
        model = network()
        watch = Monitor(model, nn.MSELoss(), torch.optim.SGD(model.parameters(), lr=0.1))
        with pytest.raises(ValueError, match="c = .*: allowed are positive numbers"):
            CriticalRate(watch, c)


class TestDiagnosis:
    def columns(self, loss, **changed):
        T = len(loss)
        given = {name: np.full(T, np.nan) for name in ("critical", "sharpness", "norm", "top", "rest")}
        given |= {"step": np.arange(T, dtype=float), "loss": np.array(loss, float), "applied": np.ones(T)}
        return given | {name: np.array(values, float) for name, values in changed.items()}

    LOSS = (1, 1, 4, 9, 2, 0.5, 0.5)

    def test_catapult(self):
        norm, top = (3, 3, 3, 2, 1, 1, 1), (1, 1, 4, 8, 1, 0.2, 0.2)
        columns = self.columns(self.LOSS, critical=(0.5, 0.5, 0.5, 1, 2, 2, 2), norm=norm, top=top, rest=np.ones(7))
        (found,) = diagnosed(columns, 2.0)
        assert found.kind == "catapult" and (found.start, found.peak, found.rise) == (1, 3, 9)
        assert found.excess == 2 and found.above == 2 and found.fall == pytest.approx(1 / 3) and found.share == 1
        said = str(found)
        assert "rose 9-fold" in said and "by up to a factor of 2" in said and "The kernel's norm fell to 33%" in said
        assert "100% lay in the top eigendirections" in said

    def test_stable(self):
        (found,) = diagnosed(self.columns(self.LOSS, critical=np.full(7, 4.0), sharpness=np.full(7, 0.5)), 2.0)
        assert found.kind == "stable" and "stayed below the critical one, at most 0.25 times it" in str(found)

    def test_unstable(self):
        (found,) = diagnosed(self.columns(self.LOSS, critical=np.full(7, 0.5), sharpness=np.full(7, 4.0)), 2.0)
        assert found.kind == "unstable" and "The batches' sharpness did not fall" in str(found)

    def test_unmeasured(self):
        (found,) = diagnosed(self.columns(self.LOSS), 2.0)
        assert found.kind == "unmeasured" and "No step of the rise was measured" in str(found)

    def test_divergence(self):
        for loss in ((1, 0.5, 1, 30, 900), (1, 0.5, 20, math.inf, math.nan)):
            (found,) = diagnosed(self.columns(loss, critical=np.full(5, 0.5)), 2.0)
            assert found.kind == "diverged" and found.start == 1

    def test_a_loss_that_falls_has_none(self):
        assert diagnosed(self.columns((5, 4, 3, 2, 1)), 2.0) == []

    def test_of_a_real_catapult(self):
        """Gradient descent at twice the critical rate: what the book's chapter 1 shows, seen by the monitor."""
        torch.manual_seed(0)
        x = torch.randn(32, 20) + 1  # one large eigenvalue
        y = torch.randn(32, 1)
        model = models.fcn(20, 2048, 2)
        rate = 2 * tangent.critical_learning_rate(tangent.tangent_kernel(model, x), 32)
        loss, optimizer = nn.MSELoss(), torch.optim.SGD(model.parameters(), lr=rate)
        watch = Monitor(model, loss, optimizer, every=1, probe=(x, y))
        for _ in range(60):
            optimizer.zero_grad()
            value = loss(model(x), y)
            value.backward()
            watch.before_step(x, y, value)
            optimizer.step()
        first, *_ = watch.readings.diagnoses()
        assert first.kind == "catapult" and first.excess == pytest.approx(2, rel=0.1)
        assert first.fall < 0.9 and first.share > 0.5
        assert "A catapult" in str(watch.readings)


class TestPicture:
    def test_has_a_panel_for_what_was_measured(self):
        x, y = problem()

        def limited(*given):
            watch = Monitor(*given, every=1, probe=(x, y))
            CriticalRate(watch)
            return watch

        watch = plain(network(), x, y, limited, lr=10.0)[-1]
        figure = plot(watch.readings, "Mine")
        assert figure.caption.startswith("Mine: The loss on each step's batch")
        assert "asked for (dotted)" in figure.caption and "norm of the probe's tangent kernel" in figure.caption
        assert "exceeds the critical one at 0 of 12 measured steps" in figure.alt
        bare = plot(plain(network(), x, y, Monitor)[-1].readings)
        assert "probe" not in bare.caption and "dotted" not in bare.caption

    def test_of_what_failed(self):
        x, y = problem()
        figure = plot(plain(network(), x, y, Monitor, torch.optim.Adagrad)[-1].readings)
        assert "0 of 0 measured steps" in figure.alt

    def test_of_nothing(self):
        with pytest.raises(ValueError, match="readings: they have no step"):
            plot(Readings())
