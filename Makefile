# One command sets everything up and runs the tests, one lists the models. PYTHON chooses the interpreter (3.11 to 3.13).
PYTHON ?= python3
BIN = .venv/bin

.venv/.installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -e '.[test,tensorboard]'
	touch $@

.PHONY: setup test slow lint models
setup: .venv/.installed

test: setup lint
	$(BIN)/python -m pytest -q

slow: setup
	$(BIN)/python -m pytest -q -m slow

lint: setup
	$(BIN)/ruff check .

models: setup
	$(BIN)/python run_all.py ls backbones
