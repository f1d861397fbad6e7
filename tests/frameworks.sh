#!/usr/bin/env bash
# The library as others install it: its wheel in an environment of its own, with nothing of the book, beside Lightning
# and the Trainer of Hugging Face. One or two minutes, once; PYTHON=python3.12 picks an interpreter.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
${PYTHON:-python3} -m venv "$folder/env"
mkdir "$folder/source" && cp -r lib pyproject.toml README.md LICENSE "$folder/source" # which building fills
"$folder/env/bin/pip" wheel -q --no-deps -w "$folder/wheel" "$folder/source"
"$folder/env/bin/pip" install -q "$(echo "$folder"/wheel/*.whl)[frameworks]" pytest
cd "$folder"
env/bin/python - <<'PYTHON'
import importlib.util

import catapults.figures.monitor
import catapults.monitor

assert "site-packages" in catapults.monitor.__file__
assert not [name for name in ("jupyter_book", "papermill", "nbclient", "ipykernel") if importlib.util.find_spec(name)]
PYTHON
env/bin/python -m pytest -q --noconftest -p no:cacheprovider -c /dev/null "$OLDPWD/tests/test_callbacks.py" "$@" | tee log
! grep -q skipped log
