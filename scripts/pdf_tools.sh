# Say in one line what `make pdf` needs and does not find, and end with status 1. The
# argument is the language of the edition, or --packages for the packages of all.
set -eu

packages="texlive-xetex texlive-fonts-recommended latexmk lmodern fonts-dejavu-core
    fonts-arphic-gbsn00lp poppler-utils"
chinese="texlive-lang-chinese fonts-noto-cjk"
if [ "${1:-}" = --packages ]; then
    echo $packages $chinese
    exit
fi
tools="latexmk xelatex pdftotext kpsewhich"
files="newunicodechar.sty lmroman10-regular.otf DejaVuSansMono.ttf gbsn00lp.ttf"
if [ "${1:-}" = zh_CN ]; then
    packages="$packages $chinese"
    tools="$tools upmendex"
    files="$files xeCJK.sty NotoSerifCJK-Regular.ttc"
fi

missing=
for tool in $tools; do
    command -v "$tool" >/dev/null || missing="$missing $tool"
done
for file in $files; do
    kpsewhich "$file" >/dev/null 2>&1 || missing="$missing $file"
done
if [ -n "$missing" ]; then
    echo "make pdf: not found:$missing; on Debian:" \
        "apt-get install --no-install-recommends" $packages >&2
    exit 1
fi
