# `make demo` and `make test` are all a new user needs; both set up .venv first where it is missing or out of date.
PYTHON ?= python3
BIN := .venv/bin
DEMO := demo
.PHONY: setup demo test check bench clean
.DEFAULT_GOAL := demo

setup: .venv/ready

.venv/ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
		{ echo "affectpipe needs Python 3.11 to 3.13, and $(PYTHON) is another: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: setup
	@test -f $(DEMO)/truth.json || { rm -rf $(DEMO); $(BIN)/affectpipe sample $(DEMO); }
	$(BIN)/affectpipe run $(DEMO)/videos --labels $(DEMO)/labels --cache cache --store stores/demo
	$(BIN)/affectpipe train demo --store stores/demo --out runs/demo --baselines

# Three at a time, on two cores: some tests wait for SLURM. Each takes up to 3 GB of memory.
JOBS ?= 3
test: setup
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --max-worker-restart 0

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/test_architecture.py

# Faces and workers are measured on CLIPS, yours or the sample's: make bench CLIPS="a.mp4 b.mp4"
CLIPS ?= $(DEMO)/videos/106.mp4 $(DEMO)/videos/video5.mp4
bench: setup
	$(BIN)/python benchmarks/plan.py
	$(BIN)/python benchmarks/reader.py
	$(BIN)/python benchmarks/train.py
	@test -f $(DEMO)/truth.json || { rm -rf $(DEMO); $(BIN)/affectpipe sample $(DEMO); }
	$(BIN)/python benchmarks/faces.py $(CLIPS)
	$(BIN)/python benchmarks/scale.py $(CLIPS)

clean:
	rm -rf .venv $(DEMO) stores/demo runs/demo
