# `make demo` and `make test` set up what they need in .venv, at the versions of requirements/lock.txt, and are quick the
# second time.

PYTHON ?= python3
DATA ?= solar-cells
ORT ?= $(shell nvidia-smi -L 2>/dev/null | grep -q '^GPU' && echo gpu || echo cpu)
ORT := $(ORT)
$(if $(filter-out cpu gpu,$(ORT)),$(error ORT=$(ORT) found, cpu or gpu expected))

# .venv belongs to one folder, one Python, one set of dependencies and one build of ONNX Runtime. Where any of them changes, and where
# a set-up was cut off, its stamp is not there and .venv is built anew: nothing is ever mended in place.
KEY := $(shell { sed '/^\[tool\.pytest/,$$d' pyproject.toml; cat requirements/lock.txt; pwd; $(PYTHON) -VV; echo $(ORT); } 2>&1 | sha256sum | cut -c1-16)
FOR_DEMO := .venv/for-demo-$(KEY)
FOR_TEST := .venv/for-test-$(KEY)
BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --disable-pip-version-check --no-input --constraint requirements/lock.txt

# One line that says why .venv cannot be made and what to do, or nothing.
TROUBLE = $(shell \
	version="$$($(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)"; \
	if [ -z "$$version" ]; then \
		echo "no $(PYTHON) found: run  sudo apt install python3 python3-venv  and try again"; \
	elif ! $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then \
		echo "Python $$version found, 3.11 or newer expected: name another one, for example  make demo PYTHON=python3.13"; \
	elif ! $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null; then \
		echo "$(PYTHON) cannot make a venv: run  sudo apt install python$$version-venv  and try again"; \
	fi)

.PHONY: help setup demo test docs lint types types-here types-windows format lock clean

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*  ## \(.*\)/  make \1\t\2/p' Makefile | expand -t 16
	@echo "  variables: DATA=synthetic (demo without photographs), ORT=cpu|gpu (now $(ORT)), PYTHON=python3.13, ARGS (for pytest)"

setup: $(FOR_TEST)  ## everything that demo and test need, in .venv
	@echo "ready: $$($(BIN)/python -V) in .venv, with ONNX Runtime for the $(ORT)"

demo: $(FOR_DEMO)  ## from photographs to a detector, its scores and a report
	$(BIN)/anomaly demo --data $(DATA)

test: lint types  ## lint, types and all tests
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder $(ARGS)

docs: $(FOR_TEST)  ## these pages as a site, in build/docs; needs no network
	$(BIN)/python -m sphinx -q -W --keep-going docs build/docs
	@echo "open build/docs/index.html"

lint: $(FOR_TEST)  ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(FOR_TEST)  ## mypy --strict on anomaly/, as on this system and as on Windows
	@$(MAKE) --no-print-directory --jobs 2 types-here types-windows

types-here: $(FOR_TEST)
	$(BIN)/python -m mypy

types-windows: $(FOR_TEST)  # a cache of its own: one that both wrote would serve neither
	$(BIN)/python -m mypy --platform win32 --cache-dir .mypy_cache/windows

format: $(FOR_TEST)  ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(FOR_DEMO):
	$(if $(TROUBLE),$(error $(TROUBLE)))
	@echo "Setting up .venv: a few minutes, once."
	@$(if $(filter cpu,$(ORT)),echo "No NVIDIA GPU in use: the README says under 'Install' how to take the small CPU build of torch.")
	@rm -rf .venv
	@$(PYTHON) -m venv .venv
	$(INSTALL) hatchling
	$(INSTALL) --no-build-isolation --editable '.[$(ORT),demo]'
	@touch $@

# The same .venv with the tools for tests on top. While it is added to, it is marked as not ready for the demo either.
$(FOR_TEST): $(FOR_DEMO)
	@rm $(FOR_DEMO)
	$(INSTALL) --no-build-isolation --editable '.[$(ORT),dev]'
	@touch $(FOR_DEMO) $@

# Run it with the oldest Python that is supported: newer ones take versions that the oldest cannot install. What CUDA
# builds bring along (nvidia-*, cuda-*, triton) is left to the exact versions that torch itself asks for.
lock:  ## raise the versions in requirements/lock.txt, but for those in requirements/held.txt
	rm -rf .venv-lock
	$(PYTHON) -m venv .venv-lock
	.venv-lock/bin/python -m pip install --constraint requirements/held.txt --editable '.[cpu,all,dev]'
	{ echo "# Written by 'make lock': every package that .venv may hold. A file of constraints for pip."; \
	  { .venv-lock/bin/python -m pip freeze --all --exclude-editable --exclude pip; grep '^onnxruntime-gpu' requirements/held.txt; } \
	  | grep -vE '^(nvidia-|cuda-|triton)' | sed 's/+cpu$$//' | LC_ALL=C sort -f; } > requirements/lock.new
	mv requirements/lock.new requirements/lock.txt
	rm -rf .venv-lock

clean:  ## remove .venv and caches, not what the demo wrote
	rm -rf .venv .venv-lock build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
