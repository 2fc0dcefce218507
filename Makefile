# The two set-up commands of README.md. Each makes its own virtual environment first.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: quickstart test lint docs

quickstart: $(VENV)/.installed
	$(BIN)/paretune quickstart --out runs/quickstart $(ARGS)

# Two processes, a file of tests each at a time: most tests keep one core busy.
test: $(VENV)/.installed
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -n 2 --dist loadfile $(ARGS)

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/pyright

docs: $(VENV)/.installed
	$(BIN)/pip install -c constraints.txt -e '.[docs]'
	$(BIN)/mkdocs build --strict

# PyTorch comes first and by its exact version: an open range may bring gigabytes of CUDA libraries.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q torch==2.13.0
	$(BIN)/pip install -q -c constraints.txt -e '.[judges,demo,video,smollm2,quantize,ray,serve,trackers,dev]'
	touch $@
