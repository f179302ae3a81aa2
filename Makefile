# Each target makes the virtual environment that it needs; nothing but Python >= 3.11, make and git is expected.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
TREE   ?= downloads
STATE  ?= state
KEYS   ?= keys
PORT   ?= 8470
# The tests of what decides, and of the format that it reads; they must reach every branch of it.
DECIDES := tests/core tests/agent/test_steps.py tests/test_layout.py

.PHONY: serve demo test crash coverage fuzz soak lint format bench agent-binary agent-package clean venv bytecode types

venv: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[server,agent,tools,dev]'
	@touch $(STAMP)

serve: $(STAMP)  ## run the server on ./downloads with embedded PostgreSQL
	@$(BIN)/python tools/serve.py --tree $(TREE) --state $(STATE) --keys $(KEYS) --port $(PORT)

demo: $(STAMP)  ## the whole story with real processes: publish, promote, update, roll back, recall
	@$(BIN)/python tools/demo.py

# More processes than two cores: many tests wait for programs, machines and clocks.
test: bytecode coverage  ## everything
	$(BIN)/python -m pytest -n 4 --dist worksteal $(foreach path,$(DECIDES),--ignore $(path))

# The tests start thousands of programs of ours, each of which would compile itself again.
bytecode: $(STAMP)
	@$(BIN)/python -m compileall -q repo_server agent tools tests/support tests/simulators tests/faults

crash: $(STAMP)  ## the agent killed, refused by the disk and cut off from power at every call; ARGS=--help
	@PYTHONPATH=tests $(BIN)/python -m crash $(ARGS)

coverage: $(STAMP)  ## every branch of what decides: the core, and the tables of the agent's steps
	$(BIN)/python -m pytest -q -n 2 $(DECIDES) --cov=repo_server.core --cov=agent.steps \
		--cov-branch --cov-fail-under=100

fuzz: $(STAMP)  ## half an hour of requests that the API's description allows and forbids
	FUZZ_EXAMPLES=1000 $(BIN)/python -m pytest -n 0 --timeout 3600 tests/server/test_openapi.py

soak: $(STAMP)  ## a quarter of an hour of kills of server and database under load
	KILL_ROUNDS=30 $(BIN)/python -m pytest -n 0 tests/server/test_acknowledged.py

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@$(MAKE) --no-print-directory -j 3 types types-darwin types-win32

types: $(STAMP)
	$(BIN)/mypy

# Each with a cache of its own: they would throw away each other's.
types-%: $(STAMP)
	$(BIN)/mypy --platform $* --cache-dir .mypy_cache/$* --no-warn-unreachable -p agent

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(STAMP)  ## ratios to baselines of the same run; see tools/bench/README.md
	$(BIN)/python -m tools.bench

agent-binary: $(STAMP)  ## the agent as one executable for this machine, in dist/; ROOT_JSON=path builds the root of trust in
	$(BIN)/python tools/binary/build.py $(if $(VERSION),--version $(VERSION)) $(if $(ROOT_JSON),--root-json $(ROOT_JSON))

agent-package: agent-binary  ## the same as the component updater, to be signed and published like any other
	$(BIN)/repotool pack dist/updater -o dist

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis dist build
