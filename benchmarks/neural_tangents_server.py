"""Runs in .venv-peers: reads a network from a file, compiles its kernel and computes it for every line on stdin."""

import os
import sys

answers = os.fdopen(os.dup(1), "wb")
os.dup2(2, 1)  # whatever the libraries print
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import jax  # noqa: E402
import neural_tangents as nt  # noqa: E402
import numpy as np  # noqa: E402
from neural_tangents import stax  # noqa: E402

inputs, *weights = np.load(sys.argv[1]).values()
options = {"W_std": 1.0, "b_std": None, "parameterization": "ntk"}
layers = []
for weight in weights[:-1]:
    if weight.ndim == 4:
        layers.append(stax.Conv(weight.shape[-1], weight.shape[:2], padding="SAME", **options))
    else:
        layers.append(stax.Dense(weight.shape[-1], **options))
    layers.append(stax.Relu())
init, apply, _ = stax.serial(*layers, stax.Flatten(), stax.Dense(weights[-1].shape[-1], **options))
structure = jax.tree_util.tree_structure(init(jax.random.PRNGKey(0), inputs.shape)[1])
parameters = jax.tree_util.tree_unflatten(structure, [jax.device_put(weight) for weight in weights])
inputs = jax.device_put(inputs)

kernel = nt.empirical_ntk_fn(
    apply,
    trace_axes=(-1,),
    vmap_axes=0,
    implementation=nt.NtkImplementation.STRUCTURED_DERIVATIVES,
)
compiled = jax.jit(lambda x, p: kernel(x, None, p)).lower(inputs, parameters).compile()

answers.write(b"ready\n")
answers.flush()
for _ in sys.stdin:
    answers.write(np.asarray(compiled(inputs, parameters)).tobytes())
    answers.flush()
