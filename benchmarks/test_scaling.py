"""A step with the tangent kernel over the number of samples: time, memory, and accuracy against float64."""

import copy
from dataclasses import replace
from statistics import median

import memory
import pytest
import torch
from catapults.experiments.scaling import errors, our_steps, plain_steps
from contestants import AT_SCALE, LARGEST, TOLERANCE, TOP
from scipy.sparse.linalg import eigsh

ROUNDS = {128: 20, 500: 10, 1000: 6, 2000: 4, LARGEST: 3}
RATE = "0.5 eta_crit"


@pytest.mark.parametrize("n", ROUNDS)
@pytest.mark.parametrize("name", AT_SCALE)
def test_step_at_scale(benchmark, table_at_scale, name, n):
    """Two plain steps and two of ours after a first one in turn, from the same weights; ours as its loop times them."""
    case = replace(AT_SCALE[name], n=n)
    benchmark.group = name
    model, (inputs, targets) = case.model(), case.data()
    targets = targets.flatten()
    found = errors(copy.deepcopy(model), inputs, targets, RATE, TOP, _top if n == LARGEST else torch.linalg.eigh)
    assert found.norm <= TOLERANCE

    start = copy.deepcopy(model.state_dict())
    plain, ours, first = [], [], []

    def one_round() -> None:
        model.load_state_dict(start)
        cold, warm, eta = our_steps(model, inputs, targets, RATE, TOP)
        model.load_state_dict(start)
        plain.extend(plain_steps(model, inputs, targets, eta))
        ours.extend(warm)
        first.append(cold)

    one_round()
    plain.clear(), ours.clear(), first.clear()
    benchmark.pedantic(one_round, rounds=ROUNDS[n])
    row = {"plain": median(plain), "ours": median(ours), "first": median(first), "error": found.largest, "mib": None}
    row["ratio"] = row["ours"] / row["plain"]
    if n == LARGEST:
        peaks = [memory.in_fresh_process(name, step) for step in ("our step", "plain step")]
        row["mib"] = None if None in peaks else peaks[0] - peaks[1]
    benchmark.extra_info.update(row)
    table_at_scale[name][n] = row


def _top(kernel: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """By Lanczos iteration to float64's accuracy: a full decomposition would take minutes."""
    values, vectors = eigsh(kernel.numpy(), k=TOP + 1, which="LA", tol=1e-10)
    return torch.from_numpy(values), torch.from_numpy(vectors)
