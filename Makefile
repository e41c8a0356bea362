# make demo | train-demo | test | unit | types | setup | lint | lock | licences | docs | docs-commands | release-check |
# compat | mutants | faults | bench | soak | dry-runs | ray | nightly      VENV=path chooses the environment (default .venv)
VENV ?= .venv
PYTHON ?= python3
# Files of tests that pass without torch.
UNIT := test_settings.py test_stats.py test_visible.py test_metrics_qa.py test_registry.py test_served.py test_habits.py
# What is installed: the checkout itself, or a built wheel (WHEEL=dist/x.whl), which is what CI tests.
WHEEL ?=
BIN := $(VENV)/bin
FIND := $(if $(PIP_FIND_LINKS),--find-links $(PIP_FIND_LINKS),)
# Where pip has no CPU build of torch at hand, PyTorch's own CPU index has it.
TORCH_INDEX := $(if $(PIP_FIND_LINKS),,--extra-index-url https://download.pytorch.org/whl/cpu)
STAMP := $(VENV)/.icr-stack
# What the pinned list has builds for; said in a sentence before anything is installed.
FITS := import sys; v = sys.version_info[:2]; sys.exit(0 if sys.platform == "linux" and (3, 11) <= v <= (3, 13) else "the \
pinned environment is for Linux and Python 3.11 to 3.13, this is Python %d.%d on %s: name another by PYTHON=python3.12, or \
see docs/install.md" % (v[0], v[1], sys.platform))

# Modules of this environment are compiled once, also where the shell asks Python not to: else every process compiles them.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: setup demo train-demo test unit lint lock licences docs docs-commands release-check types compat mutants faults bench soak dry-runs ray nightly

# Seven minutes of processor time once the environment is there, on two cores side by side; DEMO_ARGS="--lengths 512 --items 4" for a look.
demo: setup
	$(BIN)/icr demo -o demo-out $(DEMO_ARGS)

# Ten to fifteen minutes on two cores: a tiny model learns in-context retrieval. TRAIN_DEMO_ARGS=--quick for CI.
train-demo: setup
	$(BIN)/icr train demo -o train-demo $(TRAIN_DEMO_ARGS)

# Tests of the installed package that need no torch, in an environment of their own: PYTHON=python3.13 make unit.
unit:
	$(PYTHON) -m venv $(VENV)-unit
	$(VENV)-unit/bin/python -m pip install -q --disable-pip-version-check ".[api,judge,board]" pytest hypothesis statsmodels
	cd tests && $(abspath $(VENV)-unit)/bin/python -P -m pytest -q -p no:cacheprovider $(UNIT)

test: setup
	$(BIN)/python -P -m pytest $(PYTEST_ARGS)

setup: $(STAMP)
	@$(BIN)/uv pip install -q --python $(BIN)/python --compile-bytecode --no-deps --reinstall-package icr-tasks $(if $(WHEEL),$(WHEEL),-e .)

# A pinned list without dependency resolution: a resolver would add GPU builds of torchvision, torchaudio and torchcodec.
$(STAMP): requirements/cpu.txt
	@$(PYTHON) -c '$(FITS)'
	@echo "setting up $(VENV) (a few minutes the first time)"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check uv
	$(BIN)/uv pip install --python $(BIN)/python --no-deps --index-strategy unsafe-best-match $(FIND) $(TORCH_INDEX) -r requirements/cpu.txt
	@cp requirements/cpu.txt $(STAMP)

lint: setup
	$(BIN)/ruff check icr_tasks leaderboard training tests speed .ci
	$(BIN)/ruff format --check icr_tasks leaderboard training tests speed .ci

lock:
	$(BIN)/uv pip compile requirements/cpu.in --override requirements/cpu-overrides.txt --python-version 3.11 \
	  --index-strategy unsafe-best-match --no-header --no-annotate $(FIND) $(TORCH_INDEX) -o requirements/cpu.txt

# The licences that installed packages declare, into docs/licences.md.
licences: setup
	$(BIN)/python -P .ci/licences.py

# The docs site, into site/: strict, without network (mkdocs.yml).
docs: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

# One page a command, from the commands' parsers.
docs-commands: setup
	$(BIN)/python -P .ci/command_pages.py

# What a release would contain: built, checked by twine, installed and used. Publishes nothing (docs/releasing.md).
release-check:
	PYTHON=$(PYTHON) .ci/release_check

# Types and import contracts of the installed package (a built wheel: WHEEL=dist/x.whl), from outside the checkout.
types: setup
	cp pyproject.toml $(VENV)/icr-pyproject.toml
	cd $(VENV) && bin/python -m mypy --config-file icr-pyproject.toml -p icr_tasks && bin/lint-imports icr-pyproject.toml

# Newest lm-eval, vllm, transformers and trl: is every name this package touches still in their sources? docs/compat.md.
compat: setup
	$(BIN)/python -P .ci/compat.py $(COMPAT_ARGS)

# Would the tests notice? 300 small changes to metrics, context, KV methods, judge and collect; 90 % must be noticed.
mutants: setup
	$(BIN)/python -P .ci/mutants.py $(MUTANTS_ARGS)

# Two thousand generated combinations of task, engine, flag, template and fault: the right score or a named error (about an hour);
# then a hundred command lines of lm_eval in which every two values of two options meet.
faults: setup
	$(BIN)/python -P tests/fault_campaign.py $(FAULTS_ARGS)
	$(BIN)/python -P tests/flag_lines.py

# The product against its peers in one run, medians over five alternations (hours; BENCH_ARGS="--small --alternations 1").
bench: setup
	$(BIN)/python -P speed/bench.py $(BENCH_ARGS)

# 50,000 requests to a server that fails, in processes that are killed, on a disk that fills, under a clock that jumps.
soak: setup
	$(BIN)/python -P speed/soak.py $(SOAK_ARGS)

# Every shipped training config from its launch with two gloo processes to a resumed checkpoint, on a tiny model (about an hour).
dry-runs: setup
	$(BIN)/python -P tests/dry_runs.py $(DRY_RUNS_ARGS)

# `icr sweep --executor ray` with a Ray of its own, against one engine (minutes).
ray: setup
	.ci/ray $(VENV)

# What takes too long for every change.
nightly: mutants faults soak dry-runs ray compat
