#!/bin/sh
# A secret is a file, and what speaks to PostgreSQL takes its password from PGPASSWORD.
set -eu
if [ -n "${PGPASSWORD_FILE:-}" ]; then
    PGPASSWORD=$(cat "$PGPASSWORD_FILE")
    export PGPASSWORD
fi
exec hunyuan-video "$@"
