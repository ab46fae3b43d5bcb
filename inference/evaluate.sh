#!/usr/bin/env bash
# Measures a snapshot on held-out objects: inference/evaluate.sh --data DATASET [evaluate.py's options, or --help]. Makes
# the environment the first time, then runs evaluate.py with one process for each visible GPU, or one without a GPU.
# Paths in the options are relative to where you stand.
#
#   NGPU=2 inference/evaluate.sh ...                 this many processes
#   GENVS_EXTRAS=metrics inference/evaluate.sh ...   with what LPIPS, DISTS, FID and KID need
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@"  # started by sh
set -euo pipefail
[[ ! -L ${BASH_SOURCE[0]} ]] || exec "$(readlink -f "${BASH_SOURCE[0]}")" "$@"
root=$(CDPATH='' cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
source "$root/dnnlib/environment.sh"
source "$root/dnnlib/processes.sh"
launch "$root/inference/evaluate.py" "$@"
