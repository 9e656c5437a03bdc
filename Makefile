# `make` alone lists the targets.
PYTHON ?= python3
VENV ?= .venv
PIP_FLAGS ?=
RUN := $(VENV)/bin/python
# One worker a core, so one thread a worker; the tests of a file stay together, since some build on others' results.
TEST := OMP_NUM_THREADS=1 $(RUN) -m pytest -n auto --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help demo test fast lint format oldest bench figures examples clean

help: ## list the targets
	@grep -E '^[a-z_-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-9s %s\n", $$1, $$2}'

$(VENV)/.installed: requirements.txt constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install -q $(PIP_FLAGS) -c constraints.txt -r requirements.txt
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed requirements-dev.txt
	$(RUN) -m pip install -q $(PIP_FLAGS) -c constraints.txt -r requirements-dev.txt
	@touch $@

demo: $(VENV)/.installed ## install, then find the bird in a picture with the picture-book model
	$(RUN) pipeline.py stage=pipeline model=picturebook data.image_file=examples/images/bird.png data.query="birds." data.overwrite=true

test: $(VENV)/.installed-dev ## install, then run all tests
	$(TEST)

fast: $(VENV)/.installed-dev ## run the tests that take moments
	$(TEST) -m "not slow"

lint: $(VENV)/.installed-dev ## check style and types
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

format: $(VENV)/.installed-dev ## lay out the code
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

oldest: constraints-oldest.txt ## run loading and collecting on the oldest transformers
	$(PYTHON) -m venv $(VENV)-oldest
	$(VENV)-oldest/bin/python -m pip install -q $(PIP_FLAGS) -c constraints-oldest.txt -r requirements-dev.txt
	OMP_NUM_THREADS=1 $(VENV)-oldest/bin/python -m pytest -n auto tests/test_conversation.py tests/test_mm_utils.py tests/test_builder.py tests/test_collector.py

bench: $(VENV)/.installed ## measure what is fast against the plain way
	$(RUN) -m benchmarks.run

figures: $(VENV)/.installed ## draw the README's figures from the results of its commands
	$(RUN) -m examples.make_figures

examples: $(VENV)/.installed ## draw the example pictures again
	$(RUN) -m picturebook.export --examples --output examples

clean: ## remove the virtual environment and caches
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache .hypothesis
