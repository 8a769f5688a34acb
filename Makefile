# Every target does all it needs on a fresh machine (Debian or Ubuntu; nvcc is used where it fits):
# it makes .venv, installs torch and the tools into it, and builds the native libraries. What is
# there already is kept.
#
#   make demo     compress real gradients and print what happened
#   make test     pytest in up to four processes, then the C++ tests
#   make fuzz     libFuzzer on the torch-free core, and frames and archives against each other,
#                 FUZZ_SECONDS (60) each target; needs clang++
#   make sanitize the core's C++ tests with AddressSanitizer, UndefinedBehaviorSanitizer and, in
#                 another build, ThreadSanitizer
#   make tidy     clang-tidy on the torch-free core; needs clang-tidy
#   make build    the native libraries, and the package as an editable install
#   make lint     style and types, as CI checks them
#   make docs     the documentation's pages, in build/docs
#   make format   apply the formatters
#   make dist     a wheel and a source distribution, in dist
#   make stubs    write python/lmgc_torch/_C.pyi anew
#   make clean    remove everything that was built (.venv stays)
#
# Variables: JOBS (compile jobs), CMAKE_ARGS (e.g. "-DLMGC_CUDA=OFF"), PYTEST_ARGS (e.g.
# "-k frame"), BASE_PYTHON (the interpreter that .venv is made from).

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := build
MAKEFLAGS += --no-print-directory --no-builtin-rules

JOBS ?= $(shell nproc)
BASE_PYTHON ?=
# No input asks for more at once, in MiB: bytes that lie must not make a decoder ask for much.
FUZZ_FLAGS = -malloc_limit_mb=16 -max_len=8192 -timeout=10 -verbosity=0 -print_final_stats=1
FUZZ_TARGETS = frame planes fixed lm round_trip
# Asked when it is needed, because .ci/system_packages may install it.
FIND_PYTHON = command -v "$(BASE_PYTHON)" || command -v python3.11 || command -v python3
CMAKE_ARGS ?=
PYTEST_ARGS ?=
FUZZ_SECONDS ?= 60

PY := .venv/bin/python
TOOLS := .venv/.lmgc-tools
EDITABLE := build/.lmgc-editable
CXX_FILES = $(shell find csrc tests examples -name '*.h' -o -name '*.cuh' -o -name '*.cpp' -o -name '*.cu')

.PHONY: demo test fuzz sanitize tidy build lint docs format dist stubs clean

demo: build
	@$(PY) examples/demo.py

# Each of the two ends with lines that count what passed and what failed.
test: build
	@$(PY) -m pytest --numprocesses=auto --maxprocesses=4 --dist=worksteal $(PYTEST_ARGS)
	@ctest --test-dir build --output-on-failure --parallel $(JOBS)

# Inputs that reached something new stay in build/fuzz/corpus, those that failed in build/fuzz.
fuzz: build
	@cmake -S . -B build/fuzz -DCMAKE_BUILD_TYPE=Release -DCMAKE_CXX_COMPILER=clang++ \
	  -DLMGC_FUZZ=ON -DLMGC_TORCH=OFF -DBUILD_TESTING=OFF > build/fuzz.log
	@cmake --build build/fuzz --parallel $(JOBS)
	@$(PY) tests/fuzz/seeds.py build/fuzz/corpus
	@for target in $(FUZZ_TARGETS); do \
	  echo "fuzz_$$target"; \
	  build/fuzz/fuzz_$$target -max_total_time=$(FUZZ_SECONDS) $(FUZZ_FLAGS) \
	    -artifact_prefix=build/fuzz/$$target- build/fuzz/corpus/$$target; \
	done
	@for script in differential archives; do \
	  echo "$$script.py"; \
	  $(PY) tests/fuzz/$$script.py --seconds $(FUZZ_SECONDS) --found build/fuzz; \
	done

sanitize: $(TOOLS)
	@mkdir -p build
	@for sanitizers in address,undefined thread; do \
	  tree=build/$${sanitizers%%,*}; \
	  cmake -S . -B $$tree -DCMAKE_BUILD_TYPE=Release -DLMGC_TORCH=OFF \
	    -DLMGC_SANITIZE=$$sanitizers > $$tree.log; \
	  cmake --build $$tree --parallel $(JOBS) --target lmgc_core_tests >> $$tree.log; \
	  echo "$$sanitizers"; \
	  $$tree/lmgc_core_tests; \
	done

# Findings are printed; how many were suppressed in the headers of others goes to the file.
tidy: $(EDITABLE)
	@printf '%s\n' csrc/core/*.cpp | \
	  xargs -P $(JOBS) -n 1 clang-tidy -p build --quiet --warnings-as-errors='*' 2> build/tidy.log

# The editable install is made once; from then on CMake compiles what has changed.
build: $(EDITABLE)
	@$(if $(CMAKE_ARGS),cmake -S . -B build $(CMAKE_ARGS) > build/configure.log)
	@cmake --build build --parallel $(JOBS)
	@cmake --install build --component python > build/install.log

lint: $(EDITABLE)
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy
	@.venv/bin/clang-format --dry-run --Werror $(CXX_FILES)

docs: $(EDITABLE)
	@NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict --quiet
	@echo "build/docs/index.html"

format: $(EDITABLE)
	@$(PY) -m ruff check --fix-only .
	@$(PY) -m ruff format .
	@.venv/bin/clang-format -i $(CXX_FILES)

# With machine code for every GPU (CMakeLists.txt says which), so in a build directory of its own.
# What setuptools left of an earlier wheel would be put into this one.
dist: $(EDITABLE)
	@rm -rf build/lib.* build/bdist.*
	@LMGC_BUILD_DIR=build/dist CMAKE_ARGS='-DLMGC_CUDA_ARCHS=80-real;90-real;100 $(CMAKE_ARGS)' \
	  $(PY) -m build --no-isolation --sdist --wheel

stubs: build
	@$(PY) -m pybind11_stubgen lmgc_torch._C --output-dir python --exit-code
	@$(PY) -m ruff format --quiet python/lmgc_torch/_C.pyi

clean:
	rm -rf build dist python/lmgc_torch.egg-info
	rm -rf python/lmgc_torch/*.so python/lmgc_torch/include python/lmgc_torch/share
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -path ./.venv -prune -o -name __pycache__ -exec rm -rf {} +

# What our own build needs to find installed: pyproject.toml's groups. A torch that is there stays.
$(TOOLS): pyproject.toml
	@.ci/system_packages "$$($(FIND_PYTHON) || true)"
	@$(PY) -c '' 2> /dev/null || "$$($(FIND_PYTHON))" -m venv .venv
	@$(PY) -m pip install --quiet 'pip>=25.1'
	@$(PY) -m pip install --quiet --group build
	@$(PY) -c 'import torch' 2> /dev/null || { \
	  echo "installing torch (several GB) into .venv"; \
	  $(PY) -m pip install --quiet --group torch; }
	@touch $@

# The newest version of a package may have no wheel for an older Python.
$(EDITABLE): $(TOOLS) pyproject.toml setup.py
	@CMAKE_ARGS="-DBUILD_TESTING=ON $(CMAKE_ARGS)" CMAKE_BUILD_PARALLEL_LEVEL=$(JOBS) \
	  $(PY) -m pip install --quiet --prefer-binary --no-build-isolation \
	  --editable ".[test,dev,bench,docs]"
	@touch $@
