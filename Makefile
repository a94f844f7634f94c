# make book        the web page, at _build/html (creates .venv and installs what it needs)
# make test        everything CI runs
# make notebooks   notebooks/*.ipynb from book/*.md; PAGE=name for one, FORCE=1 to run all again
# make homework    the students' notebooks of homework/; NAME=hw1_mechanics for one. Every solution
#                  must earn full points and every empty notebook none.
# make pdf         the whole book as one file (needs chromium), at _build/
# make colab       Run all of every notebook with Colab's versions (Python 3.13, network, gigabytes)
# make lint        ruff and pyright
# make format      let ruff rewrite the code
# make train       EXPERIMENT=kepler BUDGET=demo
# make bench       side by side with other people's code; ARGS=... (benchmarks/README.md)
# make address     URL=https://github.com/you/fork: change the project's address everywhere
# make clean       remove what was built (not .venv)
#
# PYTHON=python3.12 chooses the interpreter; any Python from 3.10 on will do.
# TORCH_INDEX=https://download.pytorch.org/whl/cpu avoids gigabytes of CUDA on Linux without a GPU.
# CONSTRAINTS= installs the newest versions instead of the pinned ones.
# COMPANION_DATA=folder holds the measurements of the chapter on real data; without it they come from
# ../shared/data, if that is there, or from the network, or a simulation stands in.

PYTHON ?= python3
TORCH ?= torch==2.13.0
TORCH_INDEX ?=
CONSTRAINTS ?= constraints.txt
EXPERIMENT ?= kepler
BUDGET ?= demo
JOBS ?= 2
COLAB_PYTHON ?= python3.13
COMPANION_DATA ?= $(wildcard $(CURDIR)/../shared/data/schmidt_lipson)
export COMPANION_DATA

VENV := .venv
BIN := $(VENV)/bin
PY := $(BIN)/python
PIP := $(PY) -m pip install --quiet --disable-pip-version-check
PINS := $(if $(CONSTRAINTS),--constraint $(CONSTRAINTS))
SITE := $(CURDIR)/_build/html
STAGE = @printf '\n== %s\n'

.PHONY: book pdf test notebooks homework lint types format stale html nbval pytest train bench colab address clean help
.DEFAULT_GOAL := help

help:
	@sed -n 's/^# //p;/^$$/q' Makefile

# -- installation: one virtual environment, two stamps ------------------------------------------

$(PY):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo 'This book needs Python 3.10 or newer. Try: make PYTHON=python3.12 ...'; exit 1; }
	@echo 'Creating .venv (once; torch and the book tools, some minutes)'
	@$(PYTHON) -m venv $(VENV) || \
	  { rm -rf $(VENV); echo 'No venv. On Debian and Ubuntu: apt install python3-venv'; exit 1; }

$(VENV)/.torch: | $(PY)
	$(PIP) '$(TORCH)' $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX))
	@touch $@

$(VENV)/.book: pyproject.toml constraints.txt | $(VENV)/.torch
	$(PIP) $(PINS) --editable '.[book]'
	@$(PY) -c 'import matplotlib.pyplot' # builds its font cache now, and not inside a chapter
	@touch $@

$(VENV)/.test: $(VENV)/.book
	$(PIP) $(PINS) --editable '.[book,test,homework]'
	@touch $@

# What `python -m companion.homework` needs, to grade too.
$(VENV)/.homework: pyproject.toml constraints.txt | $(VENV)/.torch
	$(PIP) $(PINS) --editable '.[homework]'
	@touch $@

# -- the book ------------------------------------------------------------------------------------

book: html
	@echo
	@echo 'Open this page: file://$(SITE)/index.html'

html: stale
	$(STAGE) 'web pages (warnings are errors)'
	@$(BIN)/jupyter-book build book -q -W -n --keep-going --path-output . \
	  --config '$(CURDIR)/_config.yml' --toc '$(CURDIR)/_toc.yml'

pdf: html
	@$(PY) -m tools.pdf

stale: $(VENV)/.book
	$(STAGE) 'notebooks up to date with the chapters'
	@$(PY) -m tools.notebooks check && $(PY) -m tools.address check
	@$(PY) -m tools.exercises check && $(PY) -m tools.runtime check

notebooks: $(VENV)/.book
	@$(PY) -m tools.notebooks make $(PAGE) $(if $(FORCE),--force)
	@$(PY) -m tools.exercises make && $(PY) -m tools.versions page && $(PY) -m tools.runtime make

homework: $(VENV)/.homework
	@OMP_NUM_THREADS=1 $(PY) -m companion.homework make $(NAME)

colab: $(VENV)/.book
	$(STAGE) "Run all, with Colab's versions"
	@$(PY) -m tools.versions run colab --missing --python $(COLAB_PYTHON) $(if $(TORCH_INDEX),--torch-index $(TORCH_INDEX))
	@$(PY) -m tools.versions page

address: $(VENV)/.book
	@test -n '$(URL)' || { echo 'Type: make address URL=https://github.com/<owner>/<name>'; exit 1; }
	@$(PY) -m tools.address set '$(URL)'

# -- tests: the first stage that fails stops the run, and its name is the last heading ------------

test: lint types html nbval pytest

lint: $(VENV)/.test
	$(STAGE) 'ruff'
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .

types: $(VENV)/.test
	$(STAGE) 'pyright'
	@$(BIN)/basedpyright

format: $(VENV)/.test
	$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

# Strict: every output that is not tagged nbval-ignore-output must be what is stored.
nbval: $(VENV)/.test
	$(STAGE) 'nbval: every notebook, run again and compared with its stored outputs'
	@env $$($(PY) -m tools.notebooks environment) $(BIN)/pytest -q -n $(JOBS) --dist loadscope \
	  --nbval --nbval-current-env notebooks

pytest: $(VENV)/.test
	$(STAGE) 'pytest: the package, the book, its pages in a browser'
	@OMP_NUM_THREADS=1 $(BIN)/pytest -q -n $(JOBS) --dist loadscope --durations 10

train: $(VENV)/.book
	$(PY) -m companion train $(EXPERIMENT) --budget $(BUDGET)

bench: $(VENV)/.test
	$(PY) -m benchmarks $(ARGS)

clean:
	rm -rf _build .pytest_cache .ruff_cache .hypothesis
