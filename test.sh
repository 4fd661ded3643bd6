#!/usr/bin/env bash
# Sets up and passes everything: style, types, layers, tests. pytest's summary is the last line.
set -euo pipefail
cd "$(dirname "$0")"
python3 -m venv .venv
.venv/bin/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[test]'
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/pyright --pythonpath .venv/bin/python
.venv/bin/lint-imports
.venv/bin/pytest --quiet "$@"
