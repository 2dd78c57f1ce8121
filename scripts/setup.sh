#!/bin/sh
# Makes .venv (another folder: second argument) with this project in it: `scripts/setup.sh demo` what running
# needs, `scripts/setup.sh dev` also what testing and checking need. PYTHON says which interpreter to take.
# Works on a fresh Debian or Ubuntu; says the exact command where it may not act.
set -eu
cd "$(dirname "$0")/.."
. scripts/apt.sh

stage=${1:-dev}
venv=${2:-.venv}

is_new_enough() {
    command -v "$1" >/dev/null 2>&1 && "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

find_python() {
    for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11}; do
        if is_new_enough "$candidate"; then
            echo "$candidate"
            return
        fi
    done
    if [ -n "${PYTHON:-}" ]; then
        echo "PYTHON=$PYTHON does not run, or is older than Python 3.11" >&2
    else
        echo "Python 3.11 or newer is needed; set PYTHON=/path/to/it, or: sudo apt-get install -y python3" >&2
    fi
    exit 1
}

make_venv() {
    python=$(find_python)
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
        apt_install "python$version-venv" "$python cannot make virtual environments yet"
    fi
    echo "making $venv with $("$python" --version)"
    "$python" -m venv --clear "$venv"
}

if ! "$venv/bin/python" -c 'import pip' 2>/dev/null; then
    make_venv
fi
case $stage in
    demo) set -- -e . ;;
    dev) set -- -e ".[dev]" -e ./dropin ;;
    *) echo "usage: scripts/setup.sh demo|dev [FOLDER]" >&2; exit 2 ;;
esac
echo "installing into $venv: $* ..."
"$venv/bin/python" -m pip install -qq --disable-pip-version-check --no-input "$@"
touch "$venv/.$stage-ready"
