#!/usr/bin/env bash
# Trains version 2 of the embedded miniature into RUNS and assembles it in RUNS/tiny, from VERSION1, the folder of version 1 that train.sh
# assembles: ./recipes/tiny/version2.sh RUNS VERSION1. Run it again to continue. One core. FOOTAGE names videos of real things, which are
# only measured.
set -euo pipefail
runs=${1:?folder of the runs} tiny=${2:?folder of version 1}
here=$(dirname "$0")
mkdir -p "$runs"
export OMP_NUM_THREADS=1

# The transformer, on latents as they are.
[ -f "$runs/pca.safetensors" ] || python "$here/basis.py" "$tiny/hunyuan-video-t2v-720p/vae" "$runs/pca.safetensors"
buckets=(--buckets 1x128x128 33x128x128 17x128x128 33x96x96 33x96x128 33x128x96 --shares 0.6 0.3 0.025 0.025 0.025 0.025)
cache=(--pca "$runs/pca.safetensors" --text "$tiny" "${buckets[@]}" --workers 1 --shard-size 500)
hunyuan-video train cache --out "$runs/cache-2-held-out" "${cache[@]}" --coloured 0.15 --vague 0.12 --seed 4000000 --num-clips 150
hunyuan-video train cache --out "$runs/cache-2" "${cache[@]}" --coloured 0.15 --vague 0.12 --seed 3000000 --num-clips 16000
hunyuan-video train cache --out "$runs/cache-3" "${cache[@]}" --coloured 0.4 --vague 0.3 --seed 5000000 --num-clips 10000
[ -f "$runs/unguided.safetensors" ] ||
    python "$here/unguided.py" "$tiny/hunyuan-video-t2v-720p/transformers/mp_rank_00_model_states.safetensors" "$runs/unguided.safetensors"
cp "$here/version2.toml" "$runs" # its paths are relative to where it is
hunyuan-video train recipe "$runs/version2.toml" --out "$runs"

# The VAE sees the world and what the world lacks; its latents of the world stay where the transformer knows them.
[ -f "$runs/vae-wider/config.json" ] ||
    python "$here/wider.py" "$tiny/hunyuan-video-t2v-720p/vae" "$runs/pca.safetensors" "$runs/vae-wider"
common=(--gradient-weight 0 --part full --anchor "$runs/pca.safetensors" --num-steps 4000 --learning-rate 5e-4)
hunyuan-video train vae --out "$runs/vae-decoder" --part decoder --nature 0.65 --weights "$runs/vae-wider" --mse-weight 20 --gradient-weight 0 \
    --num-steps 300 --learning-rate 1e-3
hunyuan-video train vae --out "$runs/vae-full" --weights "$runs/vae-decoder/vae" "${common[@]}" --nature 0.65 --mse-weight 20
hunyuan-video train vae --out "$runs/vae-sharp" --weights "$runs/vae-full/vae" "${common[@]}" --nature 0.75 --mse-weight 0 --log-mse-weight 0.1
# A transformer's latents are not exact, and the decoder makes no texture of what they are off.
hunyuan-video train vae --out "$runs/vae" --weights "$runs/vae-sharp/vae" --part decoder --anchor "$runs/pca.safetensors" --latent-noise 0.12 \
    --nature 0.5 --mse-weight 0 --log-mse-weight 0.1 --gradient-weight 0 --num-steps 700 --learning-rate 6e-4

ln -sfn "$(realpath "$tiny")" "$runs/text"
python "$here/assemble.py" "$runs" "$runs/tiny" first last continuation
judged=(--dtype bfloat16 --vae-dtype bfloat16 --footage ${FOOTAGE:-})
hunyuan-video evaluate embedded --out "$runs/version1" --weights "$tiny" "${judged[@]}"
mkdir -p "$runs/version2"
cp "$runs/version1"/judge_*.safetensors "$runs/version2" # the same for both
hunyuan-video evaluate embedded --out "$runs/version2" --weights "$runs/tiny" "${judged[@]}" --before "$runs/version1/evaluation.json"
