"""A monitor in a training loop of any kind: it is told the batches, and reads the rest off the optimiser's hooks."""

import math
from collections.abc import Callable
from time import perf_counter
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from ..checks import whole_number
from .curvature import Batch, Curvature, Forward, Matrix
from .losses import Loss
from .probe import Probe
from .readings import Reading, Readings
from .thresholds import Threshold, Unknown, threshold


class Monitor:
    """Reads loss, rate, sharpness and critical rate of a training's steps, and says why its loss spikes::

        watch = Monitor(model, loss, optimizer)
        for x, y in batches:
            value = loss(model(x), y)
            value.backward()
            watch.before_step(x, y, value)
            optimizer.step()
        print(watch.readings)

    Measured is when the optimiser is about to step. The training's numbers stay what they were without a monitor, to
    the last bit: weights, gradients, buffers and random numbers are left alone. A measurement that fails is recorded
    with its reason, and training goes on.

    - ``model``, ``optimizer``: on one device; wrappers such as DistributedDataParallel are looked through. The
      optimiser is one of torch.optim's SGD, Adam, AdamW and RMSprop (:mod:`.thresholds`); of another one, losses and
      rates are recorded, and the reason why nothing else is.
    - ``loss``: of outputs and targets, one number, the one that is trained on; convex in the outputs (MSE,
      cross-entropy) unless ``matrix`` is ``"hessian"``.
    - ``every``: steps between two measurements of the sharpness, a whole number.
    - ``probe``: a pair of tensors, inputs and targets. On these are measured the norm of the tangent kernel, the parts
      of the squared residual in its top eigenspace and outside, and the alignment of the AGOP with the first one.
    - ``probe_every``: steps between two of these; by default ``every``.
    - ``top``: eigenvectors of the probe's kernel that span its top eigenspace.
    - ``matrix``: ``"gauss-newton"`` or ``"hessian"``, whose largest eigenvalue the sharpness is.
    - ``forward``: ``forward(model, inputs)`` gives the outputs; by default ``model(inputs)``.

    Raises ``ValueError`` for a model without a trainable parameter, for parameters of the optimiser that are not the
    model's, and for numbers that are not allowed; ``TypeError`` for a loss that cannot be called.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        optimizer: torch.optim.Optimizer,
        every: int = 20,
        probe: tuple[Tensor, Tensor] | None = None,
        *,
        probe_every: int | None = None,
        top: int = 1,
        matrix: Matrix = "gauss-newton",
        forward: Forward | None = None,
    ) -> None:
        whole_number(1, every=every, top=top)
        whole_number(1, probe_every=every if probe_every is None else probe_every)
        if not callable(loss):
            raise TypeError(f"loss: {type(loss).__name__}; allowed is a function of outputs and targets")
        if matrix not in ("gauss-newton", "hessian"):
            raise ValueError(f"matrix = {matrix!r}: allowed are gauss-newton, hessian")
        if isinstance(model, nn.parallel.DistributedDataParallel | nn.DataParallel):
            model = model.module
        while isinstance(getattr(optimizer, "optimizer", None), torch.optim.Optimizer):
            optimizer = optimizer.optimizer
        if not isinstance(optimizer, torch.optim.Optimizer):
            raise TypeError(f"optimizer: {type(optimizer).__name__}; allowed is a torch.optim.Optimizer")
        own = {id(p) for p in model.parameters()}
        if not any(p.requires_grad for p in model.parameters()):
            raise ValueError("model: none of its parameters requires a gradient; allowed is at least one")
        if any(id(p) not in own for group in optimizer.param_groups for p in group["params"]):
            raise ValueError("optimizer: has parameters that are not the model's; allowed are the model's own")
        self._readings = Readings(optimizer=type(optimizer).__name__)
        self.optimizer = optimizer
        self.every = every
        self._model, self._loss = model, loss
        self._probe = None if probe is None else Probe(*probe, top)
        self._probe_every = every if probe_every is None else probe_every
        self._curvature = Curvature(model, loss, matrix, forward)
        self._batches: list[Batch] = []
        self._values: list[Tensor | float] = []
        self._given: dict[int, list[Tensor | float]] = {}  # losses of steps, on whatever device they are
        self._step = 0
        self._handles = [
            optimizer.register_step_pre_hook(self._stepping),
            optimizer.register_step_post_hook(lambda *_: self._after()),
        ]
        self.measuring = False
        self.limits: list[Callable[[Reading], None]] = []  # called before a step with what was read
        self.ends: list[Callable[[], None]] = []  # called after it

    def before_step(self, inputs: Any, targets: Any, loss: Tensor | float | None = None) -> None:
        """Say on which batch the coming step's gradient was taken; more than once where gradients are accumulated.

        The step's loss is the mean over these batches. ``loss``: its value on the batch, which is known in a training
        loop; without it the loss is only known at measured steps.
        """
        self._batches.append((inputs, targets))
        self._values.append(math.nan if loss is None else loss.detach().clone() if isinstance(loss, Tensor) else loss)

    @property
    def readings(self) -> Readings:
        """Of all steps until now."""
        self._known()
        return self._readings

    def tell_loss(self, loss: Tensor | float) -> None:
        """The loss of the last step, where it is known only after it."""
        if self._step:
            self._given[self._step - 1] = [loss]

    @property
    def waiting(self) -> bool:
        """Whether batches have been told whose step has not been made."""
        return bool(self._batches)

    @property
    def last(self) -> dict[str, float]:
        """What was measured at the last step, by names for a logger; empty where nothing was."""
        row = self._readings.rows[-1] if self._readings.rows else Reading(0)
        names = ("sharpness", "critical", "applied", "norm", "alignment")
        found = {name: getattr(row, name) for name in names if not math.isnan(getattr(row, name))}
        return {f"catapults/{name}": value for name, value in found.items()} if len(found) > 1 else {}

    def close(self) -> None:
        """Stop reading; the readings stay."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def __enter__(self) -> "Monitor":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _stepping(self, optimizer: torch.optim.Optimizer, given: tuple, named: dict[str, Any]) -> tuple | None:
        """Before a step; where the gradient is taken inside it, by a closure, as soon as it is."""
        closure = named.get("closure", given[1] if len(given) > 1 else None)
        if closure is None:
            self._before()
            return None

        def then_read() -> Any:
            value = closure()
            self._before()
            return value

        return given[:1], named | {"closure": then_read}

    def _before(self) -> None:
        reading = Reading(self._step, rate=float(self.optimizer.param_groups[0]["lr"]))
        self._readings.rows.append(reading)
        started = perf_counter()
        due = self._step % self.every == 0
        if due and self._batches:
            self._try(reading, self._sharpness)
        elif due:
            reading.reason = "before_step was not called since the step before"
        if self._probe is not None and self._step % self._probe_every == 0:
            self._try(reading, self._probed)
        reading.seconds = perf_counter() - started
        reading.applied = reading.rate
        if self._values:
            self._given[self._step] = self._values
        for limit in self.limits:
            limit(reading)

    def _after(self) -> None:
        self._batches, self._values = [], []
        self._step += 1
        for end in self.ends:
            end()
        if self._step % 100 == 0:
            self._known()

    def _known(self) -> None:
        """Fetch the losses of steps from their device, many at a time."""
        for step, values in self._given.items():
            value = sum(float(value) for value in values) / len(values)
            if not math.isnan(value) or math.isnan(self._readings.rows[step].loss):
                self._readings.rows[step].loss = value
        self._given = {}

    def _try(self, reading: Reading, measure: Callable[[Reading], None]) -> None:
        self.measuring = True
        try:
            with torch.enable_grad():
                measure(reading)
        except Exception as error:  # whatever it is, it is not the training's
            reason = f"{type(error).__name__}: {error}" if not isinstance(error, ValueError) else str(error)
            reading.reason = "; ".join(filter(None, [reading.reason, reason.splitlines()[0] if reason else "?"]))
        finally:
            self.measuring = False

    def _sharpness(self, reading: Reading) -> None:
        step: Threshold = threshold(self.optimizer)
        measured = self._curvature(self._batches, step)
        if not measured.converged:
            reading.reason = "the sharpness did not converge; it is larger, and the critical rate smaller"
        reading.sharpness, reading.products = measured.value, measured.products
        reading.critical, reading.loss = step.critical(measured.value), measured.loss

    def _probed(self, reading: Reading) -> None:
        probed = self._probe(self._model, self._loss)
        reading.probe_loss, reading.norm = probed.loss, probed.norm
        reading.top, reading.rest, reading.alignment = probed.top, probed.rest, probed.alignment


__all__ = ["Monitor", "Unknown"]
