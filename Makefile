# Two commands: `make book` builds the book, `make test` runs the tests. Each makes its own environment in .venv first.

PYTHON ?= python3
PRESET ?= book
BIN := .venv/bin

.PHONY: book test lint benchmark clean

book: .venv/ready
	$(BIN)/catapults build --preset $(PRESET)

test: .venv/ready
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadgroup -p no:benchmark $(ARGS)

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/nbstripout --verify chapters/*.ipynb

# benchmarks/README.md says how to add neural-tangents, which needs an environment of its own
benchmark: .venv/ready
	$(BIN)/pip install -q -r benchmarks/requirements.txt
	$(BIN)/python -m pytest benchmarks --benchmark-only $(ARGS)

.venv/ready: requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "make: $$($(PYTHON) --version) is too old; allowed is Python 3.11 or newer, e.g. make PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q -r requirements.txt
	$(BIN)/pip install -q --no-deps -e .
	touch $@

clean:
	rm -rf _build
