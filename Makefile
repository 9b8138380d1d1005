# make        set up .venv            make test     every check and test, then a summary
# make run    the whole loop here     make check    the checks alone, without the tests
# make schemas   write the JSON Schemas and OpenAPI documents anew      make clean   remove .venv and caches, keep runs/
# make audit  known vulnerabilities of the pinned dependencies      make sbom    what .venv holds, with licences (docs/offline.md)
# make gpu-bench measure and test on a CUDA GPU; exits with 2 where there is none (ARGS="--device cpu" tries its paths)

SHELL := /bin/bash
BIN := .venv/bin
# The first that is new enough. 3.11 and 3.12 come first: the bundled Redis server has wheels for these.
NEW_ENOUGH := import sys; sys.exit(sys.version_info[:2] < (3, 11))
PYTHON ?= $(shell for p in python3.11 python3.12 python3 python3.13 python3.14 python; do \
	$$p -c "$(NEW_ENOUGH)" >/dev/null 2>&1 && echo $$p && break; done)
PIP := $(BIN)/python -m pip --disable-pip-version-check

.DEFAULT_GOAL := all
.PHONY: all run test check schemas audit sbom gpu-bench clean

all: .venv/.ready

# constraints.txt holds the exact versions that the tests passed with. torch is pinned in pyproject.toml, too: a newer
# release would bring gigabytes of CUDA packages on Linux.
.venv/.ready: pyproject.toml constraints.txt
	@$(or $(PYTHON),false) -c "$(NEW_ENOUGH)" || { \
	  echo "Fabula needs Python 3.11 or newer; '$(or $(PYTHON),python3)' is $$($(or $(PYTHON),python3) -V 2>&1)."; \
	  echo "Install one (Debian, Ubuntu: apt install python3.11 python3.11-venv; macOS: brew install python@3.11),"; \
	  echo "or name one: make PYTHON=/path/to/python3.11"; exit 1; } >&2
	@echo "Setting up .venv with $$($(PYTHON) -V) ($(PYTHON)); the first time this takes a few minutes ..."
	@# Where Debian left ensurepip out, the machine's own pip can fill the environment as well.
	@$(PYTHON) -m venv .venv >/dev/null 2>&1 || { $(PYTHON) -m venv --without-pip .venv \
	  && $(PYTHON) -m pip --disable-pip-version-check --python $(BIN)/python install --quiet pip; } || { \
	  echo "$(PYTHON) cannot make a virtual environment: its venv module or pip is missing."; \
	  echo "Install it (Debian, Ubuntu: apt install python3-venv) and type make again."; exit 1; } >&2
	@$(PIP) install --quiet --constraint constraints.txt --editable ".[local]"
	@touch $@
	@echo "Ready. Next: make run, or .venv/bin/fabula --help"

# What only tests and checks need comes on top, when they are first asked for.
.venv/.ready-dev: .venv/.ready
	@echo "Adding what tests and checks need ..."
	@$(PIP) install --quiet --constraint constraints.txt --editable ".[dev]"
	@touch $@

run: .venv/.ready
	@$(BIN)/fabula up --preset laptop $(ARGS)

check test: .venv/.ready-dev
	@status=0; summary=""; \
	step() { \
	  local name="$$1" start=$$SECONDS result=passed; shift; \
	  printf '\n== %s: %s\n' "$$name" "$$*"; \
	  "$$@" || case $$? in 77) result=skipped;; *) result=FAILED; status=1;; esac; \
	  summary+=$$(printf '%-22s %-7s %4d s' "$$name" "$$result" $$((SECONDS - start)))$$'\n'; \
	}; \
	step "lint" $(BIN)/ruff check .; \
	step "format" $(BIN)/ruff format --check .; \
	step "types" $(BIN)/mypy; \
	step "imports" $(BIN)/lint-imports; \
	hint=""; \
	if [ "$@" = test ]; then \
	  step "tests" $(BIN)/python -m pytest -n auto --dist loadfile $(ARGS); \
	  step "audit" $(BIN)/python -m deploy.audit; \
	  hint=' (skipped groups stand above with what they miss, under "short test summary")'; \
	fi; \
	printf '\n== summary%s\n%s' "$$hint" "$$summary"; \
	exit $$status

schemas: .venv/.ready
	@$(BIN)/python -m services.schemas

# 77: the data cannot be reached, which it says.
audit: .venv/.ready-dev
	@$(BIN)/python -m deploy.audit $(ARGS) || [ $$? -eq 77 ]

sbom: .venv/.ready-dev
ifdef IMAGE
	@id=$$(docker create $(IMAGE)) || exit 1; docker export $$id | $(BIN)/python -m deploy.sbom - --name $(IMAGE) --to sbom/$(subst :,-,$(IMAGE)); \
	status=$$?; docker rm $$id >/dev/null; exit $$status
else
	@$(BIN)/python -m deploy.sbom .venv --name fabula --to sbom
endif

gpu-bench: .venv/.ready-dev
	@$(BIN)/python -m bench.gpu $(ARGS)

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
