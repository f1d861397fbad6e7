"""The monitor as a callback of the Trainer of Hugging Face (optional: ``pip install transformers accelerate``)."""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import Trainer, TrainerCallback

from .limit import CriticalRate
from .losses import Loss
from .monitor import Monitor
from .readings import Readings


class TrainerMonitor(TrainerCallback):
    """A :class:`catapults.monitor.Monitor` of a trainer, to which it adds itself::

        watch = TrainerMonitor(trainer)
        trainer.train()
        print(watch.readings)

    Sharpness and critical rate go where the trainer reports to, as ``catapults/…``.

    - ``loss``: of the model's logits and the batch's labels, convex in the logits. By default the model's own loss is
      taken, with the whole Hessian as the matrix: a loss that the model computes inside says nothing of its outputs.
    - ``limit``: c of a :class:`catapults.monitor.CriticalRate`; by default the rate is not lowered.
    - ``options``: of the monitor.
    """

    def __init__(self, trainer: Trainer, loss: Loss | None = None, limit: float | None = None, **options: Any) -> None:
        self._trainer, self._limit = trainer, limit
        self._loss = loss or (lambda value, labels: value)
        self._options = {"matrix": "hessian" if loss is None else "gauss-newton"} | options
        self._forward = _own_loss if loss is None else _logits
        self.watch: Monitor | None = None
        self._handle: Any = None
        trainer.add_callback(self)

    @property
    def readings(self) -> Readings:
        """Of all steps until now."""
        return Readings() if self.watch is None else self.watch.readings

    def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        model = self._trainer.accelerator.unwrap_model(given["model"])
        self.watch = Monitor(model, self._loss, given["optimizer"], forward=self._forward, **self._options)
        if self._limit is not None:
            CriticalRate(self.watch, self._limit)
        self._handle = model.register_forward_hook(self._seen, with_kwargs=True)

    def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        if self.watch.last:
            self._trainer.log(dict(self.watch.last))

    def on_train_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        self._handle.remove()
        self.watch.close()

    def _seen(self, model: nn.Module, arguments: tuple, batch: dict[str, Any], outputs: Any) -> None:
        """A forward pass of the trainer's own: a callback is not told its batch."""
        if model.training and torch.is_grad_enabled() and not self.watch.measuring:
            batch = {key: value for key, value in batch.items() if isinstance(value, Tensor)}
            self.watch.before_step(batch, batch.get("labels"), getattr(outputs, "loss", None))


def _own_loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    return model(**batch).loss


def _logits(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    return model(**batch).logits
