# Everything runs in .venv, which the first target makes; nothing is installed by hand.
#
#   make            install what is missing (apt as root, pip into .venv), say what was done
#   make test       all fast tests: lint, format, types and contracts are among them
#   make test-long  the suites that need root and network namespaces, and the many seeds
#   make demo       three routers in namespaces carry traffic through the death of their leader
#   make deb        build the Debian package, into dist/; DEB_HASHES=FILE: only of what that lists
#   make lock       write requirements.lock anew
#   make clean      remove .venv and every cache
#
# ARGS goes to pytest or to the demo: make test ARGS='-k lease -x'

PYTHON := .venv/bin/python
SLOW := kernel or cluster or swarm

.PHONY: setup test test-long demo deb lock clean

setup:
	@bash .ci/setup

test: setup
	$(PYTHON) -m pytest -m 'not ($(SLOW))' $(ARGS)

# pytest ends with 5 when there is nothing to run.
test-long: setup
	$(PYTHON) -m pytest -m '$(SLOW)' --timeout=600 $(ARGS) || [ $$? -eq 5 ]

demo: setup
	$(PYTHON) -m chaos demo $(ARGS)

deb: setup
	@bash .ci/deb

lock:
	@bash .ci/lock

clean:
	rm -rf .venv build dist *.egg-info
	rm -rf .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find hanat chaos benchmarks deploy tests -name __pycache__ -type d -prune -exec rm -rf {} +
