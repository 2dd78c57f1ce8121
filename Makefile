# Everything a contributor runs; `make` alone lists it.
.DEFAULT_GOAL := help
.PHONY: help setup demo lint format type test test-python unit integration interop faults chaos beat-chaos edit-chaos beat-years bench verify docs clean servers soak canvas-soak outbox
.NOTPARALLEL:

BIN := .venv/bin
PROJECTS := pyproject.toml dropin/pyproject.toml scripts/setup.sh
PYTEST := $(BIN)/python -m pytest
IN_PROCESSES := -n auto --dist loadgroup # ARGS="-n 0" makes it one
ARGS ?=
# Tests start hundreds of programs: none shall compile what another has compiled.
unexport PYTHONDONTWRITEBYTECODE

help: ## List what make can do
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.venv/.demo-ready: $(PROJECTS)
	@sh scripts/setup.sh demo

.venv/.dev-ready: $(PROJECTS)
	@sh scripts/setup.sh dev

setup: .venv/.dev-ready ## Make .venv with the project and its tools (needs only python3 >= 3.11)

servers: ## Install the servers that the tests run privately, when they are missing
	@sh scripts/servers.sh

demo: .venv/.demo-ready ## Do the main job on real input, without any server
	@$(BIN)/python examples/demo/run.py $(ARGS)

lint: setup ## Check format and style (ruff)
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .

format: setup ## Format and mend what ruff can mend
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

type: setup ## Check types: mypy strict, and what pyright sees of the packages' public symbols
	@$(BIN)/mypy
	@sh scripts/verifytypes.sh

verify: setup ## Check that generated files are what their generators make now
	@$(BIN)/python scripts/generate.py --check

docs: setup ## Write the generated pages anew
	@$(BIN)/python scripts/generate.py

# The processes of a run begin together: without this each would rewrite the asserts of every test for itself.
.venv/.asserts-rewritten: .venv/.dev-ready
	@$(PYTEST) --collect-only -qq tests/unit tests/integration >/dev/null & \
	$(PYTEST) --collect-only -qq --ignore=tests/unit --ignore=tests/integration >/dev/null; wait
	@touch $@

test: setup servers .venv/.asserts-rewritten ## Run the whole suite against private servers, shuffled, in several processes (ARGS="-k word" for a part)
	@$(BIN)/python -m compileall -q -j 0 src dropin/src tests
	@CELERIAC_REQUIRE_SERVERS=1 $(PYTEST) $(IN_PROCESSES) $(ARGS)

unit: setup ## Run what needs no server
	@$(PYTEST) tests/architecture tests/unit $(ARGS)

# In an environment of its own, .venvs/NAME.
test-python: servers ## Run quick tests under PYTHON=python3.13 or such, there with the newest Django, too (ARGS=tests for all)
	@test -n "$(PYTHON)" || { echo "say which: make test-python PYTHON=python3.13" >&2; exit 2; }
	@$(MAKE) --no-print-directory .venvs/$(notdir $(PYTHON))/.dev-ready
	@CELERIAC_REQUIRE_SERVERS=1 .venvs/$(notdir $(PYTHON))/bin/python -m pytest $(IN_PROCESSES) $(or $(ARGS),tests/architecture tests/unit tests/dropin/test_django.py)

.venvs/%/.dev-ready: $(PROJECTS)
	@sh scripts/setup.sh dev .venvs/$*

integration: setup servers ## Run the tests on real servers only
	@CELERIAC_REQUIRE_SERVERS=1 $(PYTEST) $(IN_PROCESSES) -m "redis or rabbitmq or postgres or memcached" $(ARGS)

interop: setup servers ## Run the tests together with real Celery (in an environment of its own)
	@CELERIAC_REQUIRE_SERVERS=1 $(PYTEST) $(IN_PROCESSES) tests/interop $(ARGS)

faults: setup servers ## Break things on purpose, all of the table, and write docs/reliability.md (ARGS="F11 --seeds 5" for a part)
	@PYTHONPATH=src:dropin/src:tests $(BIN)/python -m faults.run $(ARGS)

chaos: setup servers ## Kill a random worker every 3 s under 10,000 calls, beside real Celery (ARGS="--calls 2000")
	@PYTHONPATH=src:dropin/src:tests:benchmarks $(BIN)/python -m faults.chaos $(ARGS)

beat-chaos: setup servers ## Kill or freeze the leading one of three schedulers, 50 times on each broker (ARGS="--kills 10 --brokers redis")
	@PYTHONPATH=src:dropin/src:tests $(BIN)/python -m faults.beats $(ARGS)

edit-chaos: setup servers ## Kill programs that change schedules, 300 times on each broker (ARGS="--kills 50 --brokers rabbitmq")
	@PYTHONPATH=src:dropin/src:tests $(BIN)/python -m faults.edits $(ARGS)

beat-years: setup ## Play 50 years of a scheduler: clocks are set, it dies, its store is away (ARGS="--years 5 --seed 7")
	@PYTHONPATH=src:dropin/src:tests $(BIN)/python -m faults.year $(ARGS)

outbox: setup ## Kill 500 processes that send on commit in Django, and count what was lost (ARGS="--kills 50" for fewer)
	@PYTHONPATH=src:dropin/src:tests $(BIN)/python -m faults.outbox $(ARGS)

soak: setup servers ## Run 200,000 calls under which no process may grow, on each broker (ARGS="-n 20000 --servers redis")
	@PYTHONPATH=src:dropin/src:tests $(BIN)/python -m leaks.run $(ARGS)

canvas-soak: setup servers ## Run 50,000 random workflows on workers that are killed all the time (ARGS="-n 2000" for fewer)
	@$(BIN)/python tests/soak/run.py $(ARGS)

bench: setup servers ## Measure side by side with real Celery; prints medians and ratios
	@$(BIN)/python benchmarks/run.py $(ARGS)

clean: ## Remove the environment and everything that tools left
	@rm -rf .venv .venvs build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis benchmarks/out
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
