#!/bin/sh
# Makes .venv-peers for neural-tangents, which needs a JAX and a NumPy older than the project's; Python 3.11 or 3.12.
set -e
cd "$(dirname "$0")/.."
"${PYTHON:-python3}" -m venv .venv-peers
echo '*' > .venv-peers/.gitignore
.venv-peers/bin/pip install -q -r benchmarks/requirements-jax.txt
