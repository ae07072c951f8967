# `make demo` and `make test` do all of their own set-up; `make check` is what CI runs before the tests.
SHELL := /bin/bash
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
CORES ?= all
STAMP := .venv/.made-from-$(shell cat envs/main.txt envs/dev.txt | cksum | cut -d' ' -f1)

export PATH := $(CURDIR)/$(BIN):$(PATH)
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Some machines set it; then each job would compile the library anew.
unexport PYTHONDONTWRITEBYTECODE

STORAGE := .environments/storage/.made-from-$(shell cksum < envs/storage.txt | cut -d' ' -f1)

.PHONY: demo watch test long check setup storage lock
.DEFAULT_GOAL := demo

setup: $(STAMP)

$(STAMP): envs/main.txt envs/dev.txt
	@echo "setting up .venv (about two minutes, 6 GB; once)"
	@$(PYTHON) -c 'import sys; assert sys.version_info[:2] == (3, 11), f"Python 3.11 is needed, this is {sys.version}"'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/pip install --quiet --requirement envs/main.txt --requirement envs/dev.txt
	@rm -f .venv/.made-from-*
	@touch $@

# What Snakemake needs for results on S3 (docs/storage.md).
storage: $(STORAGE)

$(STORAGE): envs/storage.txt | setup
	@rm -rf .environments/storage
	@$(BIN)/pip install --quiet --no-deps --target .environments/storage --requirement envs/storage.txt
	@touch $@

demo: setup
	@snakemake --cores $(CORES) --quiet rules host --rerun-incomplete
	@python workflow/scripts/overview.py results/demo

# Follow a running study in a browser: make watch, make watch STUDY=hateful_memes PORT=8700.
STUDY ?= demo

watch: setup
	@python -B workflow/scripts/watch.py "results/$(STUDY)" $(if $(PORT),--port $(PORT))

check: setup
	ruff format --check .
	ruff check .
	snakefmt --check Snakefile rules
	snakemake --lint
	oxlint --deny-warnings workflow/web

# The smoke study runs through a real Slurm where it can (as root, with Debian's slurm-wlm and munge). It comes first, and
# beside it what needs it least: all others wait for it. LLaMA-Factory's environment is made beside the unit tests.
BESIDE := tests/test_llamafactory.py tests/test_processes.py tests/test_resume.py tests/workflow/test_storage.py
FLOW := tests/workflow/test_slurm.py $(BESIDE)
FLOW += $(filter-out $(FLOW),$(wildcard tests/workflow/test_*.py tests/faults/test_*.py))

test: check storage
	@snakemake --cores 1 --quiet rules host -- llamafactory_env & made=$$!; \
	pytest -n 2 --durations 20 -m "not workflow and not long" $(BESIDE:%=--ignore=%); tested=$$?; \
	wait $$made && exit $$tested
	pytest -n 2 --on-slurm --durations 40 --dist loadfile --no-loadscope-reorder -m "not long" $(FLOW)

# Some hours: studies of all kinds of runs, one that is killed at thirty moments, and trainings stopped on a real Slurm.
long: setup
	pytest -m long tests
	pytest --kills 30 tests/faults/test_kills.py

# Pin every dependency, direct or not, each in a fresh environment; the conda twins hold the same pins.
PORTABLE := sed -E 's/^torch==/torch===/; s/^((nvidia|cuda)-.*|triton=.*)/\1 ; sys_platform == "linux"/'

lock:
	rm -rf .lock && $(PYTHON) -m venv .lock
	.lock/bin/pip install --quiet --requirement envs/main.in
	.lock/bin/pip freeze | $(PORTABLE) > envs/main.txt
	.lock/bin/pip install --quiet --requirement envs/dev.in
	.lock/bin/pip freeze | grep -vxFf <(sed -E 's/===/==/; s/ ;.*//' envs/main.txt) > envs/dev.txt
	rm -rf .lock && $(PYTHON) -m venv .lock
	.lock/bin/pip install --quiet --requirement envs/llamafactory.in
	.lock/bin/pip freeze | $(PORTABLE) > envs/llamafactory.txt
	rm -rf .lock
	$(MAKE) envs/main.yaml envs/llamafactory.yaml

envs/%.yaml: envs/%.txt
	@{ echo "# The conda twin of $*.txt, for --sdm conda; made by make lock."; \
	   printf 'name: memedynamics-$*\nchannels:\n  - conda-forge\ndependencies:\n  - python =3.11\n  - pip\n  - pip:\n'; \
	   grep -v '^#' envs/$*.txt | sed "s/.*/      - '&'/"; } > $@
