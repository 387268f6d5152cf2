#!/bin/sh
# Write the notebooks of the gallery to a branch that Colab and Binder read.
#
#   sh scripts/notebook_branch.sh GALLERY REMOTE REPOSITORY BRANCH
#
# GALLERY is the folder in which a build has made them (docs/gallery), REMOTE is what git
# pushes to, and REPOSITORY is the address from which pip installs the library. The
# branch has one commit, which replaces the last one.
set -eu

[ $# -eq 4 ] || { sed -n '4,8s/^# \{0,1\}//p' "$0" >&2; exit 2; }
gallery=$(cd "$1" && pwd)
remote=$2
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

cd "$gallery"
find . -name '*.ipynb' | while read -r notebook; do
    mkdir -p "$folder/$(dirname "$notebook")"
    cp "$notebook" "$folder/$notebook"
done
echo "dian @ git+$3" >"$folder/requirements.txt"

cd "$folder"
git init -q
git add .
git -c user.name=dian -c user.email=dian@localhost commit -q -m "Notebooks of the gallery"
git push -q --force "$remote" "HEAD:refs/heads/$4"
