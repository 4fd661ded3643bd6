#!/usr/bin/env bash
# Trains the embedded miniature into RUNS (default: runs) and assembles it in RUNS/tiny. Run it again to continue.
set -euo pipefail
runs=${1:-runs}
mkdir -p "$runs"
export OMP_NUM_THREADS=1 # the two trainings take one core each

[ -f "$runs/text/text_encoder_2/tokenizer_config.json" ] || hunyuan-video train text --out "$runs/text"
{
    hunyuan-video train vae --out "$runs/vae-small"
    hunyuan-video train vae --out "$runs/vae" --part decoder --weights "$runs/vae-small/vae" --size 128 --max-stride 2 --num-steps 1400 --learning-rate 4e-4
} &
vae=$!
trap 'kill $vae 2>/dev/null || true' EXIT
until [ -f "$runs/vae-small/pca.safetensors" ]; do
    kill -0 $vae # ends the script if the VAE training has
    sleep 1
done
encoders=(--pca "$runs/vae-small/pca.safetensors" --text "$runs/text")
hunyuan-video train cache --out "$runs/cache-small" "${encoders[@]}" --buckets 17x64x64 33x64x64 1x128x128 --shares 0.5 0.15 0.35
hunyuan-video train cache --out "$runs/cache-large" "${encoders[@]}" --seed 1000000 --num-clips 90000 \
    --buckets 1x128x128 33x128x128 17x128x128 33x96x96 33x96x128 33x128x96 1x96x128 1x128x96 1x96x96 --shares 0.76 0.16 0.02 0.01 0.01 0.01 0.01 0.01 0.01
cp "$(dirname "$0")/transformer.toml" "$runs" # its paths are relative to where it is
hunyuan-video train recipe "$runs/transformer.toml" --out "$runs"
wait $vae
trap - EXIT
python "$(dirname "$0")/assemble.py" "$runs" "$runs/tiny"
hunyuan-video evaluate embedded --weights "$runs/tiny" --out "$runs/evaluation"
