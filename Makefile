# `make` alone says what there is. Needs Python 3.11 or later with venv, a C compiler, make.
# PYTHON=python3.12 takes another Python, ARGS="..." passes arguments to `run`, `test`, `bench`.
# PREFIX, DESTDIR, SYSCONFDIR say where `install` and `uninstall` work.

PYTHON ?= python3
MODE ?= release
PREFIX ?= /usr/local
DESTDIR ?=
SYSCONFDIR ?= /etc
ARGS ?=

BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
SOURCES := $(shell find cython_core engine -name '*.pyx' -o -name '*.pxd')
STUBBED := $(subst /,.,$(basename $(shell find cython_core engine -name '*.pyi' | sort)))
HEADERS := $(CURDIR)/build/headers
JOBS := $(shell nproc 2>/dev/null || echo 2)
VENDOR := engine/api/vendor

# Headers that were fetched because the machine has no Python.h; otherwise there are no such folders.
export C_INCLUDE_PATH := $(HEADERS)/usr/include:$(HEADERS)/python

# The compiled modules don't say which mode they were made in until they are loaded, and neither
# Cython nor setuptools looks: so a change of mode compiles everything again.
ifneq ($(shell cat build/.mode 2>/dev/null),$(MODE))
FORCE := --force
.PHONY: build/.compiled
endif
ifeq ($(MODE),debug)
export CORE_DEBUG := 1
endif

.PHONY: help build run test test-long check audit bench bench-http soak profile docs install uninstall deb \
  debug clean
.DELETE_ON_ERROR:

help:  ## this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/make \1|\2/' \
	  | awk -F'|' '{ printf "  %-16s %s\n", $$1, $$2 }'

build: build/.compiled .venv/.run $(VENDOR)/.made  ## make .venv, compile; leaves the command at .venv/bin/matchd

run: build  ## start the venue (ARGS="--data-dir DIR" and other options of `matchd run`)
	@exec $(BIN)/matchd run $(ARGS)

test: build build/.bench .venv/.dev  ## run the tests on all cores (ARGS="-k name" and other options of pytest)
	@# Where Python may write no bytecode by itself, every daemon of the tests would compile us anew.
	@$(BIN)/python -m compileall -q engine cython_core bench tests
	@# Much of the time a test waits for a server or the disk: three for each two cores.
	@$(BIN)/python -m pytest -n $$(($$(nproc) * 3 / 2)) --dist loadfile $(ARGS)

test-long: build build/.bench .venv/.dev  ## run the tests with their long profiles (tens of minutes)
	@MATCHD_TEST_PROFILE=long $(BIN)/python -m pytest $(ARGS)

check: build .venv/.dev  ## ruff, mypy strict, cython-lint, stubtest
	@$(BIN)/ruff check .
	@$(BIN)/mypy --strict engine
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/cython-lint cython_core engine bench tests
	@$(BIN)/python -m mypy.stubtest --concise --mypy-config-file pyproject.toml \
	  --allowlist tests/stubtest.allow --ignore-unused-allowlist --ignore-disjoint-bases $(STUBBED)

audit: build .venv/.audit  ## known weaknesses of the packages in .venv, by pip-audit (asks pypi.org or osv.dev)
	@$(BIN)/python .ci/audit.py

bench: build build/.bench .venv/.dev  ## measure, each figure beside its anchor (bench/README.md)
	@$(BIN)/python -m bench $(ARGS)

bench-http: build build/.bench .venv/.dev  ## health checks and orders of 1, 10, 50 users over HTTP (ARGS="--url URL")
	@$(BIN)/python -m bench.http $(ARGS)

soak: build build/.bench .venv/.dev  ## minutes of orders, and a report (ARGS="--minutes N --rate R")
	@$(BIN)/python -m bench.soak $(ARGS)

profile: build build/.bench .venv/.dev  ## a flame graph of the daemon under load (ARGS="orders --seconds 10")
	@$(BIN)/python -m bench.profile $(ARGS)

