#!/usr/bin/env bash
# Trains the embedded miniature into RUNS (default: runs) and assembles it in RUNS/tiny. Run it again to continue.
set -euo pipefail
runs=${1:-runs}
mkdir -p "$runs"
export OMP_NUM_THREADS=1 # the two trainings take one core each

[ -f "$runs/text/text_encoder_2/tokenizer_config.json" ] || hunyuan-video train text --out "$runs/text"
hunyuan-video train vae --out "$runs/vae" &
vae=$!
trap 'kill $vae 2>/dev/null || true' EXIT
until [ -f "$runs/vae/pca.safetensors" ]; do
    kill -0 $vae # ends the script if the VAE training has
    sleep 1
done
hunyuan-video train cache --out "$runs/cache" --pca "$runs/vae/pca.safetensors" --text "$runs/text"
cp "$(dirname "$0")/transformer.toml" "$runs" # its paths are relative to where it is
hunyuan-video train recipe "$runs/transformer.toml" --out "$runs"
wait $vae
trap - EXIT
python "$(dirname "$0")/assemble.py" "$runs" "$runs/tiny"
hunyuan-video evaluate --weights "$runs/tiny" --out "$runs/evaluation"
