#!/usr/bin/env bash
# What a GPU does with this project, within 8 minutes and without a network: tests, attention, own kernels, blocks, 8 bits, decoding, offload, training.
#
#     benchmarks/gpu.sh                # on a CUDA machine; then `python benchmarks/gpu_table.py FOLDER` writes docs/benchmarks.md
#     benchmarks/gpu.sh --rehearse     # every part with tiny sizes on a CPU; its numbers mean nothing
#
# Measurements go to $OUT (results/gpu unless set), a line each as soon as it is made: a file a part, and one log. Wheels in .whl, which
# benchmarks/gpu_wheels.sh fills, stand in for packages that are missing or too old. $PYTHON is the interpreter (python3).
set -u
cd "$(dirname "$0")/.." || exit
seconds=${GPU_SECONDS:-480} # for all
# However a part hangs, even so that it cannot be killed, this script ends.
[ -n "${GPU_INSIDE:-}" ] || GPU_INSIDE=1 exec timeout --kill-after=1 "$seconds" bash "$PWD/benchmarks/gpu.sh" "$@"

# In order of worth, with the share of 480 seconds that each is sure to have. What one leaves over is for those behind it.
parts=(tests:70 attention:40 kernels:60 blocks:75 fp8:40 vae:80 offload:60 training:45)
export OUT=${OUT:-results/gpu} COMMIT=${COMMIT:-$(git rev-parse HEAD 2>/dev/null)} PYTHONUNBUFFERED=1
python=${PYTHON:-python3} total=$((seconds * 1000 - 8000 * seconds / 480)) start=$(date +%s%3N)
mkdir -p "$OUT" && OUT=$(cd "$OUT" && pwd)
log=$OUT/gpu.log
rm -f "$OUT"/*.jsonl "$log"

site=$(mktemp -d)
trap 'rm -rf "$site"' EXIT
if compgen -G '.whl/*.whl' >/dev/null; then
    timeout 30 "$python" -m pip install --quiet --no-index --no-deps --no-compile --target "$site" .whl/*.whl >>"$log" 2>&1
fi
export PYTHONPATH=$site:$PWD/src:$PWD/benchmarks${PYTHONPATH:+:$PYTHONPATH}

printf -v shares '%s\n' "${parts[@]#*:}"
later=$(($(paste -sd+ <<<"${shares%$'\n'}")))
for part in "${parts[@]}"; do
    name=${part%:*} now=$(date +%s%3N)
    later=$((later - ${part#*:}))
    limit=$((total - (now - start) - later * seconds * 1000 / 480))
    printf '\n== %s, at most %d s\n' "$name" $((limit / 1000)) | tee -a "$log"
    lines=$(wc -l <"$log")
    timeout --kill-after=1 "$((limit / 1000)).$(printf %03d $((limit % 1000)))" "$python" -m "gpu.$name" "$@" >>"$log" 2>&1
    status=$? spent=$(($(date +%s%3N) - now))
    # How it ended is a row, too; what it said last only where that was not well.
    said=
    ((status)) && said=$(tail -n "+$((lines + 1))" "$log" | tail -n 12 | tail -c 1500 | LC_ALL=C tr -c '[:print:]\n' ' ' | sed 's/[\\"]/\\&/g' | awk '{printf "%s\\n", $0}')
    printf '{"table": "end", "status": %d, "seconds": %d.%03d, "limit": %d, "said": "%s"}\n' \
        "$status" $((spent / 1000)) $((spent % 1000)) $((limit / 1000)) "$said" >>"$OUT/$name.jsonl"
    echo "$name: status $status after $((spent / 1000)) s, $(wc -l <"$OUT/$name.jsonl") rows" | tee -a "$log"
done
