"""What the monitor costs a training, and one measurement beside PyHessian's and curvlinops' of the same number."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from time import perf_counter

import memory
import pytest
import torch
from catapults import models
from catapults.monitor import Curvature, Monitor, Threshold
from torch import Tensor, nn

N, EVERY, TOLERANCE, RATE = 128, 20, 1e-2, 1e-3
SECONDS = 5  # from which one round has to do


@dataclass(frozen=True)
class Watched:
    """A network with one output or ten, and how much longer a training with the monitor may take."""

    network: Callable[..., nn.Module]
    sizes: tuple[int, ...]
    sample: tuple[int, ...]
    outputs: int = 1
    optimizer: type[torch.optim.Optimizer] = torch.optim.SGD
    allowed: float = 1.1
    rounds: int = 5

    def problem(self) -> tuple[nn.Module, Callable, Tensor, Tensor]:
        torch.manual_seed(0)
        model = self.network(*self.sizes, out_features=self.outputs)
        inputs = torch.randn(N, *self.sample)
        if self.outputs == 1:
            return model, nn.MSELoss(), inputs, torch.randn(N, 1)
        return model, nn.CrossEntropyLoss(), inputs, torch.randint(self.outputs, (N,))


WATCHED = {
    "FCN": Watched(models.fcn, (3072, 1024, 5), (3072,)),
    "CNN": Watched(models.cnn, (3, 32, 64), (3, 32, 32), rounds=3),
    "transformer": Watched(models.vit, (3, 32, 64, 2), (3, 32, 32), rounds=3),
    "FCN, Adam": Watched(models.fcn, (3072, 1024, 5), (3072,), optimizer=torch.optim.Adam, allowed=float("inf")),
    "FCN, ten classes": Watched(models.fcn, (3072, 1024, 5), (3072,), outputs=10, allowed=float("inf")),
}


def steps(case: Watched, model: nn.Module, loss: Callable, x: Tensor, y: Tensor, watched: bool) -> float:
    """Seconds of ``EVERY`` steps, at the first of which the monitor measures."""
    optimizer = case.optimizer(model.parameters(), lr=RATE)
    watch = Monitor(model, loss, optimizer, EVERY) if watched else None
    if watch:  # once before: what is found out once for a training does not count
        loss(model(x), y).backward()
        watch.before_step(x, y)
        optimizer.step()
        watch._step = 0
    started = perf_counter()
    for _ in range(EVERY):
        optimizer.zero_grad()
        value = loss(model(x), y)
        value.backward()
        if watch:
            watch.before_step(x, y, value)
        optimizer.step()
    seconds = perf_counter() - started
    if watch:
        assert not watch.readings.failures()
    return seconds


@pytest.mark.parametrize("name", WATCHED)
def test_training(benchmark, table_of_monitor, name):
    """With and without the monitor in turn, from the same weights."""
    case = WATCHED[name]
    model, loss, x, y = case.problem()
    plain, ours = [], []

    def one_round() -> None:
        plain.append(steps(case, copy.deepcopy(model), loss, x, y, False))
        ours.append(steps(case, copy.deepcopy(model), loss, x, y, True))

    one_round()
    plain.clear(), ours.clear()
    benchmark.pedantic(one_round, rounds=case.rounds)
    ratio = median(o / p for o, p in zip(ours, plain, strict=True))
    table_of_monitor.setdefault(name, {})["training"] = ratio, case.allowed
    benchmark.extra_info["ratio"] = ratio


def ours(case: Watched) -> Callable[[], float]:
    model, loss, x, y = case.problem()
    parameters = list(model.parameters())
    measure = Curvature(model, loss, tolerance=TOLERANCE)
    step = Threshold(RATE, 2.0, parameters, [1.0] * len(parameters), [0.0] * len(parameters))
    return lambda: measure([(x, y)], step).value


def curvlinops(case: Watched) -> Callable[[], float]:
    from curvlinops import GGNLinearOperator
    from scipy.sparse.linalg import eigsh

    model, loss, x, y = case.problem()
    parameters = list(model.parameters())
    operator = GGNLinearOperator(model, loss, parameters, [(x, y)], check_deterministic=False).to_scipy()
    return lambda: float(eigsh(operator, 1, which="LA", tol=TOLERANCE, return_eigenvectors=False)[0])


def pyhessian(case: Watched) -> Callable[[], float]:
    """Of the Hessian, by power iteration: it has no Gauss-Newton matrix."""
    from pyhessian import hessian

    model, loss, x, y = case.problem()
    return lambda: hessian(model, loss, data=(x, y), cuda=False).eigenvalues(tol=TOLERANCE, top_n=1)[0][0]


CONTESTANTS = {"ours": ours, "curvlinops": curvlinops, "PyHessian": pyhessian}


@pytest.mark.filterwarnings("ignore:Using backward")  # PyHessian does
@pytest.mark.parametrize("contestant", CONTESTANTS)
@pytest.mark.parametrize("name", ["FCN", "CNN", "transformer", "FCN, ten classes"])
def test_measurement(benchmark, table_of_monitor, name, contestant):
    """The largest eigenvalue on a batch of 128 to within a percent, as a multiple of a plain step."""
    case = WATCHED[name]
    try:
        run = CONTESTANTS[contestant](case)
        started = perf_counter()
        value = run()
        seconds = perf_counter() - started
    except ImportError as missing:
        pytest.skip(str(missing))
    if contestant == "curvlinops":
        assert value == pytest.approx(ours(case)(), rel=5 * TOLERANCE)
    benchmark.pedantic(run, rounds=case.rounds if seconds < SECONDS else 1)
    model, loss, x, y = case.problem()
    plain = median(steps(case, model, loss, x, y, False) / EVERY for _ in range(2))
    mib = memory.of_measurement(name, contestant)
    row = table_of_monitor.setdefault(name, {}).setdefault("measurement", {})
    row[contestant] = benchmark.stats.stats.median / plain, mib
    benchmark.extra_info.update(steps=row[contestant][0], mib=mib)
