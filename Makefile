# Two commands for a newcomer: `make demo` and `make test`. Both make what they need.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
CACHE  ?= .cache
DEMO   := $(CACHE)/demo

.PHONY: demo test lint types unit chaos clean

$(VENV)/.installed-%: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "ovpipe needs Python 3.11 or later; name one with: make PYTHON=python3.12 ..."; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$*]'
	touch $@

demo: $(VENV)/.installed-standard  ## faces in a real clip: out/faces.jsonl and out/faces.mp4
	$(BIN)/python scripts/fetch_demo.py $(DEMO)
	OVPIPE_DEMO=$(DEMO) $(BIN)/ovpipe run configs/quickstart.yaml
	@echo "boxes: out/faces.jsonl   video: out/faces.mp4"

test: lint types unit chaos  ## all that CI runs

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed-dev
	$(BIN)/mypy

# Two at a time. What fails beside another test has to pass alone, and is shown: it wants mending.
unit: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -n 2 --dist worksteal || { \
		echo "once more, alone: what failed beside other tests"; \
		$(BIN)/python -m pytest --last-failed --last-failed-no-failures none; }

chaos: $(VENV)/.installed-dev  ## a minute of workers killed at random, every frame accounted for
	$(BIN)/python -m ovpipe.testing.chaos --minutes 1 --seed 1

clean:
	rm -rf $(VENV) $(CACHE) out .mypy_cache .ruff_cache .pytest_cache .hypothesis
