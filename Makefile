# cgw-hooks. The targets for people: demo, test, lint, venv, install, uninstall, deb, release.

PREFIX  ?= /usr/local
DESTDIR ?=
SUITE   ?= bookworm
PYTHON  ?= $(firstword $(wildcard /usr/bin/python3) python3)

LIB = $(DESTDIR)$(PREFIX)/lib/cgw
BIN = $(DESTDIR)$(PREFIX)/bin/cgw
SHARE = $(DESTDIR)$(PREFIX)/share
MAN_PAGES = $(basename $(notdir $(wildcard docs/man/*.scd)))

packages = $(shell sed 's/\#.*//' $(1))
# The packages of cgw's venv: its dependencies, also an optional one, the venv module, and rich for
# the benchmarks.
VENV_PACKAGES = $(call packages,APT_PACKAGES) python3-prometheus-client python3-venv python3-rich
# Tests that share a lab must stay in one process (see tests/conftest.py). Three processes for two
# cores: the Xen tier keeps one core busy, and the other tests also wait for guests and for silence.
PROCESSES       ?= 3
SIDE_BY_SIDE     = --numprocesses $(PROCESSES) --no-loadscope-reorder
# The packages that the lab and the tests need on the host.
LAB_PACKAGES  = $(call packages,tests/lab/APT_PACKAGES)

# $(1) the script, $(2) its Python, $(3) the folder of the package. Like pip's console
# script, but -I (no user site, no PYTHON* variables: it runs as root) and without
# "import re", which would make a hook call 6 ms longer.
define launcher
printf '%s\n' '#!$(2) -I' 'import sys' 'sys.path.insert(0, "$(3)")' \
    'from cgw_hooks.commands.cli import main' 'sys.exit(main())' > $(1) && chmod 755 $(1)
endef

# The packages that a build needs on the host; all else is in a Debian root of its own (packaging/release).
BUILD_PACKAGES = git mmdebstrap python3 util-linux

.PHONY: help demo test test-all lint format venv install uninstall deb release bench clean \
    apt-venv apt-lab apt-build

help:
	@echo "sudo make demo      show the main job in a temporary lab (SUITE=trixie: on Debian 13)"
	@echo "sudo make test      lint and run the tests, in a lab of their own"
	@echo "sudo make test-all  the same with all tests on Debian 13, and all products of parameters"
	@echo "sudo make install   install cgw under $(PREFIX); then: cgw install"
	@echo "sudo make deb       build the Debian packages into dist/"
	@echo "sudo make release   the same with wheel, source archive and checksums, of a tagged commit"
	@echo "make venv           make .venv with .venv/bin/cgw from this checkout"
	@echo "make lint           ruff, mypy and codespell"
	@echo "sudo make bench     measure what a hook call, the registry, many flows, FULL-NAT, the return paths, a migration and a vif cost"

demo: venv apt-lab
	@SUITE=$(SUITE) .venv/bin/python -m tests.lab.demo

test: venv apt-lab lint
	.venv/bin/python -m pytest $(SIDE_BY_SIDE) $(PYTEST_ARGS)

test-all: venv apt-lab lint
	.venv/bin/python -m pytest $(SIDE_BY_SIDE) --full $(PYTEST_ARGS)

lint: venv
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/codespell

format: venv
	.venv/bin/ruff check --fix-only .
	.venv/bin/ruff format .

bench: venv apt-lab
	@.venv/bin/python -m benchmarks.hook_call
	@.venv/bin/python -m benchmarks.agent
	@.venv/bin/python -m benchmarks.bans
	@.venv/bin/python -m benchmarks.many_flows
	@.venv/bin/python -m benchmarks.migration_gap
	@.venv/bin/python -m benchmarks.registry
	@.venv/bin/python -m benchmarks.return_paths
	@.venv/bin/python -m benchmarks.throughput
	@.venv/bin/python -m benchmarks.xen_online

deb: apt-build
	@PYTHONPATH=.:packaging $(PYTHON) -m release deb
release: apt-build
	@PYTHONPATH=.:packaging $(PYTHON) -m release all

# The distribution's own bindings are used if it has them, otherwise those of the registry (which
# need libvirt's headers and a compiler).
venv: .venv/ready
.venv/ready: pyproject.toml | apt-venv
	@$(PYTHON) -m venv --system-site-packages .venv
	@.venv/bin/pip install -qq --no-input 'pytest>=8' 'pytest-xdist>=3.6' 'mypy>=1.15' 'ruff>=0.12' 'codespell>=2.2' 'lxml-stubs>=0.5' 'rich>=13.3' 'jsonschema>=4.10' 'prometheus-client>=0.16'
	@if .venv/bin/python -c 'import lxml, nftables, libvirt, pyroute2' 2>/dev/null; then \
	    .venv/bin/pip install -qq --no-input --no-deps --editable .; \
	else \
	    .venv/bin/pip install -qq --no-input --editable .; \
	fi
	@$(call launcher,.venv/bin/cgw,$(CURDIR)/.venv/bin/python,$(CURDIR))
	@touch $@

apt-venv:
	@sh tests/lab/apt.sh $(VENV_PACKAGES)
apt-lab:
	@sh tests/lab/apt.sh $(LAB_PACKAGES)
apt-build:
	@sh tests/lab/apt.sh $(BUILD_PACKAGES)

# This does not use pip: a host's hook must not depend on a registry. It finds the distribution's
# bindings. The modules are compiled here, since a hook may be forbidden to write below $(PREFIX),
# and would then compile all that it loads in each call.
install:
	install -d $(LIB) $(dir $(BIN))
	find cgw_hooks hooks etc -type f ! -name '*.pyc' -exec install -D -m 644 {} $(LIB)/{} \;
	chmod 755 $(LIB)/hooks/qemu.d/50-cgw $(LIB)/hooks/xl/vif-cgw
	/usr/bin/python3 -I -m compileall -q --invalidation-mode timestamp $(LIB)/cgw_hooks
	$(call launcher,$(BIN),/usr/bin/python3,$(PREFIX)/lib/cgw)
	install -D -m 644 etc/completion/cgw.bash $(SHARE)/bash-completion/completions/cgw
	install -D -m 644 etc/completion/_cgw $(SHARE)/zsh/site-functions/_cgw
	install -D -m 644 etc/completion/cgw.fish $(SHARE)/fish/vendor_completions.d/cgw.fish
	@if command -v scdoc >/dev/null; then \
	    for page in $(MAN_PAGES); do \
	        place=$(SHARE)/man/man$${page##*.}/$$page; \
	        install -d $${place%/*} && scdoc <docs/man/$$page.scd >$$place || exit 1; \
	    done; \
	else \
	    echo "no man pages: scdoc is not installed"; \
	fi

# The files that call this cgw on this host. Without cgw, each guest's start would log a failure.
CALLERS = etc/libvirt/hooks/*.d/50-cgw etc/xen/scripts/vif-cgw etc/xen/scripts/vif-post.d/cgw.hook \
    etc/systemd/system/cgw*.service

uninstall:
	@callers=$$(cd $(DESTDIR)/ && grep -lsF '$(PREFIX)/bin/cgw' $(CALLERS)); \
	if [ -n "$$callers" ]; then \
	    echo "hooks and units still call $(PREFIX)/bin/cgw:" $$callers >&2; \
	    echo "run first: cgw uninstall" >&2; \
	    exit 1; \
	fi
	rm -rf $(LIB) $(BIN) $(SHARE)/bash-completion/completions/cgw \
	    $(SHARE)/zsh/site-functions/_cgw $(SHARE)/fish/vendor_completions.d/cgw.fish \
	    $(foreach page,$(MAN_PAGES),$(SHARE)/man/man$(patsubst .%,%,$(suffix $(page)))/$(page))

clean:
	rm -rf dist .venv .pytest_cache .mypy_cache .ruff_cache
