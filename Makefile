# Two commands: `make demo` runs the main job on built-in data, `make test` runs every test.
# Each makes its own .venv first. Nothing is needed but Python 3.11 or later and make.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
OUT ?= demo
# What is installed for tests. nnU-Net (600 MB) and transformers (140 MB) are left to .ci/run, or to
# `make test EXTRAS=dev,nnunet,medsam`.
EXTRAS ?= dev
comma := ,
INSTALLED := $(VENV)/.installed-$(subst $(comma),-,$(EXTRAS))
export OMP_NUM_THREADS ?= 2
# Tests are many small things: a process per core with one thread each. A file's tests stay together for its fixtures.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile

.PHONY: demo test check format clean

demo: $(VENV)/.installed
	$(BIN)/cardiosynth demo $(OUT)

test: $(INSTALLED)
	$(PYTEST)

check: $(INSTALLED)
	$(BIN)/ruff format --check src tests examples benchmarks
	$(BIN)/ruff check src tests examples benchmarks
	$(BIN)/basedpyright
	$(BIN)/lint-imports
	$(PYTEST) -m "not slow"

format: $(INSTALLED)
	$(BIN)/ruff format src tests examples benchmarks
	$(BIN)/ruff check --fix src tests examples benchmarks

clean:
	rm -rf $(VENV) dist build

# torch first and pinned: otherwise a dependency's range may choose another, much larger build.
$(VENV)/.torch: constraints.txt
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "cardiosynth needs Python 3.11 or later"'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet $$(grep '^torch==' constraints.txt)
	touch $@

$(VENV)/.installed: $(VENV)/.torch pyproject.toml
	$(BIN)/python -m pip install --quiet -c constraints.txt -e .
	touch $@

$(INSTALLED): $(VENV)/.installed
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[$(EXTRAS)]'
	touch $@
