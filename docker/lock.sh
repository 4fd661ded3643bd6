#!/usr/bin/env bash
# Writes docker/lock/ anew, from pyproject.toml and constraints.txt: what the image installs, each with the hashes of its files. Needs uv.
# PyTorch's CPU and CUDA 12 builds are not on PyPI, so their files (two lines each) are by hand.
set -euo pipefail
cd "$(dirname "$0")/.."
uv pip compile --quiet --no-header --no-annotate --generate-hashes --python-version 3.11 --python-platform x86_64-manylinux_2_28 \
    --constraint constraints.txt --extra serve --extra demo --extra postgres --extra s3 pyproject.toml |
    awk -v common=docker/lock/common.txt -v torch=docker/lock/torch-cu130.txt '
        BEGIN { print "# By docker/lock.sh: all but PyTorch and CUDA." > common; print "# By docker/lock.sh: PyTorch with CUDA 13." > torch }
        /^[^ ]/ { file = /^(torch|triton|nvidia-|cuda-)/ ? torch : common }
        { print > file }'
