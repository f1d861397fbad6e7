"""The steps of a training: measured with the kernel of their batch, plain, or an optimiser's."""

import math
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from .. import tangent
from ..precision import full_precision
from ..tangent import hessian
from ..tangent.descent import ChainDescent
from ..tangent.eigenspace import Eigenpairs, top_eigenpairs
from .run import Batch, Reference, Run

_TOLERANCE = 1e-2  # of the Hessian's critical rate of a batch, relatively, at most; usually the square of it
MOMENTUM = 0.9

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd+m": lambda parameters, lr: torch.optim.SGD(parameters, lr, momentum=MOMENTUM),
    "adadelta": torch.optim.Adadelta,
    "adagrad": torch.optim.Adagrad,
    "rmsprop": torch.optim.RMSprop,
    "adam": torch.optim.Adam,
}

Measured = tuple[float, float, float]  # of a batch: loss, critical rate, the Hessian's; NaN where not measured


@runtime_checkable
class Step(Protocol):
    """Changes the weights of a run's model."""

    def take(self, run: Run, batch: Batch, eta: float) -> Measured:
        """One step; what is returned belongs to the weights before it.

        Raises :class:`catapults.tangent.eigenspace.NotFinite` where the training diverges.
        """

    def state(self) -> dict[str, Any]:
        """What it needs to go on, as tensors, numbers, lists and dicts."""

    def load(self, state: dict[str, Any]) -> None: ...


def due(period: int | None, iteration: int) -> bool:
    """Whether an iteration is one of those with a measurement every ``period``, where ``None`` means never."""
    return period is not None and iteration % period == 0


class _Stateless:
    def state(self) -> dict[str, Any]:
        return {}

    def load(self, state: dict[str, Any]) -> None:
        pass


class WholeSet:
    """The whole training set's kernel, from products with vectors where it does not fit in memory: its top eigenspace,
    followed along the run, and the split of the loss."""

    def __init__(self) -> None:
        self.kernel: tangent.Linearization | Tensor | None = None
        self.pairs: Eigenpairs | None = None
        self.fits: bool | None = None
        self._start: Tensor | None = None
        self._before: Tensor | None = None  # the top eigenvectors of the last split

    def form(self, run: Run) -> None:
        linearization = run.point.linearization
        if self.fits is None:
            self.fits = linearization.kernel_fits()
        self.find(run, linearization.kernel() if self.fits else linearization)

    def find(self, run: Run, kernel: tangent.Linearization | Tensor) -> None:
        """The eigenpairs of this kernel, which is that of the present state."""
        self.kernel = kernel
        self._take(top_eigenpairs(kernel, run.tops[-1], self._start))
        norm = self.pairs.values[-1].item()
        run.note("kernel_norm", norm)
        run.note("critical_learning_rate", tangent.critical_rate(norm, run.targets.numel()))

    def extend(self, above: float) -> None:
        """To all eigenvalues above that."""
        self._take(top_eigenpairs(self.kernel, 2 * len(self.pairs.values), self._start, above=above))

    def split(self, run: Run) -> None:
        flat = run.point.residual.flatten()
        vectors, before = self.pairs.vectors[:, -run.tops[-1] :], self._before
        run.splits[run.iteration] = [list(tangent.split_by_eigenvectors(flat, vectors[:, -s:])) for s in run.tops]
        if before is not None:
            held = [tangent.split_by_eigenvectors(flat, before[:, -s:])[1] for s in run.tops]
            now = [rest for _, rest in run.splits[run.iteration]]
            run.turning[run.iteration] = [rest - fixed for rest, fixed in zip(now, held, strict=True)]
        self._before = vectors.clone()

    def drop(self) -> None:
        """The kernel, before the next one is formed."""
        self.kernel = self.pairs = None

    def _take(self, pairs: Eigenpairs) -> None:
        self.pairs, self._start = pairs, pairs.start

    def state(self) -> dict[str, Any]:
        state = {"start": self._start, "before": self._before, "fits": self.fits}
        return {name: value for name, value in state.items() if value is not None}

    def load(self, state: dict[str, Any]) -> None:
        self._start, self._before, self.fits = (state.get(name) for name in ("start", "before", "fits"))


