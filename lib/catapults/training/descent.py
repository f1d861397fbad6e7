"""Gradient descent under the MSE of eq. (1), measured at every step."""

from collections.abc import Sequence

from jaxtyping import Shaped
from torch import Tensor, nn

from .. import schedules, tangent
from ..checks import whole_number
from ..history import History
from ..schedules import LearningRate, LearningRates
from .loop import Checkpoint, Loop, check_last, check_tops, checked, own_mode, problem_of
from .probes import Quantity, names_of
from .run import FullBatch, Rate, Run
from .steps import WholeBatch


@own_mode()
def gradient_descent(
    model: nn.Module,
    inputs: Shaped[Tensor, "n ..."],
    targets: Shaped[Tensor, "n ..."],
    learning_rate: int | float | str | LearningRate | LearningRates,
    steps: int,
    top: int | Sequence[int] = 5,
    hessian_every: int | None = None,
    progress: bool = False,
    *,
    quantities: Sequence[Quantity] = (),
    checkpoint: Checkpoint | None = None,
) -> History:
    """Full-batch gradient descent on ``mean((f - y)^2)``, measured at every step; the model's weights are changed.

    - ``model``: what :func:`catapults.tangent.linearize` takes.
    - ``inputs``, ``targets``: as many samples; the targets are numbers of any type, as many a sample as outputs.
    - ``learning_rate``: what :func:`catapults.schedules.parse` reads.
    - ``steps``: how many are taken, unless the training diverges.
    - ``top``: the dimension s of the top eigenspace in which the loss is split, or several in ascending order.
    - ``hessian_every``: measure the Hessian's critical rate every that many iterations, which costs several steps' time
      each; ``None``: never.
    - ``progress``: show a bar.
    - ``quantities``: what else to measure.
    - ``checkpoint``: where to save the training's state when it is due, and from which to go on, bit for bit.

    Every step costs one forward and one backward pass, the tangent kernel included. A kernel that does not fit in
    memory is not formed: its top eigenspace comes from products with vectors. Divergence ends the run early with a
    :class:`Diverged` warning: the loss in the last state is then the one that was reached.

    Raises ``ValueError`` for a rate that is not positive or is set after the last step, steps or ``hessian_every``
    below 1, ``top`` outside 1 ... n c - 1, targets whose number differs from the outputs', inputs or targets that are
    not finite, a checkpoint of another training, and models whose tangent kernel does not exist, is not finite or,
    where the rate is a multiple, is zero; ``TypeError`` for inputs or targets that are no tensors.
    """
    schedule = schedules.parse(learning_rate)
    whole_number(1, steps=steps)
    if hessian_every is not None:
        whole_number(1, hessian_every=hessian_every)
    check_last(learning_rate, schedule.last, steps)
    inputs, targets = checked(model, inputs=inputs, targets=targets)
    tops = check_tops(top, targets.numel())
    names = names_of(quantities)

    run = Run(model, inputs, targets, tangent.layers(model, inputs), steps, tops, names)
    step = WholeBatch(hessian_every)
    problem = problem_of(
        training="gradient descent", learning_rate=schedule, n=len(inputs), top=tops, hessian_every=hessian_every,
        quantities=names,
    )  # fmt: skip
    loop = Loop(run, Rate(schedule, step), FullBatch(), step, 0, [step, *quantities], problem)
    return loop.train("gradient descent", progress, checkpoint)
