#!/usr/bin/env bash
# Novel views, or a video, from a folder of posed images: inference/inference.sh [inference.py's options, or --help].
# Makes the environment the first time. Paths in the options are relative to where you stand.
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@"  # started by sh
set -euo pipefail
[[ ! -L ${BASH_SOURCE[0]} ]] || exec "$(readlink -f "${BASH_SOURCE[0]}")" "$@"
root=$(CDPATH='' cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
source "$root/dnnlib/environment.sh"
exec "$PYTHON" "$root/inference/inference.py" "$@"
