# One command sets everything up and runs the tests, one runs the demo. PYTHON chooses the interpreter (3.11 to 3.13).
PYTHON ?= python3
BIN = .venv/bin

.venv/.installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -e '.[test,tensorboard]'
	touch $@

# Four tasks, three backbones, drawn pictures: minutes. The page is results/runs/demo/report/page.html
.PHONY: demo
demo: setup
	$(BIN)/python run_all.py run demo --jobs 2
	@$(MAKE) --no-print-directory $(PAGE)

PAGE = results/runs/demo/report/page.html
# made anew only where rows or the report itself have changed
results/runs/demo/rows.jsonl: ;
$(PAGE): results/runs/demo/rows.jsonl $(shell find benchmarks/report -type f -not -name '*.pyc')
	$(BIN)/python run_all.py report results/runs/demo

.PHONY: setup test slow mutants browser slurm lint models nano
setup: .venv/.installed

# Processes side by side, a file of tests in one of them; more of them want more memory
TESTERS ?= 2
test: setup lint
	$(BIN)/python -m pytest -q -n $(TESTERS) --dist loadfile

slow: setup
	$(BIN)/python -m pytest -q -m slow -n $(TESTERS) --dist loadscope

# Single changes of constants and calls, each with the test that must notice it; PART=2/4 for a part of the list
PART ?= 1/1
mutants: setup
	$(BIN)/python tests/mutants.py --part $(PART)

browser: setup
	$(BIN)/python -m pytest -q -m browser

slurm: setup
	$(BIN)/python -m pytest -q -m slurm

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check --quiet .
	$(BIN)/mypy

# Where there is a GPU: tests, speeds beside timm, ten grids in one pass, the nano trainings; 25 minutes at most.
# make gpu OUT=results/runs/gpu DATA=path/to/data
.PHONY: gpu
OUT ?= results/runs/gpu
gpu:
	$(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON)) -m benchmarks.speed.gpu --out "$(OUT)" $(if $(DATA),--data "$(DATA)") --seconds 1440

# The documentation as a site, in site/; a warning is an error
.PHONY: docs
docs: setup
	$(BIN)/python -m pip install --quiet -e '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

models: setup
	$(BIN)/python run_all.py ls backbones

# Trains the nano backbones on DATA/pretrain (Tiny ImageNet), which the suite `nano` describes: make nano DATA=DATA
nano: setup
	test -n "$(DATA)" || { echo "say where the pictures are: make nano DATA=DATA_ROOT" >&2; exit 2; }
	$(BIN)/python run_all.py run nano --data-root "$(DATA)"
	$(BIN)/python run_all.py report results/runs/nano
