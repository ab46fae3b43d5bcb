# shellcheck shell=bash disable=SC2086,SC2046,SC2116
# Sourced by the project's scripts. Sets PYTHON to a Python with all requirements of pyproject.toml: the active one (of a
# conda environment or venv) if it has them, else that of .venv in the project's folder, which is made the first time,
# with uv if it is installed, else with pip. GENVS_EXTRAS names further extras: GENVS_EXTRAS="test metrics".

genvs_root=$(CDPATH='' cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
genvs_venv=$genvs_root/.venv
genvs_extras=${GENVS_EXTRAS:-}

genvs_check=$(<"$genvs_root/genvs/requirements.py")  # prints the running Python's path if it has all of them

genvs_fail() {
    echo "Error: $1" >&2
    exit 2
}

unset PYTHONHOME  # of another Python, as some clusters' modules set it
[[ . -ef $PWD ]] || genvs_fail "the folder $PWD, where you stand, was removed: cd to one that is there, run this again."

# Runs a program with several Pythons until one runs it without an error: genvs_first_that_runs PROGRAM ARGUMENTS...
genvs_first_that_runs() {
    local name
    for name in python python3 python3.13 python3.12 python3.11 python3.10; do
        (cd "$genvs_root" && "$name" -c "$@" 2>/dev/null) && return  # where you stand, a random.py may hide Python's
    done
    return 1
}

# A checksum of what an install depends on. An editable install holds the folder's path.
genvs_checksum() {
    { echo "$genvs_root"; cat "$genvs_root/pyproject.toml" "$genvs_root/constraints.txt"; } | cksum
}

# An install ends by writing .venv/installed: the checksum, and the installed extras.
genvs_is_installed() {
    local sum="" installed="" extra
    [[ -f $genvs_venv/installed ]] && { read -r sum && read -r installed; } <"$genvs_venv/installed"
    [[ $sum == "$(genvs_checksum)" ]] || return
    for extra in $genvs_extras; do [[ " $installed " == *" $extra "* ]] || return; done
}

genvs_install_with_uv() {
    uv venv --allow-existing --python "$1" "$genvs_venv" &&
        uv pip install --python "$genvs_venv/bin/python" --torch-backend=auto -c constraints.txt -e "$2"
}

genvs_install_with_pip() {
    local python=$genvs_venv/bin/python
    [[ -x $python ]] || "$1" -m venv "$genvs_venv" || return
    "$python" -m pip --version >/dev/null || "$python" -m ensurepip || return
    "$python" -m pip install --disable-pip-version-check -c constraints.txt -e "$2"
}

# Makes .venv, or completes an interrupted install.
genvs_install() {
    local project=. reason base log=$genvs_venv/install.log
    genvs_extras=$(echo $genvs_extras $(sed -n 2p "$genvs_venv/installed" 2>/dev/null))  # those that are installed stay
    base=$(genvs_first_that_runs 'import sys, venv, ensurepip; assert sys.version_info >= (3, 10); print(sys.executable)') ||
        genvs_fail "no Python >= 3.10 with venv was found: install python3 (on Debian python3-venv too), run this again."
    echo "Installing the environment in .venv (a few minutes the first time; its log is .venv/install.log)…" >&2
    "$genvs_venv/bin/python" -c "" 2>/dev/null || rm -rf "$genvs_venv"
    { mkdir -p "$genvs_venv" && rm -f "$genvs_venv/installed" && : >"$log"; } 2>/dev/null ||
        genvs_fail "$genvs_venv cannot be written: make the folder writable, or activate an environment of your own."
    [[ -z $genvs_extras ]] || project=".[${genvs_extras// /,}]"
    cd "$genvs_root" || return
    { command -v uv >/dev/null && genvs_install_with_uv "$base" "$project"; } >>"$log" 2>&1 ||
        genvs_install_with_pip "$base" "$project" >>"$log" 2>&1 || {
        reason=$(grep -m 1 -E '^ *(ERROR|Error): ' "$log" || echo "no reason given")
        genvs_fail "the environment could not be made (${reason#*: }): see .venv/install.log, run this again."
    }
    { genvs_checksum; echo "$genvs_extras"; } >"$genvs_venv/installed"
}

if ! PYTHON=$(genvs_first_that_runs "$genvs_check" "$genvs_root/pyproject.toml" $genvs_extras); then
    genvs_is_installed || (genvs_install) || exit
    # shellcheck disable=SC2034  # used by the script that sources this
    PYTHON=$genvs_venv/bin/python
fi
