#!/usr/bin/env bash
# Trains on several machines without a scheduler. Run it on each, in the
# project's folder, with the machine's number:
#
#   examples/several_machines.sh NUMBER MACHINES FIRST_HOST [train.py's options]
#
#   examples/several_machines.sh 0 2 host0 --outdir /shared/runs    # on host0
#   examples/several_machines.sh 1 2 host0 --outdir /shared/runs    # on the other
#
# The variables are torchrun's own. Where gloo or NCCL choose the wrong network,
# set GLOO_SOCKET_IFNAME or NCCL_SOCKET_IFNAME to the interface that joins the
# machines.
set -euo pipefail
[[ ${1:-} != --help ]] || exec sed -En 's/^#( |$)//p' "${BASH_SOURCE[0]}"

if (($# < 3)); then
    echo "Error: give NUMBER MACHINES FIRST_HOST, as in: $0 0 2 host0 --outdir /shared/runs" >&2
    exit 2
fi
export PET_NODE_RANK=$1 PET_NNODES=$2 PET_MASTER_ADDR=$3 PET_MASTER_PORT=${PET_MASTER_PORT:-29500}
shift 3
exec "$(dirname "${BASH_SOURCE[0]}")/../train.sh" "$@"
