# SPDX-License-Identifier: GPL-2.0-or-later
# What a developer runs; `make` alone explains it. Images of the lab's guests (docs/lab.md) and what
# mypy knows, a minute of reading numpy's overloads, are kept outside the checkout, for all
# checkouts; everything else is in .venv and build.

PYTHON := /usr/bin/python3
BIN := .venv/bin
RUN := tests/lab/run
CACHE := $(or $(DMABUF_TOOL_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/dmabuf-tool)
DEMO_KERNEL := 7.2

VENV_PACKAGES := python3-venv python3-bpfcc
TEST_PACKAGES := gcc libc6-dev groff-base mount
LAB_PACKAGES := qemu-system-x86 qemu-system-arm mmdebstrap debian-archive-keyring e2fsprogs mount

.PHONY: help test test-unit test-native test-lab lint bench demo images clean clean-images \
	venv-packages test-packages lab-packages

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-13s %s\n", $$1, $$2 }' Makefile

# Packages first, one after the other: apt and dpkg have a lock.
test: venv-packages test-packages lab-packages .venv/installed ## everything, from nothing; needs root and apt
	@$(MAKE) --no-print-directory -j2 lint test-unit
	@$(MAKE) --no-print-directory test-native images test-lab

test-unit: .venv/installed test-packages ## unit tests only: under a minute, no root
	@echo "== unit tests"
	@$(BIN)/pytest -n auto tests/unit

test-native: .venv/installed test-packages ## load BPF programs on this machine; needs root
	@echo "== native tests"
	@$(BIN)/pytest tests/native

test-lab: .venv/installed images ## drive the tool in guests with an IOMMU, against the operations' own log
	@echo "== lab tests"
	@$(BIN)/pytest -v tests/lab

lint: .venv/installed ## ruff and mypy
	@echo "== lint"
	@$(BIN)/ruff check .
	@$(BIN)/mypy --cache-dir $(CACHE)/mypy
	@$(BIN)/mypy --cache-dir $(CACHE)/mypy tests/lab/vm

bench: .venv/installed images ## what tracing costs, in the lab and on this machine
	@echo "== bench"
	@$(BIN)/python tests/bench/run.py

demo: .venv/installed lab-packages ## trace a workload in a guest, report here
	@$(RUN) --build $(DEMO_KERNEL)
	@mkdir -p build/demo
	@$(RUN) --kernel $(DEMO_KERNEL) --share build/demo --timeout 300 -- tests/lab/demo
	@$(BIN)/dmabuf-tool report build/demo/demo.dmabuf
	@echo "== both levels, and whose addresses the faults were"
	@$(BIN)/dmabuf-tool report build/demo/demo.dmabuf --only fault-attributed --by context

images: lab-packages ## build what is missing of the guests' images and test drivers
	@$(RUN) --build

clean: ## remove what was built in the checkout
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	rm -rf "$(CACHE)/mypy"
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

clean-images: ## remove the guests' images and downloaded packages as well
	rm -rf "$(CACHE)/lab"

# The distribution's Python, because bcc comes from the distribution and from nowhere else.
.venv/installed: pyproject.toml | venv-packages
	@echo "== .venv: $(PYTHON), the distribution's packages, pip install -e .[dev]"
	@$(PYTHON) -m venv --system-site-packages .venv
	@$(BIN)/pip install --disable-pip-version-check --progress-bar off -q -e '.[dev]'
	@touch $@

# Installs what is missing when root, says what to install when not.
define install
	@command -v dpkg-query > /dev/null || { echo "not Debian: these must be there: $(1)"; exit 0; }; \
	for package in $(1); do \
		dpkg-query -W -f '$${db:Status-Status}' $$package 2> /dev/null | grep -qx installed \
			|| missing="$$missing $$package"; \
	done; \
	[ -z "$$missing" ] && exit 0; \
	[ "$$(id -u)" = 0 ] || { echo "missing packages; as root: apt-get install$$missing"; exit 1; }; \
	echo "== apt-get install$$missing"; \
	apt-get -qq update && DEBIAN_FRONTEND=noninteractive \
		apt-get -qq install --no-install-recommends $$missing > /dev/null
endef

venv-packages:
	$(call install,$(VENV_PACKAGES))

test-packages:
	$(call install,$(TEST_PACKAGES))

lab-packages:
	$(call install,$(LAB_PACKAGES))
