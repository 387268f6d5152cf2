#!/bin/sh
# Make the environment .venv, or bring it up to date with pyproject.toml and
# constraints.txt. The new one is made beside it, in .venv.new, and takes its place when
# it is whole: if anything fails, for lack of a network for instance, .venv is kept.
# With --check, only exit with status 0 if .venv is up to date.
set -eu
cd "$(dirname "$0")/.."

new=.venv.new
old=.venv.old
mark=.venv/.current # what .venv was made from
here=$(pwd -P)
python=${PYTHON:-python3}
PATH=${PATH#"$here/.venv/bin:"} # make an environment with the Python of the system

fail() {
    echo "make: $*" >&2
    exit 1
}

# All that an environment depends on: its folder, its version of Python, and what the two
# files say, without comments and the settings of other tools. Times do not count: git
# renews them when it goes to another branch and back.
wanted() {
    echo "$here"
    "$1/bin/python" -V 2>/dev/null | sed 's/\.[^.]*$//'
    awk '/^[ \t\r]*(#|$)/ { next }
        FILENAME ~ /toml$/ && /^\[/ {
            skip = !/^\[+(build-system|project|dependency-groups)/ }
        FILENAME ~ /txt$/ { skip = 0 }
        !skip { sub(/[ \t\r]+$/, ""); print }' pyproject.toml constraints.txt
}

current() {
    [ -s $mark ] && [ "$(wanted .venv)" = "$(cat $mark)" ]
}

# Earlier versions left an empty mark, and went by the times of the files.
adopt() {
    [ -e $mark ] && [ ! -s $mark ] && [ ! -e .venv/.installing ] &&
        .venv/bin/python -V >/dev/null 2>&1 &&
        [ -z "$(find pyproject.toml constraints.txt -newer $mark)" ] &&
        wanted .venv >$mark
}

# Begin with what is installed in .venv, as links to the same files, or with nothing.
begin() {
    why= quiet=
    if [ -e .venv ] && ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
        why="its Python is gone, or has no pip"
    elif [ ! -e $mark ] || [ -e .venv/.installing ]; then
        why="it is not whole"
    elif [ -s $mark ] && [ "$(head -n 1 $mark)" != "$here" ]; then
        why="it was made in another folder, $(head -n 1 $mark)"
    elif cp -al .venv/. $new 2>/dev/null; then
        rm $new/.current
        quiet=--quiet
        return
    fi
    rm -rf $new
    [ ! -e .venv ] || [ -z "$why" ] || echo "make: .venv is made anew: $why" >&2
    command -v "$python" >/dev/null ||
        fail "there is no $python; install Python 3.11 or later, or: make PYTHON=..."
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        fail "$("$python" -V) is too old, Dian needs 3.11 or later: make PYTHON=..."
    "$python" -c 'import ensurepip, venv' 2>/dev/null ||
        fail "$python has no venv module; on Debian: apt-get install python3-venv"
    "$python" -m venv $new
}

if [ "${1:-}" = --check ]; then
    current
    exit
fi
# Two commands may need it at once: the second waits, and finds it made.
if command -v flock >/dev/null; then
    exec 9<scripts/environment.sh
    flock 9
fi
[ -e .venv ] || [ ! -e $old ] || mv $old .venv # it was killed between the last lines
if current || adopt; then
    exit
fi
rm -rf $new $old
trap '[ ! -e .venv ] || echo "make: .venv is kept as it was" >&2' EXIT
begin
pip="$new/bin/python -m pip --disable-pip-version-check --no-input"
$pip install --quiet --constraint constraints.txt pip setuptools
# With the setuptools that is there: no network is needed if nothing else is missing.
$pip install --quiet --no-build-isolation --no-deps --editable .
$pip install $quiet --constraint constraints.txt --build-constraint constraints.txt \
    dian --group dev
# Scripts name the Python that they were installed for.
find $new/bin $new/pyvenv.cfg -type f -exec grep -Iq '\.venv\.new' {} \; \
    -exec sed -i 's/\.venv\.new/.venv/g' {} \;
wanted $new >$new/.current
trap - EXIT
[ ! -e .venv ] || mv .venv $old
mv $new .venv
rm -rf $old
