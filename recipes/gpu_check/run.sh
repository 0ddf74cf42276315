#!/usr/bin/env bash
# Check divergence and packed groups on one GPU, and time them; needs torch, transformers and triton alone:
#   recipes/gpu_check/run.sh [--out FOLDER]
set -euo pipefail

cd "$(dirname "$0")/../.."
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
exec python recipes/gpu_check/gpu_check.py "$@"
