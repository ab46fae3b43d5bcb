#!/usr/bin/env bash
# Shows an object in the browser: inference/viewer.sh [viewer.py's options, or --help]. Makes the environment the first
# time, with the extra `viewer`. Paths in the options are relative to where you stand.
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@"  # started by sh
set -euo pipefail
[[ ! -L ${BASH_SOURCE[0]} ]] || exec "$(readlink -f "${BASH_SOURCE[0]}")" "$@"
root=$(CDPATH='' cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
GENVS_EXTRAS="viewer ${GENVS_EXTRAS:-}" source "$root/dnnlib/environment.sh"
exec "$PYTHON" "$root/inference/viewer.py" "$@"
