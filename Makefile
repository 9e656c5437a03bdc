# `make` alone lists the targets.
PYTHON ?= python3
VENV ?= .venv
PIP_FLAGS ?=
RUN := $(VENV)/bin/python
# One worker a core, so one thread a worker; the tests of a file stay together, since some share what took long to make.
# Their order is random, and the same again with SEED=<number>, which a run prints at its end.
SEED ?=
TEST := OMP_NUM_THREADS=1 $(RUN) -m pytest -n auto --dist loadfile --no-loadscope-reorder $(SEED:%=--randomly-seed=%)

.DEFAULT_GOAL := help
.PHONY: help demo test fast names keys lint format oldest bench figures examples clean

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

names: $(VENV)/.installed-dev ## check that the names of the tests are the same in every process
	$(RUN) -m pytest tests/test_collection.py

keys: $(VENV)/.installed ## write docs/configuration.md from the schema
	$(RUN) -m lab.config.document

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
	OMP_NUM_THREADS=1 $(VENV)-oldest/bin/python -m pytest -n auto tests/test_conversation.py tests/test_mm_utils.py tests/test_builder.py tests/test_collector.py tests/test_vlm_*.py tests/test_families_end_to_end.py

bench: $(VENV)/.installed ## measure what is fast against the plain way
	$(RUN) -m benchmarks.run

figures: $(VENV)/.installed ## draw the README's figures from the results of its commands
	$(RUN) -m examples.make_figures

examples: $(VENV)/.installed ## draw the example pictures again
	$(RUN) -m picturebook.export --examples --output examples

clean: ## remove the virtual environment and caches
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache .hypothesis
