#!/bin/sh
# Makes the virtual environment .venv, or completes it.
#
#   sh scripts/setup.sh run|test|lint
#
# Called by make, which compares the stamps .venv/.ready-* with pyproject.toml and
# constraints.txt. The stamp is written last, so whatever was interrupted is taken up again.
# PYTHON names the Python to use, TORCH is auto, cpu or cuda.
set -eu
cd "$(dirname "$0")/.."
root=$(pwd -P)
venv=.venv
purpose=${1:-run}
cpu_index=https://download.pytorch.org/whl/cpu

case $purpose in
    run) extras='' implied='run' ;;
    test) extras='[test]' implied='run test' ;;
    lint) extras='[test,lint]' implied='run test lint' ;;
    *) echo "setup.sh expects run, test or lint, not '$purpose'." >&2; exit 2 ;;
esac

fail() {
    printf '\nSetup stopped. %s\n' "$1" >&2
    exit 1
}

# 0: fits; 1: no Python or another version; 2: fits but cannot make environments.
python_fits() {
    "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
        >/dev/null 2>&1 || return 1
    "$1" -c 'import ensurepip, venv' >/dev/null 2>&1 || return 2
}

find_python() {
    incomplete=''
    for name in ${PYTHON:-python3.11 python3.12 python3.13 python3 python}; do
        if python_fits "$name"; then
            echo "$name"
            return
        elif [ $? -eq 2 ] && [ -z "$incomplete" ]; then
            incomplete=$name
        fi
    done
    if [ -n "$incomplete" ]; then
        fail "$incomplete is there, but without its modules venv and ensurepip. On Debian and \
Ubuntu: sudo apt-get install $("$incomplete" -c \
'import sys; print("python%d.%d-venv" % sys.version_info[:2])')."
    fi
    found=${PYTHON:+PYTHON=$PYTHON is none of them}
    fail "Python 3.11, 3.12 or 3.13 is needed, but ${found:-none was found}. Install one (Debian \
and Ubuntu: sudo apt-get install python3 python3-venv; macOS: brew install python@3.12), or name \
one: make PYTHON=/path/to/python3.12."
}

# An environment is of use when its Python runs, has pip, and was made for this very folder.
is_usable() {
    [ -x $venv/bin/python ] && python_fits $venv/bin/python \
        && $venv/bin/python -m pip --version >/dev/null 2>&1 \
        && grep -qsF "$root/$venv/bin/python" $venv/bin/pip
}

# pip writes INSTALLER after a package's files: without it the copying was interrupted, and
# pip would take the package for installed.
forget_half_installed() {
    for info in $venv/lib/python3.*/site-packages/*.dist-info; do
        if [ -d "$info" ] && [ ! -f "$info/INSTALLER" ]; then
            echo "Repairing $(basename "$info" .dist-info), whose installation was interrupted."
            rm -rf "$info"
        fi
    done
    rm -rf $venv/lib/python3.*/site-packages/~*
}

has_nvidia_gpu() {
    command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L >/dev/null 2>&1
}

wants_cpu_build() {
    case ${TORCH:-auto} in
        cpu) return 0 ;;
        cuda) return 1 ;;
        auto) ! has_nvidia_gpu ;;
        *) fail "TORCH expects auto, cpu or cuda, not '$TORCH'." ;;
    esac
}

cpu_index_answers() {
    $venv/bin/python - "$cpu_index/torch/" <<'PY' 2>/dev/null
import sys, urllib.request
urllib.request.urlopen(urllib.request.Request(sys.argv[1], method="HEAD"), timeout=5)
PY
}

# Only the wheel itself comes from PyTorch's index; what it depends on is pinned and comes
# with everything else. Elsewhere than on Linux the package index has no other build.
install_torch() {
    wanted=$(sed -n 's/^torch==//p' constraints.txt)
    found=$($venv/bin/python -c \
        'from importlib.metadata import version; print(version("torch").split("+")[0])' \
        2>/dev/null || true)
    [ "$found" = "$wanted" ] && return
    [ "$(uname -s)" = Linux ] || return 0
    wants_cpu_build || return 0
    if cpu_index_answers; then
        pip_install --no-deps --index-url $cpu_index torch && return
    fi
    echo "PyTorch's index of CPU builds does not answer: taking what the package index has," \
        "which may be several GB."
}

pip_install() {
    # Bars for people, errors alone for logs.
    [ -t 1 ] && quiet='' || quiet=-qq
    $venv/bin/python -m pip --disable-pip-version-check install $quiet \
        --constraint constraints.txt "$@"
}

# setuptools builds phosphene's own package right here, without an environment that pip
# would have to fetch anew: so a second run needs no network.
install_all() {
    pip_install pip setuptools && install_torch \
        && pip_install --no-build-isolation --editable ".$extras"
}

if ! is_usable; then
    python=$(find_python)
    echo "Making $venv with $("$python" --version). The first time this takes some minutes."
    rm -rf $venv
    "$python" -m venv "$root/$venv" || fail "$python could not make $venv. Its words stand above."
fi
forget_half_installed
echo "Installing the packages that constraints.txt pins, for: $implied."
install_all || fail "The packages could not be installed; pip's words stand above. If they speak of \
connections, check the network (or the proxy: HTTPS_PROXY) and run make again: what was \
downloaded is kept. If they speak of space, about 4 GB are needed here."
for done in $implied; do touch "$venv/.ready-$done"; done
