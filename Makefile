# Every command works in the environment .venv, which is made when it is needed: what you
# have activated does not matter. `make help` lists the commands.

PYTHON ?= python3
PORT ?= 8000
PY := .venv/bin/python
ENVIRONMENT := .venv/.current
KATEX := node_modules/.package-lock.json
AXE := tests/browser/node_modules/.package-lock.json
CHECKED := build/.checked
CHINESE := build/.zh_CN
HOSTED := build/.hosted
CHECK_CODE := PYTHONPATH=docs/_ext $(PY) scripts/check_code.py
# Two processes; each file in one, as its tests share what is costly to prepare.
PYTEST := $(PY) -m pytest -q -n 2 --dist loadfile
SPHINX := $(PY) -m sphinx -c . -W -n --keep-going -j 2
# Of the command line alone: the variable of the environment is for other programs.
PDF_LANGUAGE := $(if $(findstring command,$(origin LANGUAGE)),$(LANGUAGE),en)
LANGUAGES := en $(notdir $(wildcard locale/*))
PDF_SUFFIX := $(if $(filter-out en,$(PDF_LANGUAGE)),-$(PDF_LANGUAGE))
PDF_INDEX := $(if $(PDF_SUFFIX),-e '$$makeindex = "upmendex -s zh_CN.ist %O -o %D %S"')
LATEX := build/latex$(PDF_SUFFIX)
PDF := build/dian$(PDF_SUFFIX).pdf
# A second build of this folder waits for the first one.
ALONE := sh scripts/alone.sh $(MAKE) --no-print-directory

SHELL := /bin/sh
.SHELLFLAGS := -eu -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:

# What the caller has set for other programs changes nothing here: asserts count, warnings
# are those of the tests, figures and cells have the settings of the project, the
# repository is this one. Of the settings of pip only those of the network are kept.
unexport $(filter PYTHON% PYTEST% HYPOTHESIS% RUFF% JAXTYPING% BEARTYPE% JUPYTER% IPYTHON% \
    MPL% MATPLOTLIB% LC_% LANGUAGE VIRTUAL_ENV NODE_ENV NODE_OPTIONS NODE_PATH CDPATH \
    GREP_OPTIONS COLUMNS LINES FORCE_COLOR CLICOLOR_FORCE PY_COLORS TTY_% GIT_DIR \
    GIT_WORK_TREE GIT_INDEX_FILE GIT_OBJECT_DIRECTORY GIT_COMMON_DIR GIT_NAMESPACE \
    GIT_PREFIX,$(.VARIABLES))
unexport $(filter-out %_URL %_LINKS %_INDEX %_CERT %_HOST %_PROXY %_TIMEOUT %_RETRIES \
    %_CACHE_DIR %_CONFIG_FILE %_KEYRING_PROVIDER,$(filter PIP_%,$(.VARIABLES)))
export PATH := $(CURDIR)/.venv/bin:$(subst $(CURDIR)/.venv/bin:,,$(PATH))
export LC_ALL := C.UTF-8
export PYTHON
export PYTHONNOUSERSITE := 1
export PYTHONUTF8 := 1
export MPLBACKEND := agg
export MPLCONFIGDIR := $(CURDIR)/build/matplotlib
export IPYTHONDIR := $(CURDIR)/build/ipython
export JUPYTER_CONFIG_DIR := $(CURDIR)/build/jupyter
export JUPYTER_DATA_DIR := $(CURDIR)/build/jupyter
export JUPYTER_RUNTIME_DIR := $(CURDIR)/build/jupyter/runtime

# In a container the user may have no name and no home, or one that cannot be written.
USER ?= dian
export USER
ifeq ($(shell [ -d "$${HOME:-}" ] && [ -w "$$HOME" ] && echo usable),)
export HOME := $(CURDIR)/build/home
$(shell mkdir -p build/home 2>/dev/null)
endif
ifeq ($(shell [ -d "$${TMPDIR:-/tmp}" ] && [ -w "$${TMPDIR:-/tmp}" ] && echo usable),)
unexport TMPDIR
endif

.PHONY: help html pdf test test-slow test-site chromium check lint serve translate train verify \
    coverage certificate certificate-sample audit bench bench-gpu data linkcheck lock clean FORCE \
    no-edition html-alone pdf-alone test-alone test-slow-alone linkcheck-alone clean-alone translate-alone

# Matrices are small here, and scripts run side by side: threads would only get in each
# other's way.
html-alone pdf-alone translate-alone test-alone test-slow-alone coverage certificate \
    certificate-sample: \
    export OMP_NUM_THREADS := 1

help: ## List the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-18s %s\n", $$1, $$2}' Makefile

html: ## Verify, run the examples, and build the site
	+@$(ALONE) $@-alone

html-alone: $(ENVIRONMENT) $(KATEX) $(CHECKED)
	@# Warnings are shown only while a page is read: after a build that failed or was
	@# interrupted, all pages are read again.
	@[ -e build/.complete ] || rm -rf build/doctrees
	@rm -f build/.complete
	$(SPHINX) -d build/doctrees -b html docs build/html
	@touch build/.complete
	@$(MAKE) --no-print-directory $(CHINESE)
	$(PY) scripts/check_editions.py build/html zh_CN
	$(PY) scripts/check_site.py build/html
	@$(PY) -c 'from pathlib import Path; page = Path("build/html/index.html").resolve(); \
	    print("The site is in build/html; open", page.as_uri())'

pdf: $(if $(filter $(LANGUAGES),$(PDF_LANGUAGE)),,no-edition) ## Build the whole report as one PDF (needs XeLaTeX; LANGUAGE=zh_CN: in Chinese)
	+@$(ALONE) $@-alone

no-edition:
	@echo "make pdf: no edition in '$(PDF_LANGUAGE)'; there are: $(LANGUAGES)" >&2; exit 2

pdf-alone: $(ENVIRONMENT) $(CHECKED)
	@sh scripts/pdf_tools.sh $(PDF_LANGUAGE)
	@# From nothing: what was left by a build that failed must not be taken for whole.
	@rm -rf $(LATEX) $(LATEX)-doctrees $(PDF)
	$(SPHINX) -q -D language=$(PDF_LANGUAGE) -d $(LATEX)-doctrees -b latex docs $(LATEX)
	@# The name of a label can be long, and the log is read by a script.
	cd $(LATEX) && max_print_line=2000 \
	    latexmk $(PDF_INDEX) -silent -pdfxe -dvi- -ps- -interaction=nonstopmode dian.tex >latexmk.out \
	    || { grep -h -A 3 '^!' dian.log; exit 1; }
	$(PY) scripts/check_pdf.py $(LATEX) $(PDF_LANGUAGE)
	@cp $(LATEX)/dian.pdf $(PDF)
	@echo "The PDF edition is $(PDF)"

test: ## Run the tests, the doctests included
	+@$(ALONE) $@-alone

test-alone: $(ENVIRONMENT) $(KATEX)
	@# Without the data all tests run, and only those that need them fail, and say so.
	-$(PY) scripts/get_data.py
	$(PYTEST) -m "not slow"
	@$(CHECK_CODE) --passed

test-slow: ## Run the slow tests: several processes, and what survives a kill
	+@$(ALONE) $@-alone

test-slow-alone: $(ENVIRONMENT) $(KATEX)
	$(PYTEST) -m slow

test-site: chromium html $(AXE) ## Look at the built site in a browser (needs Chromium)
	$(PY) -m pytest -q -o addopts= -p no:cacheprovider tests/browser

# First of all, before minutes of building.
chromium:
	@for name in "$${CHROME_PATH:-chromium}" chromium-browser google-chrome; do \
	    command -v "$$name" >/dev/null && exit 0; done; \
	    echo "make: no Chromium; on Debian: apt-get install chromium" >&2; exit 1

check: ## Lint, test and build: what has to pass before a commit
	@$(MAKE) lint
	@$(MAKE) test
	@$(MAKE) html

lint: $(ENVIRONMENT) ## Check style, and which module imports which
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	.venv/bin/lint-imports

serve: html ## Build the site and serve it on this machine (PORT=8000)
	$(PY) -m http.server --bind 127.0.0.1 --directory build/html $(PORT)

translate: ## Bring the catalogues of the Chinese edition up to date with the English
	+@$(ALONE) $@-alone

translate-alone: $(ENVIRONMENT) $(KATEX) $(CHECKED)
	@# No reference has to lead anywhere: only text is collected.
	$(PY) -m sphinx -c . -q -j 2 -D for_translators=1 -d build/gettext-doctrees \
	    -b gettext docs build/gettext
	$(PY) scripts/own_messages.py build/gettext
	.venv/bin/sphinx-intl update -p build/gettext -d locale -l zh_CN --no-obsolete -w 0
	@# The head that every new catalogue gets.
	@find locale -name '*.po' -exec sed -i -e '/^# SOME DESCRIPTIVE TITLE/d' \
	    -e '/^# FIRST AUTHOR/d' -e '/^"Last-Translator/d' -e '/^"Language-Team/d' \
	    -e '/^"PO-Revision-Date/d' -e '/^"Report-Msgid/d' -e '/^# Copyright/d' {} +
	$(PY) scripts/check_catalogues.py locale/zh_CN

train: $(ENVIRONMENT) ## Train a recorded run again: make train NAME=rnn-fashion-mnist
	@[ -n "$(NAME)" ] || { echo "make train NAME=..., one of:"; $(PY) -m dian list; exit 2; }
	$(PY) -m dian train $(NAME)

verify: $(ENVIRONMENT) ## Check every claim, and that each check kills its mutants
	$(PY) -m dian verify --mutants

coverage: $(ENVIRONMENT) ## Check that something kills mutants of every function of a record
	$(PY) scripts/get_data.py
	$(PY) -m dian verify --coverage

certificate: $(ENVIRONMENT) ## Make all generic mutants, and record what kills them
	$(PY) -m dian.claims.certificate

certificate-sample: $(ENVIRONMENT) ## Check a fixed sample of them against the record
	$(PY) -m dian.claims.certificate --sample 200

audit: $(ENVIRONMENT) ## Report whether each record and each gallery page is fresh
	@status=0; $(PY) -m dian audit || status=1; \
	    PYTHONPATH=docs/_ext $(PY) -m dian_sphinx.gallery || status=1; exit $$status

bench: $(ENVIRONMENT) ## Time the library beside others on two CPU cores, and record it
	$(PY) -m benchmarks

bench-gpu: $(ENVIRONMENT) ## The same on a GPU
	$(PY) -m benchmarks --device cuda

data: $(ENVIRONMENT) ## Bring the whole of Fashion-MNIST to this machine
	$(PY) scripts/get_data.py

linkcheck: ## Ask every external link (needs a network)
	+@$(ALONE) $@-alone

linkcheck-alone: $(ENVIRONMENT) $(KATEX)
	@# With doctrees of its own: a page that is read here has to warn in `make html`, too.
	$(SPHINX) -d build/linkcheck-doctrees -b linkcheck docs build/linkcheck

lock: ## Renew constraints.txt, the exact versions
	sh scripts/lock.sh

clean: ## Remove what was built; .venv and node_modules stay
	+@$(ALONE) $@-alone

clean-alone:
	rm -rf build docs/gallery docs/api

# Whether they are up to date is a question of contents, and not of times: for these two
# scripts, which also keep what is there until the new is whole.
$(ENVIRONMENT): $(shell sh scripts/environment.sh --check || echo FORCE)
	@sh scripts/environment.sh

$(KATEX): $(shell sh scripts/node_packages.sh . --check || echo FORCE) | $(ENVIRONMENT)
	@sh scripts/node_packages.sh .

$(AXE): $(shell sh scripts/node_packages.sh tests/browser --check || echo FORCE) \
    | $(ENVIRONMENT)
	@sh scripts/node_packages.sh tests/browser || { echo "make: npm did not bring axe-core," \
	    "Lighthouse and MathJax; they need a network" >&2; exit 1; }

FORCE:

# Everything that claims and examples may depend on; which of it matters, and whether
# anything has to run, is for the script to find out.
SOURCES := $(shell find dian docs conftest.py tests/conftest.py pyproject.toml \
    scripts/check_code.py \( -path docs/gallery -o -path docs/api -o -path docs/_static \
    -o -name __pycache__ \) -prune -o -type f -print)

# The Chinese edition depends on all that the English one is made of, and on the variables
# that conf.py reads.
$(CHINESE): $(SOURCES) $(HOSTED) $(wildcard conf.py package-lock.json) \
    $(shell find $(wildcard locale gallery docs/_static) /dev/null \
    -type f ! -name '*.mo' ! -path '*/__pycache__/*' -print)
	$(PY) scripts/check_catalogues.py --quiet locale/zh_CN
	@[ -e $@ ] || rm -rf build/doctrees-zh_CN
	@rm -f $@
	$(SPHINX) -D language=zh_CN -d build/doctrees-zh_CN -b html docs build/html/zh_CN
	@touch $@

$(HOSTED): FORCE
	@mkdir -p $(@D)
	@printf '%s\n' "$${READTHEDOCS_CANONICAL_URL-}" "$${DIAN_URL-}" "$${DIAN_REPOSITORY-}" \
	    "$${DIAN_BRANCH-}" "$${DIAN_NOTEBOOKS-}" "$${DIAN_PDF-}" >$@.new
	@# Beside the English PDF may be those of the other editions.
	@[ -z "$${DIAN_PDF-}" ] || cksum "$${DIAN_PDF%.pdf}"-*.pdf >>$@.new 2>/dev/null || :
	@cmp -s $@.new $@ || cp $@.new $@
	@rm $@.new

$(CHECKED): $(ENVIRONMENT) $(SOURCES)
	$(CHECK_CODE)
	@touch $@
