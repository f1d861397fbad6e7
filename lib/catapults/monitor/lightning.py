"""The monitor as a callback of Lightning (optional: ``pip install lightning``)."""

from collections.abc import Callable
from typing import Any

from .curvature import Batch
from .limit import CriticalRate
from .losses import Loss
from .monitor import Monitor
from .readings import Readings

try:
    from lightning.pytorch import Callback, LightningModule, Trainer
except ImportError:  # the same under its older name
    from pytorch_lightning import Callback, LightningModule, Trainer


class LightningMonitor(Callback):
    """A :class:`catapults.monitor.Monitor` of the first optimiser of a training with automatic optimisation::

        watch = LightningMonitor(nn.MSELoss())
        Trainer(callbacks=[watch]).fit(model, batches)
        print(watch.readings)

    Sharpness, critical rate and what the probe says go to the trainer's loggers, as ``catapults/…``.

    - ``loss``: of outputs and targets, the one that ``training_step`` returns.
    - ``batch``: makes inputs and targets of what the loader yields; by default they are its two parts.
    - ``limit``: c of a :class:`catapults.monitor.CriticalRate`; by default the rate is not lowered.
    - ``options``: of the monitor.
    """

    def __init__(
        self,
        loss: Loss,
        batch: Callable[[Any], Batch] = tuple,
        limit: float | None = None,
        **options: Any,
    ) -> None:
        self._loss, self._batch, self._limit, self._options = loss, batch, limit, options
        self.watch: Monitor | None = None
        self._losses: list[Any] = []

    @property
    def readings(self) -> Readings:
        """Of all steps until now."""
        return Readings() if self.watch is None else self.watch.readings

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        self.watch = Monitor(module, self._loss, trainer.optimizers[0], **self._options)
        if self._limit is not None:
            CriticalRate(self.watch, self._limit)

    def on_train_batch_start(self, trainer: Trainer, module: LightningModule, batch: Any, *_: Any) -> None:
        self.watch.before_step(*self._batch(batch))

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, outputs: Any, *_: Any) -> None:
        loss = outputs["loss"] if isinstance(outputs, dict) else outputs
        if loss is not None:
            self._losses.append(loss.detach() * trainer.accumulate_grad_batches)
        if self.watch.waiting:  # for more batches of the same step
            return
        if self._losses:
            self.watch.tell_loss(sum(self._losses) / len(self._losses))
        self._losses = []
        for logger in trainer.loggers if self.watch.last else ():
            logger.log_metrics(self.watch.last, step=trainer.global_step)

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        self.watch.close()
