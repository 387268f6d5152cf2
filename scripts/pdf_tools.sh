# Say in one line what `make pdf` needs and does not find, and end with status 1.
set -eu

packages="texlive-xetex texlive-fonts-recommended latexmk lmodern fonts-dejavu-core
    fonts-arphic-gbsn00lp poppler-utils"
if [ "${1:-}" = --packages ]; then
    echo $packages
    exit
fi

missing=
for tool in latexmk xelatex pdftotext kpsewhich; do
    command -v "$tool" >/dev/null || missing="$missing $tool"
done
for file in newunicodechar.sty lmroman10-regular.otf DejaVuSansMono.ttf gbsn00lp.ttf; do
    kpsewhich "$file" >/dev/null 2>&1 || missing="$missing $file"
done
if [ -n "$missing" ]; then
    echo "make pdf: not found:$missing; on Debian:" \
        "apt-get install --no-install-recommends" $packages >&2
    exit 1
fi
