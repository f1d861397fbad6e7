"""What is timed: a training step without and with the tangent kernel, and the kernel alone by several libraries."""

import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf
from pathlib import Path
from subprocess import PIPE
from typing import NamedTuple

import numpy as np
import torch
from catapults import models, tangent
from catapults.tangent.eigenspace import top_eigenpairs
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

N = 128
RATE = 1e-3
TOP = 5
TOLERANCE = 1e-3  # relative, of kernels and of what follows from them
PEERS = Path(__file__).parents[1] / ".venv-peers" / "bin" / "python"


@dataclass(frozen=True)
class Case:
    """A network with its data, and what a step with the kernel may cost compared with a plain step."""

    network: Callable[..., nn.Sequential]
    sizes: tuple[int, ...]
    sample: tuple[int, ...]
    rounds: int
    allowed_ratio: float
    allowed_mib: float  # of peak memory above the plain step's
    n: int = N

    def model(self, parameterization: models.Parameterization = "ntk") -> nn.Sequential:
        torch.manual_seed(0)
        return self.network(*self.sizes, parameterization=parameterization)

    def data(self) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(1)
        inputs = torch.randn(self.n, *self.sample, generator=generator)
        return inputs, torch.randn(self.n, 1, generator=generator)


CASES = {
    "FCN": Case(models.fcn, (3072, 1024, 5), (3072,), rounds=30, allowed_ratio=1.3, allowed_mib=30),
    "CNN": Case(models.cnn, (3, 32, 64), (3, 32, 32), rounds=7, allowed_ratio=1.2, allowed_mib=500),
}


LARGEST = 5000
_MIB = 1.5 * LARGEST**2 * 4 / 2**20  # one and a half kernels
AT_SCALE = {  # what memory is measured of; the time of a step is bounded for the first one only
    "two-layer": Case(models.fcn, (3072, 1024, 2), (3072,), 0, 6.5, _MIB, LARGEST),
    "two-layer, 100 inputs": Case(models.fcn, (100, 1024, 2), (100,), 0, inf, _MIB, LARGEST),
    "convolutional": Case(models.cnn, (3, 8, 8), (3, 8, 8), 0, inf, _MIB, LARGEST),
}


class Ready(NamedTuple):
    """A contestant that is set up: everything from here on is timed."""

    run: Callable[[], Tensor | None]  # returns the kernel, if it is all that is computed
    model: nn.Module  # which is trained, or has this kernel
    process: int  # whose memory counts


@contextmanager
def plain_step(case: Case) -> Iterator[Ready]:
    """A step of gradient descent by autograd and ``torch.optim.SGD``, nothing measured."""
    model, (inputs, targets) = case.model(), case.data()
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)

    def run() -> None:
        optimizer.zero_grad()
        nn.functional.mse_loss(model(inputs), targets).backward()
        optimizer.step()

    yield Ready(run, model, os.getpid())


@contextmanager
def our_step(case: Case) -> Iterator[Ready]:
    """The calls of a step in ``catapults.training.gradient_descent``: kernel, top eigenspace, split, update."""
    model, (inputs, targets) = case.model(), case.data()
    layers = tangent.layers(model, inputs)
    parameters = dict(model.named_parameters())
    pairs = None

    def run() -> None:
        nonlocal pairs
        linearization = tangent.linearize(model, inputs, layers)
        residual = linearization.outputs - targets
        kernel, _ = linearization.kernel_and_vjp(residual * (-2 * RATE / case.n), add_to=parameters)
        pairs = top_eigenpairs(kernel, TOP, pairs and pairs.start)
        tangent.split_by_eigenvectors(residual.flatten(), pairs.vectors[:, -TOP:])

    yield Ready(run, model, os.getpid())


@contextmanager
def our_kernel(case: Case) -> Iterator[Ready]:
    """``tangent_kernel``, with its trial run that sorts the layers."""
    model, (inputs, _) = case.model(), case.data()
    yield Ready(lambda: tangent.tangent_kernel(model, inputs), model, os.getpid())


@contextmanager
def torch_func(case: Case) -> Iterator[Ready]:
    """Every sample's gradient by ``vmap(grad)``, then the sum of the layers' Gram matrices."""
    model, (inputs, _) = case.model(), case.data()
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    gradients = vmap(grad(lambda p, x: functional_call(model, p, (x[None],)).squeeze()), (None, 0))

    def run() -> Tensor:
        by_layer = [gradient.flatten(1) for gradient in gradients(parameters, inputs).values()]
        return sum(gradient @ gradient.T for gradient in by_layer)

    yield Ready(run, model, os.getpid())


@contextmanager
def nngeometry(case: Case) -> Iterator[Ready]:
    """``GramMatrix`` of nngeometry, which knows PyTorch's own layers only: the scales are put into the weights."""
    from nngeometry.gram import GramMatrix

    model, (inputs, _) = case.model("pytorch"), case.data()
    with torch.no_grad():
        for ours, plain in zip(case.model(), model, strict=True):
            if hasattr(ours, "scale"):
                plain.weight.copy_(ours.weight * ours.scale)
    yield Ready(lambda: GramMatrix(model, (inputs,)).to_torch().view(N, N), model, os.getpid())


@contextmanager
def neural_tangents(case: Case) -> Iterator[Ready]:
    """Structured derivatives of neural-tangents in an interpreter of its own, told through a pipe to compute."""
    if not PEERS.exists():
        raise ModuleNotFoundError("no .venv-peers; benchmarks/peers.sh makes it")
    model, (inputs, _) = case.model(), case.data()
    server = Path(__file__).with_name("neural_tangents_server.py")
    with tempfile.TemporaryDirectory() as folder:
        network, log = Path(folder) / "network.npz", Path(folder) / "log"
        np.savez(network, *channels_last(model, inputs))
        with (
            log.open("wb") as stderr,
            subprocess.Popen([PEERS, server, network], stdin=PIPE, stdout=PIPE, stderr=stderr) as process,
        ):

            def answer(size: int) -> bytearray:
                received = bytearray(process.stdout.read(size))
                if len(received) < size:
                    raise RuntimeError(f"neural-tangents' process ended:\n{log.read_text(encoding='utf-8')}")
                return received

            def run() -> Tensor:
                process.stdin.write(b"go\n")
                process.stdin.flush()
                return torch.frombuffer(answer(4 * N * N), dtype=torch.float32).view(N, N)

            answer(len(b"ready\n"))
            yield Ready(run, model, process.pid)
            process.stdin.close()


def channels_last(model: nn.Sequential, inputs: Tensor) -> list[np.ndarray]:
    """The inputs, then every layer's weight, in neural-tangents' order of axes."""
    arrays = [inputs.movedim(1, -1)]
    for module in model:
        if isinstance(module, nn.Conv2d):
            arrays.append(module.weight.permute(2, 3, 1, 0))
        elif isinstance(module, nn.Linear):
            weight = module.weight
            if inputs.dim() == 4:
                weight = weight.view(len(weight), -1, *inputs.shape[2:]).movedim(1, -1).flatten(1)
            arrays.append(weight.T)
    return [array.detach().contiguous().numpy() for array in arrays]


STEPS = {"plain step": plain_step, "our step": our_step}
KERNELS = {
    "our kernel": our_kernel,
    "torch.func vmap(grad)": torch_func,
    "nngeometry": nngeometry,
    "neural-tangents": neural_tangents,
}
CONTESTANTS = STEPS | KERNELS
