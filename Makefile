# Two commands do everything on a fresh machine: `make demo` and `make test`.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
CHARRNN := $(BIN)/charrnn
DEMO := checkpoints/demo

.PHONY: help install demo test lint hello time-machine bench bench-quick clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 16

install: $(INSTALLED)  ## make .venv and install charrnn into it

$(INSTALLED): setup.cfg setup.py pyproject.toml constraints.txt $(wildcard charrnn/kernels/*.c charrnn/kernels/*.h)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test,lint]'
	touch $@

demo: $(INSTALLED)  ## learn "hello", then a book; sample and measure
	$(BIN)/python -m charrnn.demo

test: $(INSTALLED)  ## run the tests
	$(BIN)/python -m pytest

lint: $(INSTALLED)  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/mypy

hello: $(INSTALLED)  ## rnn, gru and lstm learn to spell "hello"
	$(BIN)/python examples/hello.py

time-machine: $(INSTALLED)  ## rnn, gru and lstm learn The Time Machine; the textbook's setting too
	$(BIN)/python examples/time_machine.py

clean:  ## remove what was built; runs under checkpoints/ stay
	rm -rf $(VENV) build *.egg-info charrnn/kernels/*.so .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
