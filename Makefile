# Two commands set everything up on a machine with Python 3.11 or newer, a C++20 compiler and make:
#
#   make chat     environment, build, default model, conversation (ARGS="..." for herd chat's options)
#   make test     everything the tests need, then all tests
#
#   make test-serve   the server's tests in full: as many requests as the bars say, and their time limits (an idle machine)
#   make test-train   training's tests in full: every kill, resume and comparison that the bars ask for
#   make demo-train   a vocabulary and a small model from the books in recipes/data, then a conversation with it (15 minutes)
#   make clients  clients that people use against herd serve, six of them (a large download; needs npm for two)
#   make soak     herd serve under mixed traffic for half an hour, or SOAK_MINUTES=5
#   make lint     formatting, style, types, layers
#   make parity   rebuild the expected values from the heavy oracles, and hold openherd to them (a large download)
#   make isas     parity and kernel tests with each instruction set of this machine forced in turn
#   make sanitize the native core under the address, undefined behaviour and thread sanitizers
#   make bench    measure P1-P10 and the server beside other programs, keep the figures, write bench/RESULTS.md (the first time: an hour)
#   make fuzz     spoilt files of every format for every reader, FUZZ_MINUTES=10 a target
#   make neon     the native core for AArch64 with its tests, under qemu (Debian's g++-aarch64-linux-gnu and qemu-user)
#   make clean    remove what make made; fetched models stay (herd rm)
#
# Set-up talks on standard error and only when there is something to do, so `make -s chat` prints answers alone.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VENV := .venv
STAMPS := $(VENV)/stamps
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install -q -c constraints.txt
NATIVE := CMakeLists.txt $(shell find native -type f)
PYTHONS := $(PYTHON) python3 python3.14 python3.13 python3.12 python3.11 python
JOBS ?= 2
SOAK_MINUTES ?= 30
FUZZ_MINUTES ?= 10

# The first Python that is new enough; nothing when there is none.
find_python = for p in $(PYTHONS); do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { command -v "$$p"; break; }; done

.PHONY: help
help:
	@sed -n '/^#/!q; s/^# \{0,1\}//p' Makefile

.PHONY: chat
chat: $(STAMPS)/openherd
	@$(BIN)/herd chat $(ARGS)

.PHONY: test
test: $(STAMPS)/dev
	@$(BIN)/herd pull >/dev/null
	@$(BIN)/python -m pytest -n $(JOBS) $(ARGS)

# What the server promises and the library beneath it keeps: A8 and A9 (schemas, tools), X5 to X8 (bombs).
BARS_BEHIND_IT := tests/unit/llm/test_llm.py tests/unit/llm/test_tools.py tests/unit/constrain \
	tests/unit/tokenizers/test_template_sandbox.py tests/fuzz/test_tokenizer_bombs.py

.PHONY: test-serve
test-serve: $(STAMPS)/dev
	@$(BIN)/herd pull >/dev/null
	@OPENHERD_FULL_TESTS=1 $(BIN)/python -m pytest tests/serve $(BARS_BEHIND_IT) --timeout=1200 $(ARGS)

.PHONY: test-train
test-train: $(STAMPS)/dev
	@$(BIN)/herd pull >/dev/null
	@OPENHERD_FULL_TESTS=1 $(BIN)/python -m pytest tests/train --timeout=3600 $(ARGS)

.PHONY: demo-train
demo-train: $(STAMPS)/dev
	@HERD=$(BIN)/herd sh recipes/demo_train.sh $(ARGS)

.PHONY: clients
clients: $(STAMPS)/dev $(STAMPS)/clients
	@$(BIN)/herd pull >/dev/null
	@OPENHERD_CLIENTS=.clients $(BIN)/python -m pytest tests/clients $(ARGS)

.PHONY: soak
soak: $(STAMPS)/dev
	@$(BIN)/herd pull >/dev/null
	@$(BIN)/python -m tests.serve.soak --minutes $(SOAK_MINUTES) $(ARGS)

.PHONY: lint
lint: $(STAMPS)/dev
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

# Values of float arithmetic differ in their last bits between machines, so the rebuilt files are held by the tests'
# tolerances and shown by git; commit them only when they should change.
.PHONY: parity
parity: $(STAMPS)/oracle-openherd $(STAMPS)/dev
	@$(BIN)/herd pull >/dev/null
	@OPENHERD_PYTHON=$(BIN)/python sh tests/parity/rebuild.sh .oracle/bin/python "$$($(BIN)/herd pull)" "$(WIKITEXT)" >&2
	@$(BIN)/python -m pytest -n $(JOBS) tests/parity tests/unit/tokenizers tests/train
	@git diff --stat -- tests

