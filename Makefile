# Every door of the project; `make` alone lists them.
SHELL := /bin/sh
MAKEFLAGS += --no-print-directory
export PYTHON ?= python3
unexport PYTHONDONTWRITEBYTECODE PYTHONPATH VIRTUAL_ENV

RUN := .venv/bin
ROUNDS ?= 200
.DEFAULT_GOAL := help
.PHONY: help demo up down status test soak lint bench docs lock clean setup setup-bench

help: ## list these doors
	@echo "mailwright"
	@echo
	@sed -n 's/^\([a-z][a-z-]*\):[^#]*## \(.*\)/  make \1|\2/p' Makefile | awk -F'|' '{ printf "%-16s %s\n", $$1, $$2 }'
	@echo
	@echo "  PYTHON=/path/to/python3 chooses the interpreter (3.11 or newer)."

demo: setup ## set up, run a whole round on real servers, check it, leave nothing
	@$(RUN)/python -P lab/demo.py

up: setup ## start the stack (Postgres, Valkey, worker, beat, relay, watcher) and stay; Ctrl-C stops it
	@$(RUN)/mailwright up

down: setup ## stop the stack
	@$(RUN)/mailwright down

status: setup ## list the stack's processes
	@$(RUN)/mailwright status

test: setup ## run all tests on real servers (as root it installs Dovecot and Postfix, if missing)
	@$(RUN)/python -P lab/apt.py || echo "Going on with what is installed."
	@$(RUN)/pytest -q -n 2 --dist loadgroup -m "not crash"
	@$(RUN)/pytest -q -m crash

soak: setup ## kill and break for hours, seeds and rounds told; fewer: make soak ROUNDS=20
	@MAILWRIGHT_EXERCISER_ROUNDS=$(ROUNDS) MAILWRIGHT_CRASH_ROUNDS=$(ROUNDS) \
		$(RUN)/pytest -q -s --durations=0 -m crash tests/crash

lint: setup ## formatting, style, types, and which package may import which
	@$(RUN)/ruff check
	@$(RUN)/ruff format --check --quiet || { echo "Some files are not formatted; run: .venv/bin/ruff format"; exit 1; }
	@$(RUN)/mypy
	@$(RUN)/lint-imports --no-logo --config .importlinter

bench: setup-bench ## measure against peers; one of them: make bench BENCH=initial_sync
	@$(RUN)/python -P bench/run.py $(BENCH)

docs: setup ## generate the reference pages under docs/
	@$(RUN)/python -P docs/generate.py

lock: setup ## resolve pyproject.toml anew into requirements/*.txt
	@sh scripts/lock.sh

clean: ## remove .venv and every cache
	@rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist
	@find . -name .git -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

setup:
	@sh scripts/environment.sh dev

setup-bench:
	@sh scripts/environment.sh bench
