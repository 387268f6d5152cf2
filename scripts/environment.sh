#!/bin/sh
# Make the environment .venv, or bring it up to date with constraints.txt. If an earlier
# attempt was interrupted, what it left is thrown away: half a package looks installed.
set -eu

venv=.venv
mark=$venv/.installing # there while packages are being written
python=${PYTHON:-python3}
PATH=${PATH#"$PWD/$venv/bin:"} # make an environment with the Python of the system

fail() {
    echo "make: $*" >&2
    exit 1
}

create() {
    command -v "$python" >/dev/null ||
        fail "there is no $python; install Python 3.11 or later, or: make PYTHON=..."
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        fail "$("$python" -V) is too old, Dian needs 3.11 or later: make PYTHON=..."
    "$python" -c 'import ensurepip, venv' 2>/dev/null ||
        fail "$python has no venv module; on Debian: apt-get install python3-venv"
    # Renamed first: half of an environment must not be taken for one.
    mkdir -p build
    rm -rf build/discarded
    [ ! -e "$venv" ] || mv "$venv" build/discarded
    rm -rf build/discarded
    "$python" -m venv "$venv"
}

if [ -e "$mark" ] || ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    create
fi
touch "$mark"
pip="$venv/bin/python -m pip --disable-pip-version-check --no-input"
$pip install --quiet --constraint constraints.txt pip setuptools
$pip install --constraint constraints.txt --build-constraint constraints.txt \
    --editable . --group dev
rm "$mark"
touch "$venv/.current"
