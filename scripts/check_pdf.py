"""Check the PDF edition: whole, every reference resolved, every character there.

``python scripts/check_pdf.py build/latex`` reads what XeLaTeX left there and the text
of the PDF, prints one line for each problem, and exits with status 1 if there is one.
"""

import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

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
FIRST = "Recurrent neural networks"


def expected_chapters(docs: Path) -> list[str]:
    """List the titles of the pages that the front page names, in their order."""
    front = (docs / "index.md").read_text("utf-8")
    trees = re.findall(r"```\{toctree\}\n(.*?)```", front, re.DOTALL)
    names = re.findall(r"^(?!:)(\S+)$", "".join(trees), re.MULTILINE)
    titles = [title(docs, name) for name in names if name not in ELSEWHERE]
    return [*titles, "Bibliography"]


def title(docs: Path, name: str) -> str:
    """Read the title of a page."""
    text = (docs / f"{name}.md").read_text("utf-8")
    included = re.search(r"```\{include\} (\S+)", text)
    if included:
        text = (docs / included[1]).read_text("utf-8")
    return re.search("^# (.*)$", text, re.MULTILINE)[1]


def problems(folder: Path, docs: Path) -> list[str]:
    """Return one line for each thing that is wrong with the PDF."""
    log = (folder / "dian.log").read_text("utf-8", errors="replace")
    found = sorted(set(WRONG.findall(log)))
    for line in OVERFULL.finditer(log):
        if float(line[1]) > TOO_WIDE:
            after = log[line.end() :].split("\n", 2)[1].strip()
            found.append(f"{line[0]}: {after[:80]}")
    found += wrong_chapters((folder / "dian.toc").read_text("utf-8"), docs)
    found += wrong_numbers((folder / "dian.aux").read_text("utf-8"))
    text = text_of(folder / "dian.pdf")
    found += [f"the PDF has '??': {m[0]}" for m in re.finditer(r".*\?\?.*", text)]
    if "Computed while this page was built" not in text or "Recorded run" not in text:
        found.append("figures have no provenance")
    return list(dict.fromkeys(found))


def wrong_chapters(contents: str, docs: Path) -> list[str]:
    """Compare the table of contents with the front page."""
    there = [plain(one) for one in CHAPTER.findall(contents)]
    expected = expected_chapters(docs)
    missing = [f"no chapter {one!r}" for one in expected if one not in there]
    numbered = re.findall(
        r"\\contentsline \{chapter\}\{\\numberline \{1\}(.*?)\}\{", contents
    )
    if not missing and [plain(one) for one in numbered] != [FIRST]:
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
    folder = Path(sys.argv[1])
    wrong = problems(folder, ROOT / "docs")
    print("\n".join([*wrong, f"{folder / 'dian.pdf'} checked, {len(wrong)} problems"]))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
