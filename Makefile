# Every target that needs the kit installs it first, into .venv; the stamp is written only when all of it went well.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PYTHON_CANDIDATES := python3 python3.11 python3.12 python3.13 python3.14 python
AT_LEAST_3_11 := import sys; sys.exit(sys.version_info < (3, 11))
WORKERS := 2
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup --durations=15
MARP_VERSION := 4.5.1
MARP := build/marp/.installed-$(MARP_VERSION)

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

install: $(STAMP) ## create .venv and install the kit into it

notebooks: $(STAMP) ## run every lesson on synthetic cases; leaves each as an HTML page in reports
	$(BIN)/python -m melanoma_lib notebooks run

lab: $(STAMP) ## open JupyterLab on the student copy of the first lesson
	$(BIN)/jupyter lab notebooks/exercises/00_start_here.ipynb

slides: $(STAMP) $(MARP) ## render the decks: reports/slides and slides/*.pdf; with ARGS='03 --run-dir RUN' reports/slides alone
	$(BIN)/python -m melanoma_lib slides build $(ARGS)
	$(if $(ARGS),,cp $(patsubst %.md,reports/%.pdf,$(wildcard slides/*.md)) slides/)

site: $(STAMP) ## put every lesson, exercise, deck and the glossary into reports/site, for a browser or any server
	$(BIN)/python -m melanoma_lib notebooks site

marp: $(MARP) ## install what renders slides, and what their tests need

test: $(STAMP) ## run the quick tests; choose some with ARGS='-k focal'
	$(PYTEST) -m "not slow" $(ARGS)

test-slow: $(STAMP) ## run the rest: every lesson, JupyterLab in a browser, long trainings
	$(PYTEST) -m slow $(ARGS)

lint: $(STAMP) ## check style, format and import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

doctor: $(STAMP) ## check packages, weights, data and disk; each finding with its cure
	$(BIN)/python -m melanoma_lib doctor

clean: ## remove .venv and caches; data and runs stay
	rm -rf $(VENV) build *.egg-info .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find melanoma_lib tests docs -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMP): pyproject.toml
	@rm -f $@
	@if ! { $(BIN)/python -c '$(AT_LEAST_3_11)' && $(BIN)/python -m pip --version; } >/dev/null 2>&1; then \
	  found=; \
	  for candidate in $(PYTHON) $(PYTHON_CANDIDATES); do \
	    if "$$candidate" -c '$(AT_LEAST_3_11)' >/dev/null 2>&1; then found="$$candidate"; break; fi; \
	  done; \
	  if [ -z "$$found" ]; then \
	    echo "error: no Python 3.11 or newer among: $(PYTHON) $(PYTHON_CANDIDATES). Install one, or name yours:" >&2; \
	    echo "       make $(MAKECMDGOALS) PYTHON=/path/to/python3" >&2; \
	    exit 1; \
	  fi; \
	  echo "$$("$$found" --version): creating $(VENV)"; \
	  "$$found" -m venv --clear $(VENV); \
	fi
	$(BIN)/python -m pip install -e '.[dev,download]'
	@touch $@

$(MARP):
	@command -v npm >/dev/null || { echo "error: slides need npm (Node.js 20 or newer); without it: $(BIN)/python -m melanoma_lib slides build --markdown" >&2; exit 1; }
	npm install --prefix build/marp --no-save --no-package-lock --no-audit --no-fund --ignore-scripts @marp-team/marp-cli@$(MARP_VERSION)
	@touch $@

.PHONY: help install notebooks lab slides site marp test test-slow lint doctor clean
