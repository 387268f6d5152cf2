"""Check the built site: nothing from elsewhere, no dead link, no image without words.

Nor a colon that was meant to begin a definition.

``python scripts/check_site.py build/html`` prints one line for each problem, and exits
with status 1 if there is one. What it found in each page and style sheet is kept in
``build/html.checked.json``, so that only files that have changed are read again; the
links between all of them are compared every time.
"""

import json
import posixpath
import re
import sys
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
    """The anchors, links, fetched addresses and mute images of a page."""

    def __init__(self, text: str):
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.fetched: list[str] = []
        self.mute: list[str] = []
        self.stray: list[str] = STRAY.findall(VERBATIM.sub("", text))
        self.feed(text)

    def handle_data(self, data: str) -> None:
        """Look into style sheets that are part of the page."""
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
            self.mute.append(given.get("src", ""))

    def facts(self) -> dict[str, list[str]]:
        """Return what is kept of the page."""
        return {
            "ids": sorted(self.ids),
            "links": list(dict.fromkeys([*self.links, *self.fetched])),
            "fetched": self.fetched,
            "mute": self.mute,
            "stray": self.stray,
        }


def _says_something(image: dict[str, str]) -> bool:
    """Return whether an image has words of its own, not those made of its file's name.

    A thumbnail needs none: it is beside the title of its page.
    """
    if "_thumb." in image.get("src", ""):
        return True
    stem = re.sub(r"_\d+$", "", Path(image.get("src", "")).stem)
    made_up = stem.removeprefix("sphx_glr_").replace("_", " ").strip()
    return image.get("alt", "").strip() not in ("", made_up)


def read(root: Path, kept: dict) -> dict[str, dict]:
    """Return the facts of every page and style sheet; read again those that changed."""
    found = {}
    for path in sorted([*root.rglob("*.html"), *root.rglob("*.css")]):
        name, status = path.relative_to(root).as_posix(), path.stat()
        if path.suffix == ".html" and "_static" in path.parts:
            continue  # a template
        state = [status.st_mtime_ns, status.st_size]
        facts = kept.get(name)
        if facts is None or facts["state"] != state:
            text = path.read_text("utf-8")
            is_page = path.suffix == ".html"
            facts = Page(text).facts() if is_page else {"fetched": _leading_out(text)}
            facts["state"] = state
        found[name] = facts
    return found


def _leading_out(style: str) -> list[str]:
    return [a for a in CSS_ADDRESS.findall(style) if _leads_out(a)]


def problems(root: Path, found: dict[str, dict]) -> list[str]:
    """Return one line for each thing that is wrong with the site."""
    every = (path for path in root.rglob("*") if path.is_file())
    files = {path.relative_to(root).as_posix() for path in every}
    ids = {name: set(facts["ids"]) for name, facts in found.items() if "ids" in facts}
    wrong = []
    for name, facts in found.items():
        wrong += [f"{name}: fetches {a}" for a in facts["fetched"] if _leads_out(a)]
        wrong += [f"{name}: image {a} {MUTE}" for a in facts.get("mute", ())]
        stray = facts.get("stray", ())
        wrong += [f"{name}: a line begins with a colon: {a}" for a in stray]
        for link in facts.get("links", ()):
            if name == "404.html" and link.startswith("/"):
                continue  # shown at any address, so it counts from the host's root
            if not _leads_out(link) and (what := _dead(name, link, files, ids)):
                wrong.append(f"{name}: dead link {link}: {what}")
    return wrong


def _leads_out(address: str) -> bool:
    parts = urlsplit(address)
    return bool(parts.netloc) or parts.scheme in ("http", "https")


def _dead(page: str, link: str, files: set[str], ids: dict[str, set]) -> str | None:
    """Return what is wrong with a link inside the site, or nothing."""
    parts = urlsplit(link)
    if parts.scheme:  # mailto:, data:, javascript:
        return None
    folder, path = posixpath.dirname(page), unquote(parts.path)
    target = posixpath.normpath(posixpath.join(folder, path)) if path else page
    if target.startswith(("../", "/")) or target == "..":
        return "it leaves the site"
    if target == ".":
        target = "index.html"
    elif f"{target}/index.html" in files:
        target = f"{target}/index.html"
    if target not in files:
        return "no such file"
    anchor = unquote(parts.fragment)
    if anchor and target in ids and anchor not in ids[target]:
        return f"no such place on {posixpath.basename(target)}"
    return None


def main() -> int:
    """Check the site in the folder that was given."""
    root = Path(sys.argv[1]).resolve()
    store = root.with_name(f"{root.name}.checked.json")
    code = Path(__file__).read_text("utf-8")  # another check knows nothing of a page
    try:
        kept = json.loads(store.read_text("utf-8"))
    except (OSError, ValueError):
        kept = {}
    found = read(root, kept["files"] if kept.get("code") == code else {})
    n_page = sum("ids" in facts for facts in found.values())
    if not n_page:
        print(f"{root}: no pages")
        return 1
    wrong = problems(root, found)
    store.write_text(json.dumps({"code": code, "files": found}), "utf-8")
    print("\n".join([*wrong, f"{n_page} pages checked, {len(wrong)} problems"]))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
