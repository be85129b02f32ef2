SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PYTHON ?= python3
ASSIGNMENTS := $(notdir $(wildcard solutions/*))
SAMPLE_SIZE ?= 33

bin := .venv/bin
setup := .venv/.setup
torch := $(shell grep -E '^torch==' requirements.lock)

# One figure or test at a time per process: two cores are shared by parallel workers.
export OMP_NUM_THREADS ?= 1
export PYTHONHASHSEED ?= 0

book := _build/.made
exercises := build/exercises.made
sample := course/.made
book_sources := _config.yml _toc.yml LICENSE $(shell find book lossref autograder tests/autograder/attacks -type f -not -name '*.pyc') \
	$(wildcard exercises/*/*)
grading_sources := nbgrader_config.py $(shell find autograder lossref tests/hidden -type f -not -name '*.pyc')
TEST_PROCESSES ?= 2

.PHONY: help course test test-slow setup book exercises sample-class lint lock clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

setup: $(setup) ## make the virtual environment and install the Debian packages of apt.txt where allowed

.venv/bin/python:
	@echo "== making a virtual environment in .venv"
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version.split()[0])'
	$(PYTHON) -m venv .venv

.venv/.debian: apt.txt .ci/install_debian_packages.sh | .venv/bin/python
	@echo "== installing the Debian packages of apt.txt"
	.ci/install_debian_packages.sh apt.txt
	touch $@

# torch goes first, so that no other package can pull a different build of it
$(setup): requirements.lock pyproject.toml .venv/.debian | .venv/bin/python
	@echo "== installing the locked Python packages"
	$(bin)/python -m pip install --quiet --disable-pip-version-check '$(torch)'
	$(bin)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(bin)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

book: $(book) ## build the book into _build/html, if anything in it changed

$(book): $(setup) $(book_sources)
	@echo "== building the book (chapters are executed)"
	$(bin)/jupyter-book build . -n -W --keep-going --quiet
	touch $@

exercises: $(exercises) ## generate the students' notebooks from solutions/, if a source changed

$(exercises): $(setup) $(shell find solutions -type f 2>/dev/null)
	@echo "== generating the exercises from solutions/"
	$(bin)/autograder release
	mkdir -p $(@D) && touch $@

sample-class: $(sample) ## make a sample class and grade it into course/

$(sample): $(setup) $(exercises) $(grading_sources)
	@echo "== making a sample class of $(SAMPLE_SIZE) for each assignment, and grading it"
	for assignment in $(ASSIGNMENTS); do \
		$(bin)/autograder sample-class $$assignment --size $(SAMPLE_SIZE) --seed 0; \
		$(bin)/autograder grade $$assignment; \
		$(bin)/nbgrader generate_feedback $$assignment --log-level=ERROR; \
		$(bin)/autograder report $$assignment; \
	done
	touch $@

course: book exercises sample-class ## set up, build the book, generate the exercises, grade the sample class
	@echo
	@echo "book            $(CURDIR)/_build/html/index.html"
	@for assignment in $(ASSIGNMENTS); do \
		echo "exercise        $(CURDIR)/exercises/$$assignment/$$assignment.ipynb"; \
		echo "grade table     $(CURDIR)/course/reports/$$assignment/grades.csv"; \
		echo "class report    $(CURDIR)/course/reports/$$assignment/index.html"; \
		echo "feedback        $(CURDIR)/course/feedback/"; \
	done

lint: $(setup) ## check format, style and types
	$(bin)/ruff format --check --quiet .
	$(bin)/ruff check --quiet .
	$(bin)/mypy

test: lint $(book) ## set up and run all tests but the slow sweeps
	$(bin)/autograder release --check
	$(bin)/pytest --numprocesses=$(TEST_PROCESSES) --dist=loadfile -m "not slow"

test-slow: $(setup) ## run the wide sweeps
	$(bin)/pytest -m slow

lock: | .venv/bin/python ## remake requirements.lock from pyproject.toml
	$(bin)/python -m pip install --quiet '$(torch)' pip-tools
	CUSTOM_COMPILE_COMMAND="make lock" $(bin)/pip-compile --quiet --upgrade --extra dev --strip-extras --allow-unsafe \
		--no-emit-options --no-emit-index-url --no-emit-find-links --no-emit-trusted-host \
		--upgrade-package '$(torch)' --output-file requirements.lock pyproject.toml
	sed -i -E -e 's/^(torch==[0-9.]+)\+cpu/\1/' -e '/^lossref @ /{N;d}' requirements.lock

clean: ## remove everything that was made, the virtual environment apart
	rm -rf _build build course .mypy_cache .ruff_cache .pytest_cache
