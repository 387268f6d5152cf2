"""Check the PDF edition: whole, every reference resolved, every character there.

``python scripts/check_pdf.py build/latex en`` reads what XeLaTeX left there and the
text of the PDF, prints one line for each problem, and exits with status 1 if there is
one. The last argument is the language of the edition.
"""

import re
import subprocess
import sys
from collections import defaultdict
from functools import cache
from pathlib import Path

from babel.messages.pofile import read_po

ROOT = Path(__file__).parents[1]
TOO_WIDE = 12  # points beyond the margin or a table's column, that nobody sees
CHAPTER = re.compile(r"\\contentsline \{chapter\}\{(?:\\numberline \{\d+\})?(.*?)\}\{")
NUMBER = re.compile(r"\\newlabel\{equation:([^}]*)\}\{\{\{?(\d+)\.(\d+)\}")
WRONG = re.compile(
    r"^(?:! .*|Missing character: .*|LaTeX Warning: .*undefined.*|"
    r"LaTeX Warning: Label .* multiply defined.*)$",
    re.MULTILINE,
)
OVERFULL = re.compile(r"^Overfull \\hbox \(([\d.]+)pt too wide\).*$", re.MULTILINE)
# They have no chapter of their own: cards and copies of what is there in full, and the
# literature, which LaTeX sets at the end.
ELSEWHERE = {"gallery/index", "references", "exercises", "solutions", "figures"}
FIRST = "rnn"  # the page that is chapter 1
ORIGIN = ("Computed while this page was built.", "Recorded run {run}, {seeds}, {date}.")
"""How lines under figures begin."""


@cache
def catalogue(language: str, name: str) -> dict[str, str]:
    """Return the translations of the messages of a page."""
    file = ROOT / f"locale/{language}/LC_MESSAGES/{name}.po"
    if not file.is_file():
        return {}
    with file.open("rb") as source:
        return {m.id: m.string for m in read_po(source) if m.string and not m.fuzzy}


def said(language: str, name: str, message: str) -> str:
    """Return a message of a page in the language of the edition."""
    return catalogue(language, name).get(message, message)


def expected_chapters(docs: Path, language: str = "en") -> list[str]:
    """List the titles of the pages that the front page names, in their order."""
    front = (docs / "index.md").read_text("utf-8")
    trees = re.findall(r"```\{toctree\}\n(.*?)```", front, re.DOTALL)
    names = re.findall(r"^(?!:)(\S+)$", "".join(trees), re.MULTILINE)
    titles = [title(docs, name, language) for name in names if name not in ELSEWHERE]
    return [*titles, "Bibliography" if language == "en" else "参考文献"]


def title(docs: Path, name: str, language: str = "en") -> str:
    """Read the title of a page."""
    text = (docs / f"{name}.md").read_text("utf-8")
    included = re.search(r"```\{include\} (\S+)", text)
    if included:
        text = (docs / included[1]).read_text("utf-8")
    return said(language, name, re.search("^# (.*)$", text, re.MULTILINE)[1])


def problems(folder: Path, docs: Path, language: str = "en") -> list[str]:
    """Return one line for each thing that is wrong with the PDF."""
    log = (folder / "dian.log").read_text("utf-8", errors="replace")
    found = sorted(set(WRONG.findall(log)))
    for line in OVERFULL.finditer(log):
        if float(line[1]) > TOO_WIDE:
            after = log[line.end() :].split("\n", 2)[1].strip()
            found.append(f"{line[0]}: {after[:80]}")
    found += wrong_chapters((folder / "dian.toc").read_text("utf-8"), docs, language)
    found += wrong_numbers((folder / "dian.aux").read_text("utf-8"))
    text = text_of(folder / "dian.pdf")
    found += [f"the PDF has '??': {m[0]}" for m in re.finditer(r".*\?\?.*", text)]
    starts = [re.split(r"[.。{]", said(language, "dian", one))[0] for one in ORIGIN]
    if not all(start.strip() in text for start in starts):
        found.append("figures have no provenance")
    return list(dict.fromkeys(found))


def wrong_chapters(contents: str, docs: Path, language: str = "en") -> list[str]:
    """Compare the table of contents with the front page."""
    there = [plain(one) for one in CHAPTER.findall(contents)]
    expected = expected_chapters(docs, language)
    missing = [f"no chapter {one!r}" for one in expected if one not in there]
    numbered = re.findall(
        r"\\contentsline \{chapter\}\{\\numberline \{1\}(.*?)\}\{", contents
    )
    if not missing and [plain(one) for one in numbered] != [
        title(docs, FIRST, language)
    ]:
        return [f"chapter 1 is {numbered}"]
    if missing or [one for one in there if one in expected] == expected:
        return missing
    return [f"the order of the chapters is {there}"]


def plain(tex: str) -> str:
    """Undo what LaTeX needs in a title."""
    return re.sub(r"\\sphinxhyphen \{\}", "-", tex).replace("\\&", "&")


def wrong_numbers(labels: str) -> list[str]:
    """Check that the equations of each chapter are numbered from 1 without gaps."""
    chapters = defaultdict(list)
    for _, chapter, number in set(NUMBER.findall(labels)):
        chapters[int(chapter)].append(int(number))
    numbers = {n: sorted(chapters[n]) for n in sorted(chapters)}
    expected = {n: list(range(1, len(found) + 1)) for n, found in numbers.items()}
    if numbers and numbers == expected:
        return []
    return [f"the numbers of the equations by chapter are {numbers}"]


def text_of(pdf: Path) -> str:
    """Read the text of a PDF."""
    command = ["pdftotext", "-enc", "UTF-8", str(pdf), "-"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def main() -> int:
    """Check the PDF in the folder that was given."""
    folder, language = Path(sys.argv[1]), sys.argv[2]
    wrong = problems(folder, ROOT / "docs", language)
    print("\n".join([*wrong, f"{folder / 'dian.pdf'} checked, {len(wrong)} problems"]))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
