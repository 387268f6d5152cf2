#!/bin/sh
# Install the packages of DIR/package-lock.json in DIR/node_modules: beside it, and then
# in its place, so that without a network what is there is kept. Contents are compared,
# not times. With --check, only exit with status 0 if they are up to date.
#     sh scripts/node_packages.sh DIR [--check]
set -eu
root=$(cd "$(dirname "$0")/.." && pwd -P)
cd "$1" 2>/dev/null || exit

new=.node_modules.new
# Of each package its checksum, which npm repeats in node_modules when it has ended.
sums() {
    grep -o '"integrity": *"[^"]*"' "$1" 2>/dev/null | sort
}

current() {
    [ -e node_modules/.package-lock.json ] &&
        [ "$(sums package-lock.json)" = "$(sums node_modules/.package-lock.json)" ]
}

if [ "${2:-}" = --check ]; then
    current
    exit
fi
if current; then
    exit
fi
rm -rf $new
mkdir $new
trap 'rm -rf "$new"' EXIT
cp package.json package-lock.json "$root/.npmrc" $new
# Whatever the caller's npm is set to leave out.
"$root/.venv/bin/npm" ci --prefix $new --include=dev --include=optional \
    --global=false --package-lock=true --dry-run=false --workspaces=false
rm -rf node_modules
mv $new/node_modules node_modules
