#!/usr/bin/env bash
# Runs the tests: ./test.sh [pytest's options]. Makes the environment the first time. With --all, tests/faults tries
# every kill, stop and mutation (docs/reliability.md), which takes ten minutes or more. Runs on all cores, but with -n0.
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@"  # started by sh
set -euo pipefail
CDPATH='' cd "$(dirname "${BASH_SOURCE[0]}")"
GENVS_EXTRAS="test" source dnnlib/environment.sh
# In the order of files: those with whole runs come first, so that no process is left alone with them.
exec "$PYTHON" -m pytest -n auto --dist loadfile --no-loadscope-reorder "$@"
