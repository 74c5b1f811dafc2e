# The two commands of the README are `make demo` and `make test`. Each makes .venv and installs what it needs, once:
# a stamp says what is installed, and a change of pyproject.toml or constraints.txt makes it stale.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip install -qq --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test test-slow lint check dist try-wheel docs format clean help
.DELETE_ON_ERROR:

help:
	@echo "make demo       export a bundle, let a portrait listen to a real clip: demo/listener.mp4, an animated picture, a drawing"
	@echo "make test       run the tests, but for the slow ones"
	@echo "make test-slow  run the slow ones: exports of whole networks, a cluster"
	@echo "make lint       ruff, mypy --strict, pyright, hadolint"
	@echo "make check      lint and all tests"
	@echo "make dist       build the sdist and the wheel, and let twine check them"
	@echo "make try-wheel  try the wheel, with the newest of what it needs, on each Python found of 3.11, 3.12, 3.13"
	@echo "make docs       the documentation as a site, in build/site"
	@echo "make format     let ruff put imports and lines in order"
	@echo "make clean      remove everything that make made (the downloaded clip stays in .cache)"

demo: $(VENV)/demo.stamp
	$(BIN)/python examples/run_demo.py

test: $(VENV)/dev.stamp | typings/pflx
	$(BIN)/python -m pytest -n 2 --dist loadfile -m 'not slow'

test-slow: $(VENV)/dev.stamp | typings/pflx
	$(BIN)/python -m pytest -n 2 --dist loadfile -m slow

lint: $(VENV)/dev.stamp $(VENV)/node.stamp | typings/pflx
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy tests examples benchmarks tools docker setup.py
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/hadolint docker/cpu.Dockerfile docker/gpu.Dockerfile

check: lint test test-slow

docs: $(VENV)/docs.stamp | typings/pflx
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

dist: $(VENV)/dev.stamp
	$(BIN)/python tools/build_dist.py

try-wheel: $(BIN)/python
	$(BIN)/python tools/try_wheel.py

format: $(VENV)/dev.stamp
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) demo build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "pflx needs Python 3.11 or newer. Name one: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/demo.stamp: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing pflx with PyTorch and ONNX Runtime into $(VENV) (once) ..."
	$(PIP_INSTALL) --editable '.[cpu,export]'
	@touch $@

$(VENV)/dev.stamp: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing pflx and its development tools into $(VENV) (once) ..."
	$(PIP_INSTALL) --editable '.[cpu,openvino,export,calibrate,serve,site,tensorrt-rtx,dev]'
	@touch $@ $(VENV)/demo.stamp

$(VENV)/docs.stamp: pyproject.toml constraints.txt | $(VENV)/dev.stamp
	$(PIP_INSTALL) --editable '.[docs]'
	@touch $@

# Links through which type checkers see the rooms; a clone brings them, an sdist does not.
typings/pflx: | $(BIN)/python
	$(BIN)/python tools/link_typings.py

# pyright runs on node: the one of the machine, or else one that comes as a package.
$(VENV)/node.stamp: | $(VENV)/dev.stamp
	@command -v node > /dev/null || $(PIP_INSTALL) 'pyright[nodejs]'
	@touch $@
