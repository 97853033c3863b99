# make demo: the sample case through the default model.
# make test: the checks of every day.   make test-long: tests that take long; .ci/run runs both.
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3.10 python3; do \
	command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
# pip's own progress on a terminal; its hundred lines do not go into a log
QUIET := $(shell test -t 2 || echo --quiet)
PIP := $(BIN)/python -m pip install $(QUIET) --disable-pip-version-check --constraint requirements.lock

# Three workers keep two cores busy: many tests wait for processes of their own. Each test of the panel imports its modules
# anew: they are compiled once.
PYTEST := PYTHONDONTWRITEBYTECODE= QT_QPA_PLATFORM=offscreen OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m pytest -q -n 3 --dist loadfile

.PHONY: demo test lint docs numbers picture pytest test-long test-slicer benchmark fuzz faults mutations lock clean

demo: .venv/demo.stamp
	$(BIN)/d3m synthesize --example --out demo --force

test: lint docs pytest

lint: .venv/test.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The documentation as a site in site/; warnings are errors.
docs: .venv/test.stamp
	$(BIN)/python docs/measured.py --check
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

# Copies the numbers of the model's card and of the comparison into README and documentation.
numbers: .venv/test.stamp
	$(BIN)/python docs/measured.py

# Makes the README's picture anew.
picture: demo
	$(BIN)/python docs/measured.py --picture demo

pytest: .venv/test.stamp
	$(PYTEST) -m "not long"

# What takes ten seconds or starts many processes: trainings, killed processes, full disks, whole heads.
test-long: .venv/test.stamp
	$(PYTEST) -m long

# The Slicer-facing tests over Slicer's own Base/Python folder: SLICER_BASE_PYTHON=<folder> make test-slicer
test-slicer: .venv/test.stamp
	@test -d "$(SLICER_BASE_PYTHON)" || { echo "Set SLICER_BASE_PYTHON to the folder Base/Python of Slicer's sources."; exit 2; }
	QT_QPA_PLATFORM=offscreen SLICER_BASE_PYTHON="$(SLICER_BASE_PYTHON)" $(BIN)/python -m pytest -q Testing/slicer

benchmark: .venv/test.stamp
	$(BIN)/python Testing/benchmarks/sampling.py
	$(BIN)/python Testing/benchmarks/batches.py
	$(BIN)/python Testing/benchmarks/everyday.py

# A minute for each reader, led by atheris where it is installed (pip install atheris; Linux, Python 3.11 to 3.14).
fuzz: .venv/test.stamp
	$(BIN)/python Testing/benchmarks/fuzz.py

# Kills writers at every step and fills their disk.
faults: .venv/test.stamp
	$(BIN)/python Testing/benchmarks/faults.py

# Breaks promises in a copy of the sources, and finds out whether the two above and the tests notice.
mutations: .venv/test.stamp
	$(BIN)/python Testing/benchmarks/mutations.py

# Pins what is installed now; torch is kept as it is written in the lock file.
lock: .venv/test.stamp
	$(BIN)/python -m pip freeze --exclude-editable | sed 's/^torch==.*/torch==2.13.0/' | grep -v ' @ ' > requirements.lock

.venv/python.stamp:
	@test -n "$(PYTHON)" || { echo "Python 3.10 or later is needed and was not found; set PYTHON=<path>."; exit 1; }
	$(PYTHON) -m venv .venv
	touch $@

.venv/demo.stamp: .venv/python.stamp pyproject.toml requirements.lock
	@echo "Installing PyTorch and the other packages into .venv: a few minutes, most of it the download of PyTorch."
	$(PIP) torch==2.13.0
	$(PIP) --editable .
	touch $@

.venv/test.stamp: .venv/demo.stamp
	@echo "Installing what the tests and the documentation need: a few minutes."
	$(PIP) --editable ".[cluster,docs,training,phantom,test]"
	touch $@

clean:
	rm -rf .venv demo build dist site
