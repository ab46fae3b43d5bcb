# Sourced by train.sh, test.sh and the scripts of inference/. Leaves in PYTHON the path of a Python that has all that
# pyproject.toml asks for: the active one (a conda environment, an activated venv) where it fits, else that of .venv in
# the project's folder, which is made the first time with uv, or with pip where there is no uv.
# GENVS_EXTRAS names the extras that are needed too, with spaces between: GENVS_EXTRAS="test".

genvs_root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
genvs_venv=$genvs_root/.venv
genvs_extras=${GENVS_EXTRAS:-}

genvs_fail() {
    echo "Error: $1" >&2
    exit 2
}

# Prints the path of an active Python that has everything.
genvs_active_python() {
    local name
    for name in python python3; do
        "$name" "$genvs_root/dnnlib/environment.py" $genvs_extras 2>/dev/null && return
    done
    return 1
}

# Prints the path of a Python that .venv can be made with.
genvs_base_python() {
    local name check='import sys; sys.version_info < (3, 10) and sys.exit(1); import venv, ensurepip; print(sys.executable)'
    for name in python3 python3.13 python3.12 python3.11 python3.10 python; do
        "$name" -c "$check" 2>/dev/null && return
    done
    return 1
}

# What an install depends on; the folder too, since an editable install holds its path.
genvs_fingerprint() {
    { echo "$genvs_root"; cat "$genvs_root/pyproject.toml" "$genvs_root/constraints.txt"; } | cksum
}

# A stamp for the base and for each extra is written when its install has ended well, and only then.
genvs_is_installed() {
    local part fingerprint
    [[ -x $genvs_venv/bin/python ]] || return 1
    fingerprint=$(genvs_fingerprint)
    for part in base $genvs_extras; do
        [[ -f $genvs_venv/installed-$part && $(<"$genvs_venv/installed-$part") == "$fingerprint" ]] || return 1
    done
}

# Runs a command with its output in .venv/install.log; on a terminal the newest line of it is shown meanwhile.
genvs_logged() {
    if [[ ! -t 2 ]]; then
        "$@" >>"$genvs_venv/install.log" 2>&1
        return
    fi
    local line status
    "$@" 2>&1 | tee -a "$genvs_venv/install.log" |
        while IFS= read -r line; do printf '\r\033[K%s' "${line:0:79}" >&2; done
    status=${PIPESTATUS[0]}
    printf '\r\033[K' >&2
    return "$status"
}

genvs_install_with_uv() {
    genvs_logged uv venv --allow-existing --python "$1" "$genvs_venv" &&
        genvs_logged uv pip install --python "$genvs_venv/bin/python" --torch-backend=auto -c constraints.txt -e "$2"
}

genvs_install_with_pip() {
    local python=$genvs_venv/bin/python
    [[ -x $python ]] || genvs_logged "$1" -m venv "$genvs_venv" || return
    "$python" -m pip --version >/dev/null 2>&1 || genvs_logged "$python" -m ensurepip || return
    genvs_logged "$python" -m pip install --disable-pip-version-check -c constraints.txt -e "$2"
}

# Goes on with what is there already, be it from an install that was interrupted, unless its Python does not run.
genvs_install() {
    local base part project=. reason
    base=$(genvs_base_python) || genvs_fail \
        "no Python >= 3.10 with venv was found: install python3 (on Debian python3-venv too), run this again."
    [[ -z $genvs_extras ]] || project=".[${genvs_extras// /,}]"
    if compgen -G "$genvs_venv/installed-*" >/dev/null; then
        echo "Bringing the environment in .venv up to date…" >&2
    else
        echo "Making the environment in .venv (first time, a few minutes)…" >&2
    fi
    if ! "$genvs_venv/bin/python" -c "" 2>/dev/null; then
        rm -rf "$genvs_venv"
    elif ! "$genvs_venv/bin/python" -c 'import sys; sys.exit(sys.version_info < (3, 10))'; then
        genvs_fail "the Python in $genvs_venv is older than 3.10: delete that folder and run this again."
    fi
    { mkdir -p "$genvs_venv" && : >"$genvs_venv/install.log"; } 2>/dev/null || genvs_fail \
        "$genvs_venv cannot be written: make the folder writable, or activate an environment of your own."
    for part in base $genvs_extras; do rm -f "$genvs_venv/installed-$part"; done
    cd "$genvs_root" || return
    if ! command -v uv >/dev/null; then
        genvs_install_with_pip "$base" "$project"
    elif ! genvs_install_with_uv "$base" "$project"; then
        echo "uv could not do it; trying pip…" >&2
        genvs_install_with_pip "$base" "$project"
    fi || {
        reason=$(grep -m 1 -E '^ *(ERROR|Error): ' "$genvs_venv/install.log")
        reason=${reason#*: }
        genvs_fail "the environment could not be made (${reason:-no reason given}): see .venv/install.log and run this again."
    }
    for part in base $genvs_extras; do genvs_fingerprint >"$genvs_venv/installed-$part"; done
}

if ! PYTHON=$(genvs_active_python); then
    genvs_is_installed || (genvs_install) || exit
    PYTHON=$genvs_venv/bin/python
fi
