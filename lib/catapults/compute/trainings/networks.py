"""The network that an experiment names, at initialisation, with its training set on the device."""

from dataclasses import dataclass
from typing import get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ... import models
from ...data import Task
from ...devices import device as find_device
from ...experiments import Network
from ...experiments.network import Architecture


@dataclass(frozen=True)
class Start:
    """Where a training begins."""

    model: nn.Module
    inputs: Float[Tensor, "n ..."]
    targets: Float[Tensor, "n ..."]
    source: str
    outputs: int

    @property
    def parameters(self) -> int:
        return sum(p.numel() for p in self.model.parameters())

    @property
    def input_norms(self) -> Float[Tensor, " n"]:
        return torch.linalg.vector_norm(self.inputs.flatten(1), dim=1).cpu()


def start(network: Network, task: Task, device: str) -> Start:
    """Data on the device, network at initialisation."""
    place = find_device(device)
    inputs, targets = task.train.inputs.to(place), task.train.targets.to(place)
    outputs = outputs_for(targets)
    return Start(at_initialisation(network, inputs, outputs).to(place), inputs, targets, task.source, outputs)


def outputs_for(targets: Float[Tensor, "n ..."]) -> int:
    """How many outputs a network needs."""
    return 1 if targets.dim() == 1 else targets.shape[1]


def at_initialisation(network: Network, inputs: Float[Tensor, "n ..."], outputs: int) -> nn.Module:
    """Drawn on the CPU, so that a seed gives the same weights on every device."""
    options = {"gain": network.gain, "bias": network.bias, "parameterization": network.parameterization}
    width, depth = network.width, network.depth
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(network.seed)
        if network.architecture == "fcn":
            return models.fcn(inputs[0].numel(), width, depth, outputs, **options)
        channels, size = inputs.shape[1:3]
        if network.architecture == "cnn":
            return models.cnn(channels, size, width, depth, outputs, **options)
        if network.architecture == "vit":
            return models.vit(channels, size, width, depth, outputs, **options)
        if network.architecture == "myrtle":
            return models.myrtle(channels, size, width, outputs, **options)
        if network.architecture == "wrn":
            return models.wide_resnet(channels, size, width, depth, outputs, norm=network.norm, **options)
    raise ValueError(f"architecture = {network.architecture!r}: allowed are {', '.join(get_args(Architecture))}")
