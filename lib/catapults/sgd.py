"""Stochastic gradient descent under the MSE of eq. (1), with the tangent kernel of every batch (section 3.3)."""

import math
from collections.abc import Sequence

from jaxtyping import Shaped
from torch import Tensor, nn

from . import schedules, tangent
from .checks import whole_number
from .history import History
from .schedules import LearningRate, LearningRates
from .tangent.span import within_span
from .training.loop import (
    Checkpoint,
    Loop,
    belonging,
    check_last,
    check_stop_below,
    check_tops,
    checked,
    own_mode,
    problem_of,
)
from .training.probes import Quantity, WholeSetNowAndThen, names_of
from .training.run import Batches, Rate, Run
from .training.steps import MeasuredBatch


@own_mode()
def stochastic_gradient_descent(
    model: nn.Module,
    inputs: Shaped[Tensor, "n ..."],
    targets: Shaped[Tensor, "n ..."],
    learning_rate: int | float | str | LearningRate | LearningRates,
    batch_size: int,
    steps: int,
    *,
    replacement: bool = False,
    seed: int = 0,
    stop_below: float = 0.0,
    top: int | Sequence[int] = 1,
    loss_every: int = 1,
    kernel_every: int | None = 1,
    hessian_every: int | None = None,
    break_even_every: int | None = None,
    progress: bool = False,
    quantities: Sequence[Quantity] = (),
    checkpoint: Checkpoint | None = None,
) -> History:
    """Mini-batch SGD on ``mean((f - y)^2)``, every batch with its tangent kernel; the model's weights are changed.

    - ``model``: what :func:`catapults.tangent.linearize` takes. A fully connected network is trained within its inputs'
      span.
    - ``inputs``, ``targets``: as many samples; the targets are numbers of any type, as many a sample as outputs.
    - ``learning_rate``: what :func:`catapults.schedules.parse` reads; multiples are of n / ||K|| on the whole training
      set.
    - ``batch_size``: samples in a batch.
    - ``steps``: how many are taken at most.
    - ``replacement``: every batch is ``batch_size`` independent draws; otherwise the set is shuffled and cut into
      batches, and once more when fewer than a batch are left.
    - ``seed``: of the draws.
    - ``stop_below``: end when the loss of the training set is below.
    - ``top``: as in :func:`catapults.training.gradient_descent`.
    - ``loss_every``: measure the whole set's loss, and ``batch_loss_after``, every that many steps: a forward pass.
    - ``kernel_every``: measure the whole set's kernel and the split of the loss every that many steps; ``None``: never.
    - ``hessian_every``: measure the batch's Hessian every that many steps; ``None``: never.
    - ``break_even_every``: measure every that many steps at which rates the step would leave the losses of the batch
      and of the whole set as they are: a forward and a backward pass of the whole set; ``None``: never.
    - ``progress``: show a bar.
    - ``quantities``: what else to measure, on the whole set.
    - ``checkpoint``: where to save the training's state when it is due, and from which to go on, bit for bit.

    A step costs one forward and one backward pass on the batch, its kernel and critical rate included. All that belongs
    to the whole set is measured at the end once more. Divergence ends the run early with a
    :class:`catapults.training.Diverged` warning; the step whose batch has shown it is not taken.

    Raises ``ValueError`` as :func:`catapults.training.gradient_descent`, for a batch without samples or, without
    replacement, larger than the training set, and for a ``stop_below`` that is negative.
    """
    schedule = schedules.parse(learning_rate)
    inputs, targets = checked(model, inputs=inputs, targets=targets)
    n = len(inputs)
    whole_number(1, steps=steps, loss_every=loss_every)
    periods = {"kernel_every": kernel_every, "hessian_every": hessian_every, "break_even_every": break_even_every}
    whole_number(1, **{name: period for name, period in periods.items() if period is not None})
    whole_number(0, seed=seed)
    whole_number(1, math.inf if replacement else n, batch_size=batch_size)
    check_stop_below(stop_below)
    check_last(learning_rate, schedule.last, steps)
    tops = check_tops(top, targets.numel())
    names = names_of(quantities)

    layers = tangent.layers(model, inputs)
    problem = problem_of(
        training="SGD", learning_rate=schedule, batch_size=batch_size, n=n, replacement=replacement, seed=seed,
        stop_below=stop_below, top=tops, loss_every=loss_every, kernel_every=kernel_every, hessian_every=hessian_every,
        break_even_every=break_even_every, quantities=names,
    )  # fmt: skip
    if checkpoint is not None and (saved := checkpoint.load()) is not None:
        model.load_state_dict(belonging(saved, problem)["fixed"], strict=False)
    outside = dict(model.state_dict())
    with within_span(model, inputs, layers.chain) as coordinates:
        inside = model.state_dict()
        replaced = {name: value for name, value in outside.items() if value.shape != inside[name].shape}
        run = Run(model, coordinates, targets, layers, steps, tops, names, keeps_batches=True)
        whole = WholeSetNowAndThen(schedule, loss_every, kernel_every)
        loop = Loop(
            run=run,
            rate=Rate(schedule, whole),
            batches=Batches(n, batch_size, replacement, seed),
            step=MeasuredBatch(run, hessian_every, break_even_every),
            batch_size=batch_size,
            probes=[whole, *quantities],
            problem=problem,
            stop_below=stop_below,
            fixed=replaced,
        )
        return loop.train("SGD", progress, checkpoint)
