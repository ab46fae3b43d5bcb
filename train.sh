#!/usr/bin/env bash
# Trains GeNVS: ./train.sh [train.py's options]. Makes the environment the first time, then runs train.py with one
# process for each visible GPU, or one process without a GPU.
#
#   CUDA_VISIBLE_DEVICES=1,3 ./train.sh    these GPUs
#   NGPU=2 ./train.sh                      this many processes
#
# For several machines run it on each with torchrun's own variables set, for example
#   PET_NNODES=2 PET_NODE_RANK=0 PET_MASTER_ADDR=host0 PET_MASTER_PORT=29500 ./train.sh --outdir /shared/runs
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
source dnnlib/environment.sh

# Counts the GPUs without starting torch.
visible_gpus() {
    local present listed
    if command -v nvidia-smi >/dev/null; then
        present=$(nvidia-smi -L 2>/dev/null | grep -c '^GPU' || true)
    else
        present=$(find /dev -maxdepth 1 -name 'nvidia[0-9]*' | wc -l)
    fi
    # CUDA stops reading its list at the first -1.
    listed=$(tr ',' '\n' <<<"${CUDA_VISIBLE_DEVICES-all}" | sed '/^-1/,$d' | grep -c . || true)
    if [[ -n ${CUDA_VISIBLE_DEVICES+set} ]] && ((listed < present)); then echo "$listed"; else echo "$present"; fi
}

if [[ -z ${NGPU:-} ]]; then
    NGPU=$(visible_gpus)
    ((NGPU > 0)) || NGPU=1
elif [[ ! $NGPU =~ ^[1-9][0-9]*$ ]]; then
    echo "Error: NGPU=$NGPU is not a number of processes: give 1 or more, or leave it unset." >&2
    exit 2
fi

nodes=${PET_NNODES:-1}
export WORLD_SIZE=$((NGPU * ${nodes##*:}))
for argument in "$@"; do
    case $argument in
        --help | --dry-run | -n) exec "$PYTHON" train.py "$@" ;;
    esac
done

# The options are checked before anything starts: torchrun would bury a message of one line in tracebacks.
"$PYTHON" train.py --dry-run "$@" >/dev/null
unset WORLD_SIZE

# Each process gets its share of the cores, and a lone one leaves a core free: OpenMP's threads spin while they wait for
# each other, and where something else needs one of their cores every step takes many times longer.
if [[ -z ${OMP_NUM_THREADS:-} ]]; then
    cores=$(getconf _NPROCESSORS_ONLN)
    threads=$((NGPU > 1 ? cores / NGPU : cores - 1))
    export OMP_NUM_THREADS=$((threads > 0 ? threads : 1))
fi

[[ -n ${PET_NNODES:-}${PET_NODE_RANK:-}${PET_MASTER_ADDR:-}${PET_RDZV_ENDPOINT:-} ]] || export PET_STANDALONE=1
exec "$PYTHON" -m torch_utils.launch --nproc-per-node="$NGPU" train.py "$@"