class WholeBatch:
    """A step of gradient descent whose batch is the training set: what is measured of either is the other's.

    One pass gives the loss, the kernel and the step, unless the rate or the Hessian has to wait for the kernel. It is a
    probe, too, whose :meth:`measure` comes before the rate is known.
    """

    def __init__(self, hessian_every: int | None) -> None:
        self._hessian_every = hessian_every
        self._whole = WholeSet()

    def measure(self, run: Run) -> None:
        run.note_loss(run.point.loss)
        if run.iteration == 0 or run.last:
            self._whole.form(run)
        if run.last:
            self._rest(run, run.rows[-1][0])

    def finish(self, run: Run) -> None:
        pass

    def critical(self, run: Run) -> float:
        """n / ||K|| in this state."""
        if self._whole.pairs is None:
            self._whole.form(run)
        return run.states["critical_learning_rate"][run.iteration]

    def take(self, run: Run, batch: Batch, eta: float) -> Measured:
        point, whole = run.point, self._whole
        cotangent = point.residual * (-2 * eta / run.targets.numel())
        together = whole.pairs is None and whole.fits and not due(self._hessian_every, run.iteration)
        if together:
            whole.find(run, point.linearization.kernel_and_vjp(cotangent, add_to=run.parameters)[0])
        elif whole.pairs is None:
            whole.form(run)
        self._rest(run, eta)
        if not together:
            point.linearization.vjp(cotangent, add_to=run.parameters)
        exact = run.states["hessian_critical_learning_rate"].get(run.iteration, math.nan)
        whole.drop()
        return point.loss, run.states["critical_learning_rate"][run.iteration], exact

    def _rest(self, run: Run, eta: float) -> None:
        """All that the kernel's eigenpairs tell."""
        whole, m = self._whole, run.targets.numel()
        if whole.pairs.values[0] * eta > m:
            whole.extend(m / eta)
        if due(self._hessian_every, run.iteration):
            start = hessian.kernel_direction(run.model, run.point.linearization, whole.pairs.vectors[:, -1])
            rate = hessian.critical_learning_rate(run.model, run.inputs, run.targets, start)
            run.note("hessian_critical_learning_rate", rate)
        whole.split(run)
        run.note("unstable_directions", float((whole.pairs.values * eta > m).sum()))

    def state(self) -> dict[str, Any]:
        return self._whole.state()

    def load(self, state: dict[str, Any]) -> None:
        self._whole.load(state)


class MeasuredBatch(_Stateless):
    """A step of SGD with the norm of the batch's kernel, in one pass; every ``hessian_every`` with its Hessian's, and
    every ``break_even_every`` with the rates at which it would leave the losses as they are."""

    def __init__(self, run: Run, hessian_every: int | None = None, break_even_every: int | None = None) -> None:
        self._hessian_every, self._break_even_every = hessian_every, break_even_every
        self._no_graph = bool(run.layers.chain)  # is needed: a tenth faster on small batches

    def take(self, run: Run, batch: Batch, eta: float) -> Measured:
        x, y = run.inputs[batch], run.targets[batch]
        exact = math.nan
        with torch.inference_mode(self._no_graph):
            linearization = tangent.linearize(run.model, x, run.layers)
            residual = linearization.outputs - y
            flat = residual.flatten()
            m = len(flat)
            loss = flat.dot(flat).item() / m  # faster than the mean of squares where samples are few
            run.check(loss)
            if due(self._hessian_every, run.iteration):
                with torch.inference_mode(False):
                    exact = hessian.critical_learning_rate(
                        run.model, x, y, tolerance=_TOLERANCE, linearization=linearization
                    )
            descent = residual * (-2 * eta / m)
            if due(self._break_even_every, run.iteration):
                norm, step = linearization.norm_and_vjp(descent)
                run.break_even[run.iteration] = break_even_rates(run, batch, step, eta)
                with torch.no_grad():
                    for name, change in step.items():
                        run.parameters[name].add_(change)
            else:
                norm, _ = linearization.norm_and_vjp(descent, add_to=run.parameters)
        return loss, tangent.critical_rate(norm, m), exact


