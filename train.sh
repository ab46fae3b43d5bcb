#!/usr/bin/env bash
# Trains GeNVS: ./train.sh [train.py's options]. Makes the environment the first time, then runs train.py: through
# torchrun with one process for each visible GPU where there are several, else in one process.
#
# Relative paths in the options are taken from the folder of this script, where training_runs/ and datasets/ are, too.
#
#   CUDA_VISIBLE_DEVICES=1,3 ./train.sh    these GPUs
#   NGPU=2 ./train.sh                      this many processes
#
# For several machines run it on each with torchrun's own variables set, for example
#   PET_NNODES=2 PET_NODE_RANK=0 PET_MASTER_ADDR=host0 PET_MASTER_PORT=29500 ./train.sh --outdir /shared/runs
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
source dnnlib/environment.sh
source dnnlib/processes.sh

nodes=${PET_NNODES:-1}
export WORLD_SIZE=$((NGPU * ${nodes##*:}))
for argument in "$@"; do
    case $argument in
        --help | --dry-run | -n) exec "$PYTHON" train.py "$@" ;;
    esac
done

share_cores
((WORLD_SIZE > 1)) || exec "$PYTHON" train.py "$@"

# The options are checked before anything starts: torchrun would bury a message of one line in tracebacks.
"$PYTHON" train.py --dry-run "$@" >/dev/null
unset WORLD_SIZE

[[ -n ${PET_NNODES:-}${PET_NODE_RANK:-}${PET_MASTER_ADDR:-}${PET_RDZV_ENDPOINT:-} ]] || export PET_STANDALONE=1
exec "$PYTHON" -m torch_utils.launch --nproc-per-node="$NGPU" train.py "$@"
