#!/usr/bin/env bash
# Runs the tests: ./test.sh [pytest's options]. Makes the environment the first time.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
GENVS_EXTRAS="test" source dnnlib/environment.sh
exec "$PYTHON" -m pytest "$@"
