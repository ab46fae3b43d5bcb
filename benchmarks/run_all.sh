#!/usr/bin/env bash
# Runs benchmarks one after the other: bash benchmarks/run_all.sh FOLDER [NAME...]
#
# Leaves in FOLDER: report.md, NAME.json (all figures) and log.txt. Without names it runs those for one GPU; `scaling`
# and `cpu` are run by name. One that fails, or takes longer than LIMIT seconds (300), is named and does not stop the
# others. COMMIT names the commit where there is no .git.
set -uo pipefail

if (($# == 0)); then
    echo "Error: no folder: give one for the results, as in: bash benchmarks/run_all.sh /tmp/benchmarks" >&2
    exit 2
fi
mkdir -p "$1" || exit 2
out=$(cd "$1" && pwd)
shift
names=("$@")
((${#names[@]})) || names=(ceilings floors parts train_step kernels sample loader e2e startup)
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit
source dnnlib/environment.sh
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
: >"$out/log.txt"

# One dataset for all benchmarks that need one.
data=()
if [[ " ${names[*]} " =~ " "(loader|e2e|scaling)" " ]]; then
    "$PYTHON" -m genvs.data.synthetic --out "$work/cars" --scenes 40 --views 50 --val-scenes 4 --test-scenes 0 \
        >>"$out/log.txt" 2>&1 && data=(--data "$work/cars")
fi

failed=()
for name in "${names[@]}"; do
    options=()
    case $name in
        loader | e2e | scaling) options=("${data[@]}") ;;
        cpu) options=(--preset srn128) ;;
        train_step) ! command -v nvidia-smi >/dev/null || options=(--precision bf16 --precision tf32 --precision fp32) ;;
    esac
    echo "== $name, $(date +%T)" | tee -a "$out/log.txt"
    timeout "${LIMIT:-300}" "$PYTHON" -m "benchmarks.$name" "${options[@]}" --out "$out/$name.json" 2>>"$out/log.txt" |
        tee -a "$out/log.txt" || failed+=("$name")
done

"$PYTHON" -m benchmarks.report "$out"/*.json --out "$out/report.md"
if ((${#failed[@]})); then
    echo "Failed (see $out/log.txt): ${failed[*]}" | tee -a "$out/log.txt"
    exit 1
fi
