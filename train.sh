#!/usr/bin/env bash
# Trains GeNVS: ./train.sh [train.py's options]. Makes the environment the first time, then runs train.py, with one process
# for each visible GPU.
#
#   CUDA_VISIBLE_DEVICES=1,3 ./train.sh    these GPUs
#   NGPU=2 ./train.sh                      this many processes
#
# For several machines run it on each, with torchrun's own variables, for example
#   PET_NNODES=2 PET_NODE_RANK=0 PET_MASTER_ADDR=host0 PET_MASTER_PORT=29500 ./train.sh --outdir /shared/runs
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@"  # started by sh
set -euo pipefail
[[ ! -L ${BASH_SOURCE[0]} ]] || exec "$(readlink -f "${BASH_SOURCE[0]}")" "$@"
root=$(CDPATH='' cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source "$root/dnnlib/environment.sh"
source "$root/dnnlib/processes.sh"
launch "$root/train.py" "$@"
