# Two commands do everything on a fresh machine: `make demo` and `make test`.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
CHARRNN := $(BIN)/charrnn
ROWS := $(patsubst %,tests/test_%.py,disk container resume_files bad_input permissions divergence)

.PHONY: help install demo test torture lint hello time-machine docs picture bench bench-quick bench-quality clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 16

install: $(INSTALLED)  ## make .venv and install charrnn into it

$(INSTALLED): setup.cfg setup.py pyproject.toml constraints.txt $(wildcard charrnn/*.[ch] charrnn/kernels/*.[ch])
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test,lint]'
	touch $@

demo: $(INSTALLED)  ## learn "hello", then a book; sample and measure
	@PATH="$(CURDIR)/$(BIN):$$PATH" sh examples/demo.sh

test: $(INSTALLED)  ## run the tests
	$(BIN)/python -m pytest

torture: $(INSTALLED)  ## what takes long: kills, full disks, signals, races; the report goes to build/torture.md
	mkdir -p build && rm -f build/torture.md
	export CHARRNN_TORTURE=build/torture.md; \
	$(BIN)/python -m pytest -s --durations=20 tests/torture/test_runs.py & runs=$$!; \
	$(BIN)/python -m pytest -s --durations=20 tests/torture $(ROWS) --ignore tests/torture/test_runs.py; code=$$?; \
	wait $$runs && exit $$code

lint: $(INSTALLED)  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/mypy

hello: $(INSTALLED)  ## rnn, gru and lstm learn to spell "hello"
	$(BIN)/python examples/hello.py

time-machine: $(INSTALLED)  ## rnn, gru and lstm learn The Time Machine; the textbook's setting too
	$(BIN)/python examples/time_machine.py

docs: $(INSTALLED)  ## write docs/options.md from the command line itself
	$(BIN)/python docs/options.py > docs/options.md

picture: $(INSTALLED)  ## train on the book and draw the dashboard into docs/dashboard.svg
	book=$$($(CHARRNN) fetch time-machine) && root=$$(pwd) && log=$$(mktemp -d) && cp $$book $$log && cd $$log && \
	$$root/$(CHARRNN) train time_machine.txt --json > events.jsonl && \
	$$root/$(BIN)/python $$root/docs/picture.py events.jsonl $$root/docs/dashboard.svg

bench: $(INSTALLED)  ## against plain PyTorch and the machine's limits: some twelve minutes, on a quiet machine
	$(BIN)/python -m benchmarks.bench

bench-quick: $(INSTALLED)  ## the same with fewer shapes and turns: under three minutes
	$(BIN)/python -m benchmarks.bench --quick

bench-quality: $(INSTALLED)  ## what one and three minutes reach on tiny Shakespeare, beside others: five minutes on a quiet machine
	$(BIN)/python -m benchmarks.quality

clean:  ## remove what was built; runs under checkpoints/ stay
	rm -rf $(VENV) build *.egg-info charrnn/*.so charrnn/kernels/*.so .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