.PHONY: isas
isas: $(STAMPS)/dev
	@$(BIN)/herd pull >/dev/null
	@for isa in $$($(BIN)/python -c 'from openherd import _native; print(*_native.available_isas())'); do \
		echo "== OPENHERD_ISA=$$isa"; \
		OPENHERD_ISA=$$isa $(BIN)/python -m pytest -n $(JOBS) tests/parity tests/unit/native $(ARGS) || exit 1; done

# The same targets as in make test, which gives each a second. What breaks a reader is kept under build/fuzz.
.PHONY: fuzz
fuzz: $(STAMPS)/dev
	@OPENHERD_FUZZ_SECONDS=$$(($(FUZZ_MINUTES) * 60)) $(BIN)/python -m pytest tests/fuzz -n $(JOBS) --timeout=0 \
		-k "mutated or garbage or corpus" -v $(ARGS)

.PHONY: sanitize
sanitize: $(STAMPS)/dev
	@sh tests/sanitizers/run.sh $(BIN) $(ARGS)

# WIKITEXT=FILE (WikiText-2's raw test text) adds the quality bar, LARGE=1 the models of Llama-3.2-1B's dimensions, and
# ARGS="--only peers" measures one part.
.PHONY: bench
bench: $(STAMPS)/dev
	@$(BIN)/herd pull >/dev/null
	@sh bench/make_peers.sh "$$($(find_python))"
	@$(BIN)/python -m bench.results measure $(if $(WIKITEXT),--wikitext "$(WIKITEXT)") $(if $(LARGE),--large) $(ARGS)

.PHONY: neon
neon: $(STAMPS)/dev
	@sh tests/neon/run.sh $(BIN) $(ARGS)

.PHONY: clean
clean:
	@rm -rf $(VENV) .oracle .clients build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	@find openherd tests bench -name __pycache__ -prune -exec rm -rf {} +

$(STAMPS)/venv:
	@python=$$($(find_python)); \
	test -n "$$python" || { echo "openherd needs Python 3.11 or newer, and none is on the PATH; install it, or name it: make PYTHON=/path/to/python3" >&2; exit 1; }; \
	"$$python" -c 'import ensurepip, venv' 2>/dev/null || { echo "$$python has no venv module; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }; \
	echo "making the environment $(VENV) with $$python" >&2; \
	"$$python" -m venv $(VENV) >&2
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/openherd: $(STAMPS)/venv pyproject.toml constraints.txt $(NATIVE)
	@command -v $${CXX:-c++} >/dev/null || command -v g++ >/dev/null || command -v clang++ >/dev/null || { echo "openherd needs a C++20 compiler, and none is on the PATH; on Debian and Ubuntu: apt install g++" >&2; exit 1; }
	@echo "building openherd (a minute or two, once)" >&2
	@$(PIP) scikit-build-core nanobind cmake ninja >&2
	@$(PIP) --no-build-isolation -e . >&2
	@touch $@

$(STAMPS)/dev: $(STAMPS)/openherd
	@echo "installing the tools of the tests" >&2
	@$(PIP) --no-build-isolation -e '.[dev]' >&2
	@touch $@

$(STAMPS)/oracle: | $(STAMPS)/venv
	@echo "making the oracles' environment .oracle" >&2
	@$$($(find_python)) -m venv .oracle >&2
	@.oracle/bin/python -m pip install -q torch==2.13.0 >&2
	@.oracle/bin/python -m pip install -q transformers gguf jinja2 safetensors sentencepiece protobuf tiktoken peft trl llama-cpp-python \
		scikit-build-core >&2
	@touch $@

# The scripts that ask the oracles make their cases with openherd, whose compiled core every environment has for itself.
$(STAMPS)/oracle-openherd: $(STAMPS)/oracle pyproject.toml $(NATIVE)
	@.oracle/bin/python -m pip install -q -e . -C build-dir=build/oracle >&2
	@touch $@

$(STAMPS)/clients: tests/clients/requirements.txt tests/clients/node/package-lock.json | $(STAMPS)/venv
	@command -v npm >/dev/null || { echo "make clients needs node and npm; on Debian and Ubuntu: apt install nodejs npm" >&2; exit 1; }
	@echo "making the clients' environment .clients" >&2
	@rm -rf .clients && mkdir -p .clients/node && $$($(find_python)) -m venv .clients/python >&2
	@.clients/python/bin/python -m pip install -q -r tests/clients/requirements.txt >&2
	@cp tests/clients/node/package*.json .clients/node && npm --prefix .clients/node ci --no-audit --no-fund --silent >&2
	@touch $@
