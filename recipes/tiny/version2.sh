#!/usr/bin/env bash
# Trains version 2 of the embedded miniature, from version 1, into RUNS (default: runs-2) and assembles it in RUNS/tiny. Run it again to
# continue. One core. FOOTAGE names videos of real things, which are only measured.
set -euo pipefail
runs=${1:-runs-2}
here=$(dirname "$0")
tiny=$(python -c "from hunyuan_video import weights; print(weights.EMBEDDED)")
mkdir -p "$runs"
export OMP_NUM_THREADS=1

# The transformer, on latents as they are.
[ -f "$runs/pca.safetensors" ] || python "$here/basis.py" "$tiny/hunyuan-video-t2v-720p/vae" "$runs/pca.safetensors"
buckets=(--buckets 1x128x128 33x128x128 17x128x128 33x96x96 33x96x128 33x128x96 --shares 0.6 0.3 0.025 0.025 0.025 0.025)
cache=(--pca "$runs/pca.safetensors" --text "$tiny" "${buckets[@]}" --coloured 0.15 --vague 0.12 --workers 1 --shard-size 500)
hunyuan-video train cache --out "$runs/cache-2-held-out" "${cache[@]}" --seed 4000000 --num-clips 150
hunyuan-video train cache --out "$runs/cache-2" "${cache[@]}" --seed 3000000 --num-clips 16000
[ -f "$runs/unguided.safetensors" ] ||
    python "$here/unguided.py" "$tiny/hunyuan-video-t2v-720p/transformers/mp_rank_00_model_states.safetensors" "$runs/unguided.safetensors"
cp "$here/version2.toml" "$runs" # its paths are relative to where it is
hunyuan-video train recipe "$runs/version2.toml" --out "$runs"

# The VAE sees the world and what the world lacks; its latents of the world stay where the transformer knows them.
python "$here/awake.py" "$tiny/hunyuan-video-t2v-720p/vae" "$runs/vae-awake"
common=(--part full --nature 0.6 --anchor "$tiny")
hunyuan-video train vae "${common[@]}" --out "$runs/vae-small" --weights "$runs/vae-awake" --num-steps 20000 --learning-rate 4e-4
hunyuan-video train vae "${common[@]}" --out "$runs/vae" --weights "$runs/vae-small/vae" --size 128 --num-frames 33 \
    --num-steps 5000 --learning-rate 3e-4 --eval-every 500

ln -sfn "$tiny" "$runs/text"
python "$here/assemble.py" "$runs" "$runs/tiny" first last continuation
judged=(--dtype bfloat16 --vae-dtype bfloat16 --footage ${FOOTAGE:-})
hunyuan-video evaluate embedded --out "$runs/version1" --weights "$tiny" "${judged[@]}"
mkdir -p "$runs/version2"
cp "$runs/version1"/judge_*.safetensors "$runs/version2" # the same for both
hunyuan-video evaluate embedded --out "$runs/version2" --weights "$runs/tiny" "${judged[@]}" --before "$runs/version1/evaluation.json"
