"""Check the built site: nothing from elsewhere, no dead link, no image without words.

Nor a colon that was meant to begin a definition.

``python scripts/check_site.py build/html`` reads every page and style sheet, prints
one line for each problem, and exits with status 1 if there is one.
"""

import re
import sys
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

# What a browser fetches without being asked; links that a reader follows may lead out.
FETCHED = {
    *(("script", "src"), ("img", "src"), ("iframe", "src"), ("embed", "src")),
    *(("audio", "src"), ("video", "src"), ("video", "poster"), ("source", "src")),
    *(("track", "src"), ("input", "src"), ("object", "data"), ("image", "href")),
    *(("use", "href"), ("img", "srcset"), ("source", "srcset")),
}
NOT_FETCHED = {"canonical", "alternate", "author", "license", "next", "prev", "search"}
CSS_ADDRESS = re.compile(r"""(?:url\(\s*|@import\s+(?!url))["']?([^"')\s;]+)""")

# A definition list whose term has several lines is none: a colon begins a line then.
VERBATIM = re.compile(r"<(pre|script|style|annotation)\b.*?</\1>", re.DOTALL)
STRAY = re.compile(r"\n: (.{,20})")
MUTE = "has no text alternative; give the axes of a figure titles or labels"


class Page(HTMLParser):
    """What one page is, fetches and links to."""

    def __init__(self, path: Path):
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.fetched: list[str] = []
        self.mute_images: list[str] = []
        text = path.read_text("utf-8")
        self.stray: list[str] = STRAY.findall(VERBATIM.sub("", text))
        self.feed(text)

    def handle_data(self, data: str) -> None:
        """Look into style sheets that stand on the page."""
        if self.cdata_elem == "style":
            self.fetched += CSS_ADDRESS.findall(data)

    def handle_starttag(self, tag: str, attributes: list) -> None:
        """Sort the addresses of a tag."""
        given = {name: value or "" for name, value in attributes}
        self.ids |= {given[key] for key in ("id", "name") if key in given}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        if tag == "link" and not set(given.get("rel", "").split()) & NOT_FETCHED:
            self.fetched.append(given.get("href", ""))
        for name, value in given.items():
            if (tag, name) in FETCHED:
                parts = value.split(",") if name == "srcset" else [value]
                self.fetched += [part.split()[0] for part in parts if part.strip()]
        self.fetched += CSS_ADDRESS.findall(given.get("style", ""))
        if tag == "img" and not _says_something(given):
            self.mute_images.append(given.get("src", ""))


def _says_something(image: dict[str, str]) -> bool:
    """Tell whether an image has words of its own, not those made of its file's name.

    A thumbnail needs none: it stands beside the title of its page.
    """
    if "_thumb." in image.get("src", ""):
        return True
    stem = re.sub(r"_\d+$", "", Path(image.get("src", "")).stem)
    made_up = stem.removeprefix("sphx_glr_").replace("_", " ").strip()
    return image.get("alt", "").strip() not in ("", made_up)


def problems(root: Path) -> list[str]:
    """Return one line for each thing that is wrong with the site."""
    found = []
    for path in pages(root):
        name, page = path.relative_to(root), parsed(path)
        found += [f"{name}: fetches {a}" for a in page.fetched if _leads_out(a)]
        found += [f"{name}: image {a} {MUTE}" for a in page.mute_images]
        found += [f"{name}: a line begins with a colon: {a}" for a in page.stray]
        for link in dict.fromkeys([*page.links, *page.fetched]):
            if path.name == "404.html" and link.startswith("/"):
                continue  # shown at any address, so it counts from the host's root
            if not _leads_out(link) and (wrong := _dead(path, link, root)):
                found.append(f"{name}: dead link {link}: {wrong}")
    for path in sorted(root.rglob("*.css")):
        for address in CSS_ADDRESS.findall(path.read_text("utf-8")):
            if _leads_out(address):
                found.append(f"{path.relative_to(root)}: fetches {address}")
    return found


def pages(root: Path) -> list[Path]:
    """List the pages; among the static files there are templates too."""
    return sorted(p for p in root.rglob("*.html") if "_static" not in p.parts)


@cache
def parsed(path: Path) -> Page:
    """Read a page, once."""
    return Page(path)


def _leads_out(address: str) -> bool:
    parts = urlsplit(address)
    return bool(parts.netloc) or parts.scheme in ("http", "https")


def _dead(page: Path, link: str, root: Path) -> str | None:
    """Say what is wrong with a link inside the site, or nothing."""
    parts = urlsplit(link)
    if parts.scheme:  # mailto:, data:, javascript:
        return None
    path = unquote(parts.path)
    target = (page.parent / path).resolve() if path else page
    if target.is_dir():
        target = target / "index.html"
    if not target.is_relative_to(root):
        return "it leaves the site"
    if not target.is_file():
        return "no such file"
    anchor = unquote(parts.fragment)
    if anchor and target.suffix == ".html" and anchor not in parsed(target).ids:
        return f"no such place on {target.name}"
    return None


def main() -> int:
    """Check the site in the folder that was given."""
    root = Path(sys.argv[1]).resolve()
    n_page = len(pages(root))
    if not n_page:
        print(f"{root}: no pages")
        return 1
    wrong = problems(root)
    print("\n".join([*wrong, f"{n_page} pages checked, {len(wrong)} problems"]))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
