# make reproduce: environment, all notebooks, book.  make pdf: the book in one file.
# make check: lint, types and fast tests, in a minute.  make test: all that CI runs.
PYTHON ?= python3
BIN := .venv/bin
# Options of `visa run`; see `visa run --help`. Two stages side by side take little more than half the time.
# Of mini-VisA two objects, each pre-trained on its own images; of data at hand all objects, pre-trained together.
ifdef VISA_ROOT
RUN ?= --scope all --workers 2
else
RUN ?= --objects pcb1,fryum --workers 2
endif
# Processes that run the tests.
JOBS ?= 2
# TORCH=cpu installs PyTorch without CUDA, several GB less (TORCH=cu126, ...: that CUDA): uv knows where it lies.
TORCH ?=
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check
ifneq ($(TORCH),)
INSTALL += uv && $(BIN)/uv pip install --quiet --python $(BIN)/python --torch-backend $(TORCH)
endif
BOOK := book/_build/html/index.html

.PHONY: env reproduce book pdf check test lint axe clean

env: .venv/installed

reproduce: .venv/installed
	$(BIN)/visa run $(RUN)
	@$(MAKE) --no-print-directory book

book: .venv/installed
	$(BIN)/jupyter-book build -q book/
	@echo "The book is at file://$(CURDIR)/$(BOOK)"

pdf: book
	$(BIN)/python book/_ext/pdf.py

check: lint
	$(BIN)/pytest -n $(JOBS) -m "not slow and not real"

test: lint
	$(BIN)/pytest -n $(JOBS) --dist loadfile

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/nbstripout --keep-id --verify notebooks/*.ipynb

# axe-core looks for what keeps readers out; without it (it needs npm) its tests are skipped.
axe: node_modules/axe-core/axe.min.js

node_modules/axe-core/axe.min.js:
	npm install --silent --no-save --no-package-lock --no-audit --no-fund axe-core@4.14.1

.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
		|| { echo "$(PYTHON) is $$($(PYTHON) --version 2>&1): Python 3.11 to 3.13 is needed (make PYTHON=python3.12 ...)"; exit 1; }
	$(PYTHON) -m venv .venv
	$(INSTALL) -c constraints.txt -e '.[dev]'
	@touch $@

clean:
	rm -rf book/_build book/generated book/notebooks
