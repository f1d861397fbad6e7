"""What the server of :mod:`.kernels` imports before it forks a kernel."""

import pkgutil
from importlib import import_module

from .. import claims, experiments, figures, fingerprint

for package in (claims, experiments, figures):
    for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        import_module(module.name)
for name in (
    "catapults.book.cli",  # which each process imports that is started from the command
    "catapults.provenance",
    # and what kernel, PyTorch and matplotlib import when they are first used:
    "IPython.core.oinspect",
    "ipykernel.debugger",
    "ipykernel.kernelapp",
    "matplotlib.backends.backend_svg",
    "seaborn",
    "torch._dynamo",
    "torch.fx.experimental.symbolic_shapes",
):
    import_module(name)
fingerprint.library(["import catapults"])  # which remembers what each file imports
