"""Training with a validation set: the best weights, how well they do, and the catapults before (section 4)."""

import math
from collections.abc import Sequence
from typing import Literal, get_args

from torch import nn

from .. import schedules, tangent
from ..checks import whole_number
from ..data import Split
from ..history import History
from ..schedules import Cyclical, LearningRate, LearningRates
from .loop import Checkpoint, Loop, check_last, check_stop_below, checked, own_mode, problem_of
from .probes import CriticalRate, Evaluation, Quantity, names_of
from .run import Batches, FullBatch, Rate, Run, matching
from .steps import MeasuredNowAndThen, OptimizerStep, Step, plain

Optimizer = Literal["sgd", "sgd+m", "adadelta", "adagrad", "rmsprop", "adam"]


@own_mode()
def fit(
    model: nn.Module,
    training: Split,
    validation: Split,
    learning_rate: int | float | str | LearningRate | LearningRates,
    batch_size: int,
    steps: int,
    *,
    classes: int | None = None,
    optimizer: Optimizer = "sgd",
    replacement: bool = False,
    seed: int = 0,
    stop_below: float | None = 1e-3,
    evaluate_every: int = 1,
    critical_every: int | None = 1,
    settle: int | None = None,
    patience: int | None = None,
    progress: bool = False,
    quantities: Sequence[Quantity] = (),
    checkpoint: Checkpoint | None = None,
) -> History:
    """Train on ``mean((f - y)^2)`` and leave the model at the weights with the best validation loss or error.

    - ``model``: what :func:`catapults.tangent.linearize` takes.
    - ``training``, ``validation``: the two sets.
    - ``learning_rate``: what :func:`catapults.schedules.parse` reads; multiples are of n / ||K|| on the training set,
      or on its first 5,000 samples.
    - ``batch_size``: all samples make gradient descent.
    - ``steps``: how many are taken at most.
    - ``classes``: how many the targets stand for, of which the error is counted; ``None`` for regression.
    - ``optimizer``: plain SGD, or one of PyTorch's with its own settings (momentum 0.9 for ``sgd+m``).
    - ``replacement``, ``seed``: as in :func:`catapults.sgd.stochastic_gradient_descent`.
    - ``stop_below``: end when the loss of the training set is below, which is checked every ``evaluate_every`` steps;
      ``None`` disables the check.
    - ``evaluate_every``: steps from one evaluation to the next.
    - ``critical_every``: measure the batch's critical rate every that many steps; ``None``: never.
    - ``settle``: that many steps after the last change of the rate a rate that exceeds the critical one is lowered to
      half of that, whenever it is measured (appendix F.4: "to avoid extra catapults"); for gradient descent.
    - ``patience``: end after that many evaluations without a better one; ``None``: do not.
    - ``progress``: show a bar.
    - ``quantities``: what else to measure.
    - ``checkpoint``: where to save the training's state when it is due, and from which to go on, bit for bit.

    Divergence ends the run early with a :class:`Diverged` warning.

    Raises ``ValueError`` for parameters out of their range, inputs or targets that are not finite, a checkpoint of
    another training, and models whose tangent kernel does not exist, is not finite or, where the rate is a multiple, is
    zero; ``TypeError`` for inputs or targets that are no tensors.
    """
    schedule = schedules.parse(learning_rate)
    n = len(training)
    whole_number(1, steps=steps, evaluate_every=evaluate_every)
    whole_number(1, math.inf if replacement else n, batch_size=batch_size)
    whole_number(0, seed=seed)
    optional = {"critical_every": critical_every, "settle": settle, "patience": patience}
    whole_number(1, **{name: value for name, value in optional.items() if value is not None})
    if optimizer not in get_args(Optimizer):
        raise ValueError(f"optimizer = {optimizer!r}: allowed are {', '.join(get_args(Optimizer))}")
    if optimizer != "sgd" and critical_every is not None:
        raise ValueError(f"critical_every = {critical_every!r}: optimizer {optimizer!r} has no critical rate; use None")
    if settle is not None and (batch_size != n or critical_every is None or isinstance(schedule, Cyclical)):
        allowed = "allowed for gradient descent with critical_every and no cycles of the rate, else None"
        raise ValueError(f"settle = {settle!r}: {allowed}")
    if stop_below is not None:
        check_stop_below(stop_below, " and None")
    if len(validation) == 0:
        raise ValueError("validation: holds no sample; allowed is at least one")
    check_last(learning_rate, schedule.last, steps)
    names = names_of(quantities)
    sets = []
    for name, split in {"training": training, "validation": validation}.items():
        inputs, targets = checked(model, **{f"{name}.inputs": split.inputs, f"{name}.targets": split.targets})
        sets.append((inputs, targets))

    run = Run(model, *sets[0], tangent.layers(model, sets[0][0]), steps, quantities=names)
    training, validation = (Split(inputs, matching(model, inputs, targets)) for inputs, targets in sets)
    reference = CriticalRate()
    step: Step
    if optimizer != "sgd":
        step = OptimizerStep(run, optimizer)
    elif critical_every is None:
        step = plain(run)
    else:
        step = MeasuredNowAndThen(run, critical_every, reference)
    evaluation = Evaluation(None if stop_below is None else training, validation, classes, evaluate_every)
    loop = Loop(
        run=run,
        rate=Rate(schedule, reference, settle, critical_every),
        batches=FullBatch() if batch_size == n else Batches(n, batch_size, replacement, seed),
        step=step,
        batch_size=0 if batch_size == n else batch_size,
        probes=[evaluation, reference, *quantities],
        problem=problem_of(
            training=optimizer, learning_rate=schedule, batch_size=batch_size, n=n, replacement=replacement, seed=seed,
            classes=classes, stop_below=stop_below, evaluate_every=evaluate_every, critical_every=critical_every,
            settle=settle, patience=patience, quantities=names,
        ),
        stop_below=stop_below or 0.0,
        rules=[] if patience is None else [lambda run: len(run.evaluations) - 1 - run.best >= patience],
    )  # fmt: skip
    history = loop.train("training", progress, checkpoint)
    model.load_state_dict(evaluation.best_weights)
    return history
