"""Time and peak memory of a step with the tangent kernel, and of the kernel alone, beside the alternatives."""

import time
from statistics import median

import memory
import pytest
import torch
from catapults import tangent, training
from contestants import CASES, CONTESTANTS, RATE, TOLERANCE, TOP, Case, our_step, plain_step

SECONDS = 20  # for one contestant; at least 3 rounds in any case


@pytest.mark.parametrize("contestant", CONTESTANTS)
@pytest.mark.parametrize("name", CASES)
def test_contestant(benchmark, table, name, contestant):
    case = CASES[name]
    benchmark.group = name
    try:
        with CONTESTANTS[contestant](case) as ready:
            kernel = ready.run()
            started = time.perf_counter()
            ready.run()
            affordable = int(SECONDS / (time.perf_counter() - started))
            if kernel is not None:
                expected = tangent.tangent_kernel(ready.model, case.data()[0])
                assert (kernel - expected).norm() <= TOLERANCE * expected.norm()
            benchmark.pedantic(ready.run, rounds=min(case.rounds, max(3, affordable)))
    except ModuleNotFoundError as missing:
        table[name][contestant] = str(missing)
        pytest.skip(str(missing))
    mib = benchmark.extra_info["peak_mib"] = memory.in_fresh_process(name, contestant)
    table[name][contestant] = benchmark.stats.stats.median, benchmark.stats.stats.min, mib


@pytest.mark.parametrize("name", CASES)
def test_step_round_by_round(benchmark, table, name):
    """Both steps in turn on the same weights, so that a slow spell of the machine hits both: the ratio to report.

    Ours is timed by the library itself, in its own loop.
    """
    case = CASES[name]
    _check_that_steps_agree(case)
    benchmark.group = name
    inputs, targets = case.data()
    plain, ours = [], []
    with plain_step(case) as ready:

        def one_round() -> None:
            started = time.perf_counter()
            ready.run()
            plain.append(time.perf_counter() - started)
            history = training.gradient_descent(ready.model, inputs, targets, RATE, steps=2, top=TOP)
            ours.append(history.seconds[1])  # the first one looks before it leaps

        one_round()
        plain.clear(), ours.clear()
        benchmark.pedantic(one_round, rounds=case.rounds)
    figures = {"ratio": median(ours) / median(plain), "ratio_of_best": min(ours) / min(plain)}
    benchmark.extra_info.update(figures, plain_median=median(plain), our_median=median(ours))
    table[name]["round by round"] = figures


def _check_that_steps_agree(case: Case) -> None:
    """Both steps and the library's own loop change the weights in the same way, in float64."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        start, in_loop = case.model(), case.model()
        with plain_step(case) as plain, our_step(case) as ours:
            plain.run()
            ours.run()
        training.gradient_descent(in_loop, *case.data(), RATE, steps=1, top=TOP)
    finally:
        torch.set_default_dtype(before)
    for old, *new in zip(*(m.parameters() for m in (start, plain.model, ours.model, in_loop)), strict=True):
        expected, *changes = (weight - old for weight in new)
        assert expected.norm() > 0
        assert all((change - expected).norm() <= TOLERANCE * expected.norm() for change in changes)
