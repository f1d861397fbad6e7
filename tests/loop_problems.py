"""Small trainings of every kind. What they gave while there were three loops is stored in ``golden/trainings.json``:
the history's columns, and each parameter's sum and sum of squares."""

from pathlib import Path

import torch
from catapults import models
from catapults.data import Split
from torch import nn

GOLDEN = Path(__file__).parent / "golden" / "trainings.json"
N = 12

GD = {
    "absolute": {"learning_rate": 0.3},
    "relative": {"learning_rate": "1.5 eta_crit", "top": 3},
    "current": {"learning_rate": "0.5; 2: 0.25 eta_crit; 4: 1.3 current eta_crit", "top": [1, 4]},
    "ten outputs": {"learning_rate": "1.2 eta_crit", "outputs": 10, "top": [2, 9]},
    "biases": {"learning_rate": "1.7 eta_crit", "bias": True},
    "PyTorch's layers": {"learning_rate": "1 eta_crit", "parameterization": "pytorch", "bias": True},
    "cnn": {"learning_rate": "1.6 eta_crit", "network": "cnn"},
    "tanh": {"learning_rate": "0.9 eta_crit", "network": "tanh"},
    "Hessian": {"learning_rate": "1.4 eta_crit", "hessian_every": 2},
    "Hessian, cnn": {"learning_rate": "1.1 eta_crit", "network": "cnn", "hessian_every": 2, "outputs": 2},
    "divergence": {"learning_rate": 40.0, "steps": 30},
}
SGD = {
    "without replacement": {"learning_rate": 0.3},
    "with replacement": {"learning_rate": "0.7 eta_crit", "replacement": True, "seed": 3, "break_even_every": 2},
    "cyclical": {"learning_rate": "0.2 eta_crit .. 0.6 eta_crit, 3", "top": [1, 3]},
    "current": {"learning_rate": "0.5 eta_crit; 3: 0.5 current eta_crit", "kernel_every": None, "loss_every": 2},
    "seldom": {"learning_rate": 0.3, "loss_every": 3, "kernel_every": 4, "steps": 9},
    "Hessian": {"learning_rate": "0.5 eta_crit", "hessian_every": 3},
    "below": {"learning_rate": "0.5 eta_crit", "batch_size": N, "stop_below": 0.05, "kernel_every": 5, "steps": 60},
    "frozen": {"learning_rate": 0.3, "frozen": True, "replacement": True},
    "span": {"learning_rate": 0.3, "size": 30, "bias": True, "hessian_every": 4},
    "three outputs": {"learning_rate": "0.5 eta_crit", "outputs": 3},
    "cnn": {"learning_rate": "0.6 eta_crit", "network": "cnn", "hessian_every": 3},
    "divergence": {"learning_rate": "60 eta_crit", "steps": 60},
    "divergence, unseen": {"learning_rate": "60 eta_crit", "steps": 60, "loss_every": 60, "kernel_every": None},
}
FIT = {
    "GD, settle": {"learning_rate": "1.6 eta_crit; 3: 1.5 current eta_crit", "batch_size": N, "settle": 2},
    "GD, unmeasured": {"learning_rate": 0.3, "batch_size": N, "critical_every": None},
    "SGD, measured": {"learning_rate": "0.5 eta_crit"},
    "SGD, now and then": {
        "learning_rate": "0.6 eta_crit",
        "critical_every": 3,
        "replacement": True,
        "evaluate_every": 2,
    },
    "SGD, plain": {"learning_rate": 0.3, "critical_every": None},
    "SGD, plain, outputs": {"learning_rate": 0.3, "critical_every": None, "outputs": 3, "classes": 3},
    "SGD, measured, outputs": {"learning_rate": 0.3, "outputs": 3, "classes": 3, "replacement": True},
    "cnn": {"learning_rate": 0.2, "network": "cnn"},
    "cnn, plain": {"learning_rate": 0.2, "network": "cnn", "critical_every": None},
    **{
        name: {"learning_rate": rate, "optimizer": name, "critical_every": None, "classes": 2}
        for name, rate in (("sgd+m", 0.1), ("adadelta", 1.0), ("adagrad", 0.05), ("rmsprop", 0.01), ("adam", 0.02))
    },
    "patience": {"learning_rate": 0.4, "patience": 2, "steps": 80, "flipped": True},
    "below": {"learning_rate": "0.5 eta_crit", "batch_size": N, "stop_below": 0.05, "evaluate_every": 7, "steps": 100},
    "not below": {"learning_rate": 0.3, "stop_below": None},
    "cyclical": {"learning_rate": "0.1 .. 0.3, 2"},
    "divergence": {"learning_rate": 1e3, "batch_size": N, "critical_every": None, "steps": 60, "evaluate_every": 4},
    "divergence, measured": {"learning_rate": 1e3, "steps": 60, "evaluate_every": 4},
    "divergence at an evaluation": {"learning_rate": 1e25, "steps": 60, "optimizer": "sgd+m", "critical_every": None},
}
KINDS = {"gd": GD, "sgd": SGD, "fit": FIT}
NAMES = [(kind, name) for kind, problems in KINDS.items() for name in problems]


def network(kind: str = "fcn", outputs: int = 1, size: int = 10, **options) -> tuple[nn.Module, torch.Tensor]:
    """A model and inputs for it."""
    torch.manual_seed(1)
    if kind == "cnn":
        return models.cnn(2, 4, 6, 3, outputs, **options), torch.randn(N, 2, 4, 4)
    if kind == "tanh":
        return nn.Sequential(nn.Linear(size, 32), nn.Tanh(), nn.Linear(32, outputs)), torch.randn(N, size)
    return models.fcn(size, 64, 3, outputs, **options), torch.randn(N, size)


def arguments(kind: str, name: str) -> tuple[nn.Module, dict]:
    """A model, and with what it is trained."""
    options = dict(KINDS[kind][name])
    own = {key: options.pop(key) for key in ("outputs", "size", "bias", "parameterization") if key in options}
    model, inputs = network(options.pop("network", "fcn"), **own)
    outputs = own.get("outputs", 1)
    targets = torch.rand(N, outputs) if outputs > 1 else torch.rand(N)
    if options.pop("frozen", False):
        model[-1].requires_grad_(False)
    given = {"model": model, "steps": 8} | options
    if kind != "gd":
        given = {"batch_size": 5} | given
    if kind != "fit":
        return model, {"inputs": inputs, "targets": targets} | given
    if given.get("classes"):
        numbers = torch.arange(N) % given["classes"]
        targets = nn.functional.one_hot(numbers).float() if outputs > 1 else numbers.float()
    validation = Split(inputs + 0.3 * torch.randn(inputs.shape), targets)
    if given.pop("flipped", False):
        validation = Split(inputs.roll(1, 0), 5 * targets.flip(0))
    return model, {"stop_below": 0.0, "training": Split(inputs, targets), "validation": validation} | given


def sums(model: nn.Module) -> list[list[float]]:
    """Of each parameter: its sum and its sum of squares, in float64."""
    numbers = [p.detach().double() for p in model.parameters()]
    return [[p.sum().item(), p.square().sum().item()] for p in numbers]
