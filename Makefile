# Each target creates .venv, installs into it once, and does its job:
#   make check       while one works: style, types and the mathematics, in under a minute
#   make style       before a commit: lint, formatting and types
#   make test        before a change is handed in: all tests but the slow ones
#   make test-slow   before a release: costly tests, and further cases of the quick ones
#   make test-gpu    on a machine with a GPU: what needs one, and its speed, into gpu.json
#   make docs        the site of the documentation
#   make demo        data, training and translations of a toy task
PYTHON ?= python3
# any version from 2.6 on; a wheel that pip finds, so that the build needs no other
TORCH ?= torch==2.13.0
VENV := .venv
BIN := $(VENV)/bin
OUT ?= demo-run
DEMO_OPTIONS ?=

.PHONY: install test test-slow test-gpu check style docs demo clean

install: $(VENV)/.installed

# fairseq-fixed is built here, against the torch and numpy of this environment: pip's isolated
# build would download a torch of its own
$(VENV)/.installed: setup.py Makefile
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install $(TORCH) numpy cython setuptools wheel
	$(BIN)/python -m pip install --no-build-isolation fairseq-fixed==0.12.3.1
	$(BIN)/python -m pip install --no-build-isolation -e ".[test,docs]"
	touch $@

# a process for each core; files are not divided, since the tests of one share what they train
PYTEST := $(BIN)/python -m pytest -q -n auto --maxprocesses 4 --dist loadfile

test: install
	$(PYTEST) -m "not slow"

test-slow: install
	$(PYTEST) -m slow

# make test-gpu DATA=data-bin measures speed on that text
test-gpu: install
	$(BIN)/python scripts/gpu_check.py $(if $(DATA),--data $(DATA))

# folders whose tests are quick; left out are the costliest of them, which sample over a vocabulary
QUICK := $(addprefix tests/,diffusion storage checkpoints fairseq_patches)
COSTLY := tests/diffusion/gaussian/test_degeneration.py::test_exact_is_what_sampling_finds

check: style
	$(PYTEST) --dist worksteal -m "not slow" $(QUICK) --deselect $(COSTLY)

style: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# the site, in site/; a broken link is an error
docs: install
	$(BIN)/mkdocs build --strict

# make demo DATA=folder runs on train.de, train.en, valid.*, test.* of that folder
# make demo OUT=folder DEMO_OPTIONS="--seed 2" trains with another seed, elsewhere
demo: install
	$(BIN)/difformer demo --out $(OUT) $(if $(DATA),--data $(DATA)) $(DEMO_OPTIONS)

clean:
	rm -rf $(VENV) demo-run site