docs: .venv/.docs  ## build the documentation into build/site (open build/site/index.html)
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

install: build  ## install matchd, its units and configuration (PREFIX=/usr/local, DESTDIR=)
	@$(BIN)/python .ci/stage.py "$(or $(DESTDIR),/)" --prefix "$(PREFIX)" --settings "$(SYSCONFDIR)"
	@test -n "$(DESTDIR)" || PREFIX="$(PREFIX)" SYSCONFDIR="$(SYSCONFDIR)" sh .ci/settle

uninstall:  ## remove what `make install` installed (configuration and data stay)
	@rm -rf "$(DESTDIR)$(PREFIX)/lib/matchd" "$(DESTDIR)$(PREFIX)/share/doc/matchd"
	@rm -f "$(DESTDIR)$(PREFIX)/bin/matchd" "$(DESTDIR)$(PREFIX)/lib/sysusers.d/matchd.conf" \
	  "$(DESTDIR)$(PREFIX)/lib/systemd/system/matchd.service" \
	  "$(DESTDIR)$(PREFIX)/lib/systemd/system/matchd.socket"

deb: build  ## build dist/matchd_VERSION_ARCH.deb, with every library in it
	@.ci/deb dist

debug:  ## build with the slow invariants on; the next other target builds for release again
	@$(MAKE) --no-print-directory build MODE=debug

clean:  ## remove everything that was built (the data directory stays)
	@rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis $(VENDOR)
	@find cython_core engine bench tests -path engine/api/dashboard -prune -o \( -name '*.so' \
	  -o -name '*.c' -o -name '*.html' -o -name '__pycache__' \) -prune -print | xargs rm -rf

build/.machine:
	@mkdir -p build
	@PYTHON="$(PYTHON)" sh .ci/machine
	@touch $@

.venv/.made: | build/.machine
	@echo "matchd: making .venv"
	@$(PYTHON) -m venv .venv
	@touch $@

.venv/.tools: .venv/.made
	@echo "matchd: installing the build tools"
	@$(PIP) 'setuptools>=77' 'cython>=3.1'
	@touch $@

build/.compiled: .venv/.tools setup.py $(SOURCES)
	@echo "matchd: compiling ($(MODE))"
	@$(BIN)/python setup.py -q build_ext --inplace $(FORCE) -j $(JOBS)
	@echo $(MODE) > build/.mode
	@touch $@

# The libraries of the pages that the HTTP gateway shows; the page itself is in the repository.
$(VENDOR)/.made: .ci/assets .ci/npm/package.json .ci/npm/package-lock.json | .venv/.made
	@PYTHON="$(CURDIR)/$(BIN)/python" sh .ci/assets
	@touch $@

# The benches are compiled where they are run and tested, and never shipped.
build/.bench: build/.compiled $(shell find bench -name '*.pyx' -o -name '*.pxd')
	@echo "matchd: compiling the benches"
	@CORE_BENCH=1 $(BIN)/python setup.py -q build_ext --inplace -j $(JOBS)
	@touch $@

.venv/.run: pyproject.toml | build/.compiled
	@echo "matchd: installing"
	@CORE_BUILT=1 $(PIP) --no-build-isolation --editable .
	@touch $@

.venv/.audit: pyproject.toml .venv/.run
	@echo "matchd: installing pip-audit"
	@CORE_BUILT=1 $(PIP) --no-build-isolation --editable '.[audit]'
	@touch $@

.venv/.dev: pyproject.toml .venv/.run
	@echo "matchd: installing what the tests need"
	@CORE_BUILT=1 $(PIP) --no-build-isolation --editable '.[test]'
	@touch $@

# The extra alone, without the package: pages need no compiled core.
.venv/.docs: pyproject.toml | .venv/.made
	@echo "matchd: installing what the documentation needs"
	@$(BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"] \
	  ["optional-dependencies"]["docs"], sep="\n")' | xargs $(PIP)
	@touch $@
