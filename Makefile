# make demo   the whole loop on two processor cores, from nothing to a table and a page
# make test   every test
# make test-fast   those that take under a second or two, on two cores
# make study  TW-GRPO against GRPO on mini-CLEVRER; QUICK=1 for two arms and one seed
# make docs   the documentation as a site, in build/site
# make lint   ruff and mypy
# make install, make browser   the environment; a Chromium for the tests of the report's page
#
# variables, as in `make demo DEMO=/tmp/demo`:
#   PYTHON        the Python that makes the environment (python3.11)
#   VENV          the environment's folder (.venv)
#   DEMO          the demo's folder (outputs/demo)
#   TORCH         the version of torch's CPU build (2.13.0)
#   TORCH_INDEX   where that build comes from, if the package index has CUDA builds only
#   QUICK         1: the small study
#   PYTEST_ARGS   more words for pytest

PYTHON ?= python3.11
VENV ?= .venv
DEMO ?= outputs/demo
TORCH ?= 2.13.0
# Where the CPU build of torch comes from if the package index has CUDA builds only (on Linux it does). A mirror goes here.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu

BIN = $(VENV)/bin
STAMP = $(VENV)/.installed
BROWSER = $(VENV)/.browser
DONE = $(DEMO)/run/checkpoints/latest_checkpointed_iteration.txt

.PHONY: help install browser demo test test-fast study lint docs clean-demo
# the lines at the top of this file
help:
	@sed -n '/^#/!q; s/^# \{0,1\}//p' $(firstword $(MAKEFILE_LIST))

install: $(STAMP)

# torch first: asked for by another package, pip would take a CUDA build of several GB.
$(STAMP): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	if $(BIN)/pip install --dry-run --no-deps --quiet --report - torch==$(TORCH) 2>/dev/null | grep -q 'torch-$(TORCH)[^"]*cpu'; \
	then $(BIN)/pip install --quiet torch==$(TORCH); \
	else $(BIN)/pip install --quiet --index-url $(TORCH_INDEX) torch==$(TORCH); fi
	$(BIN)/python -c "import torch; assert torch.version.cuda is None, f'{torch.__version__} is a CUDA build, the demo wants a CPU build: see TORCH_INDEX'"
	$(BIN)/pip install --quiet -e '.[cpu,dev]'
	touch $@

demo: $(DONE)
	$(BIN)/verl-twgrpo demo table $(DEMO)/run
	$(BIN)/verl-twgrpo report $(DEMO)/run --out $(DEMO)/report --force

$(DONE): | $(STAMP)
	$(BIN)/verl-twgrpo doctor
	$(BIN)/verl-twgrpo demo prepare --out $(DEMO)
	$(BIN)/verl-twgrpo demo train --out $(DEMO)

# A Chromium for the tests of the report's page: one that is there, the distribution's, or playwright's own.
browser: $(BROWSER)

$(BROWSER): $(STAMP)
	for name in chromium chromium-browser google-chrome google-chrome-stable; do if command -v $$name; then exit 0; fi; done; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get; \
	then apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core >/dev/null; \
	else $(BIN)/playwright install chromium; fi || echo "no Chromium to be had: the tests of the report's page are skipped"
	touch $@

# two processes, one thread each; the end-to-end tests, which have both cores, after them
test: $(STAMP) $(BROWSER)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m "not e2e" $(PYTEST_ARGS)
	$(BIN)/python -m pytest -m e2e $(PYTEST_ARGS)

test-fast: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m "not e2e and not slow" $(PYTEST_ARGS)

study: $(STAMP)
	$(BIN)/verl-twgrpo study $(if $(QUICK),--quick)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(STAMP)
	$(BIN)/pip install --quiet -e '.[docs]'
	NO_MKDOCS_2_WARNING=1 PYTHONPATH=. $(BIN)/mkdocs build --strict

clean-demo:
	rm -rf $(DEMO)
