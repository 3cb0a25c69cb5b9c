# make reproduce: environment, all notebooks, book.  make test: the checks that CI runs.
PYTHON ?= python3
BIN := .venv/bin
# Options of `visa run`; see `visa run --help`.
RUN ?= --scope all --pretrain epochs=8
BOOK := book/_build/html/index.html

.PHONY: reproduce book test lint clean

reproduce: .venv/installed
	$(BIN)/visa run $(RUN)
	@$(MAKE) --no-print-directory book

book: .venv/installed
	$(BIN)/jupyter-book build -q book/
	@echo "The book is at file://$(CURDIR)/$(BOOK)"

test: lint
	$(BIN)/pytest

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/nbstripout --keep-id --verify notebooks/*.ipynb

.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
		|| { echo "$(PYTHON) is $$($(PYTHON) --version 2>&1): Python 3.11 to 3.13 is needed (make PYTHON=python3.12 ...)"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

clean:
	rm -rf book/_build book/generated book/notebooks
