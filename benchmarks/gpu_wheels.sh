#!/usr/bin/env bash
# Fills .whl with what benchmarks/gpu.sh needs besides PyTorch and some transformers 5, for a machine without a network: Linux on x86-64 with
# Python 3.12. 9 MB, not PyAV (35 MB more), without which everything works that opens no video file.
set -euo pipefail
cd "$(dirname "$0")/.."
rm -rf .whl
platforms=(--platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64)
"${PYTHON:-python3}" -m pip download --quiet --no-deps --only-binary=:all: --python-version 3.12 --implementation cp "${platforms[@]}" \
    --dest .whl 'diffusers>=0.35' 'beartype>=0.22' 'tyro>=1.0' docstring-parser typeguard
du -ch .whl/*.whl