def break_even_rates(run: Run, batch: Batch, step: dict[str, Tensor], eta: float) -> list[float]:
    """The rates at which a step in this direction, to first order, leaves the batch's and the whole set's loss alone:
    eta*_B = b r_B^T K_BB r_B / ||K_BB r_B||^2 and eta*_whole = b r^T K_.B r_B / ||K_.B r_B||^2.

    ``step``: the change of the weights at the rate ``eta``, -2 eta / b J_B^T r_B, of which the outputs' change is
    df = -2 eta / b K_.B r_B. A loss whose residual goes from r to r + t df is back at its value for
    t = -2 r^T df / ||df||^2. NaN where the step changes no output.
    """
    linearization = tangent.linearize(run.model, run.inputs, run.layers)
    change, residual = linearization.jvp(step), linearization.outputs - run.targets
    rates = []
    for rows in (batch, slice(None)):
        df, r = change[rows].flatten().double(), residual[rows].flatten().double()
        squares = df.dot(df).item()
        rates.append(-2 * eta * r.dot(df).item() / squares if squares else math.nan)
    return rates


class ChainStep(_Stateless):
    """A plain step by the chain rule written out, where the model allows it; see :func:`plain`."""

    def __init__(self, run: Run) -> None:
        self._chain = ChainDescent(run.model, run.layers)
        self._targets = run.targets.flatten()

    def take(self, run: Run, batch: Batch, eta: float) -> Measured:
        return self._chain.step(run.inputs[batch], self._targets[batch], eta), math.nan, math.nan


class AutogradStep(_Stateless):
    """A plain step by automatic differentiation."""

    def take(self, run: Run, batch: Batch, eta: float) -> Measured:
        loss, gradient = _differentiated(run, batch)
        with torch.no_grad():
            for parameter, g in zip(run.parameters.values(), gradient, strict=True):
                parameter.sub_(g, alpha=eta)
        return loss.item(), math.nan, math.nan


class OptimizerStep:
    """A step of one of PyTorch's optimisers."""

    def __init__(self, run: Run, name: str) -> None:
        self._optimizer = OPTIMIZERS[name](run.parameters.values(), lr=1.0)  # the rate is set before each step

    def take(self, run: Run, batch: Batch, eta: float) -> Measured:
        loss, gradient = _differentiated(run, batch)
        for parameter, g in zip(run.parameters.values(), gradient, strict=True):
            parameter.grad = g
        for group in self._optimizer.param_groups:
            group["lr"] = eta
        self._optimizer.step()
        return loss.item(), math.nan, math.nan

    def state(self) -> dict[str, Any]:
        return {"of parameters": self._optimizer.state_dict()["state"]}

    def load(self, state: dict[str, Any]) -> None:
        groups = self._optimizer.state_dict()["param_groups"]
        self._optimizer.load_state_dict({"state": state["of parameters"], "param_groups": groups})


class MeasuredNowAndThen(_Stateless):
    """A plain step, every ``period`` with the critical rate of its batch.

    That of the full batch is the ``reference``'s; another batch's comes with a step of its own.
    """

    def __init__(self, run: Run, period: int, reference: Reference) -> None:
        self._period, self._reference = period, reference
        self._plain, self._measured = plain(run), MeasuredBatch(run)

    def take(self, run: Run, batch: Batch, eta: float) -> Measured:
        if run.iteration % self._period:
            return self._plain.take(run, batch, eta)
        if isinstance(batch, Tensor):
            return self._measured.take(run, batch, eta)
        critical = self._reference.critical(run)
        return self._plain.take(run, batch, eta)[0], critical, math.nan


def plain(run: Run) -> ChainStep | AutogradStep:
    """The fastest step that measures nothing: without autograd for linear layers and ReLUs with one output."""
    return ChainStep(run) if run.layers.chain and run.targets.numel() == len(run.targets) else AutogradStep()


def _differentiated(run: Run, batch: Batch) -> tuple[Tensor, tuple[Tensor, ...]]:
    with full_precision():
        loss = (run.model(run.inputs[batch]) - run.targets[batch]).square().mean()
        gradient = torch.autograd.grad(loss, list(run.parameters.values()))
    return loss, gradient
