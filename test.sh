#!/usr/bin/env bash
# Runs the tests: ./test.sh [pytest's options]. Makes the environment the first time. With --all, tests/faults tries
# every kill, stop and mutation (docs/reliability.md), which takes half an hour.
set -euo pipefail
CDPATH='' cd "$(dirname "${BASH_SOURCE[0]}")"
GENVS_EXTRAS="test" source dnnlib/environment.sh
exec "$PYTHON" -m pytest "$@"
