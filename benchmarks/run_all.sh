#!/usr/bin/env bash
# Runs benchmarks one after the other:
#
#   bash benchmarks/run_all.sh FOLDER [COMMAND...]
#
# Leaves in FOLDER: report.md, with the table of each, and log.txt. A command is
# a name, with options if it is quoted: "train_step --precision tf32". Without
# commands it runs those for one GPU. One that fails, or takes longer than LIMIT
# seconds (300), is named and does not stop the others. COMMIT names the commit
# where there is no .git.
set -uo pipefail
[[ ${1:-} != --help ]] || exec sed -En 's/^#( |$)//p' "${BASH_SOURCE[0]}"

if (($# == 0)); then
    echo "Error: no folder: give one for the results, as in: bash benchmarks/run_all.sh /tmp/benchmarks" >&2
    exit 2
fi
mkdir -p "$1" || exit 2
out=$(cd "$1" && pwd)
shift
commands=("$@")
if ((${#commands[@]} == 0)); then
    commands=(floors parts train_step sample loader e2e startup)
    ! command -v nvidia-smi >/dev/null || commands+=("train_step --batch 24" "train_step --precision "{tf32,fp32})
fi
CDPATH='' cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit
source dnnlib/environment.sh
: >"$out/log.txt"
: >"$out/report.md"

failed=()
for command in "${commands[@]}"; do
    read -ra words <<<"$command"
    timeout "${LIMIT:-300}" "$PYTHON" -m "benchmarks.${words[0]}" "${words[@]:1}" 2>>"$out/log.txt" |
        tee -a "$out/report.md" || failed+=("$command")
done
if ((${#failed[@]})); then
    printf 'Failed (see %s): %s\n' "$out/log.txt" "$(IFS=,; echo "${failed[*]}")" >&2
    exit 1
fi
