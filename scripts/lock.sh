#!/bin/sh
# Write constraints.txt: the newest versions that fit, but for those held back here.
set -eu

# Tried together. A newer Sphinx needs a newer Python than 3.11, and a newer soupsieve than
# the 3.11.2 of Debian 12; torch and torchvision are a pair, and another pair does not
# import.
held="Sphinx==9.0.4 soupsieve==2.10 torch==2.15.0 torchvision==0.29.2"

fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT
"${PYTHON:-python3}" -m venv "$fresh"
pip="$fresh/bin/python -m pip --disable-pip-version-check --no-input"
$pip install --quiet --upgrade pip setuptools
# shellcheck disable=SC2086
$pip install --editable . --group dev $held
{
    echo "# The exact versions that every build uses; written by \`make lock\`."
    $pip freeze --all --exclude-editable
} >"$fresh/constraints.txt"
mv "$fresh/constraints.txt" constraints.txt
