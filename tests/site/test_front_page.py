"""The front page and the README: a picture, an example that runs, and links."""

import contextlib
import io
import re

import numpy as np
import pytest
from PIL import Image

import draw_readme

BLOCK = re.compile(r"```python\n(.*?)```(?:\n+```text\n(.*?)```)?", re.DOTALL)


@pytest.fixture
def index(root):
    return (root / "docs/index.md").read_text("utf-8")


@pytest.fixture
def readme(root):
    return (root / "README.md").read_text("utf-8")


def test_the_picture_of_the_readme_is_the_one_that_is_drawn(tmp_path):
    file = tmp_path / "new.png"
    draw_readme.draw().savefig(file, dpi=100)
    new, old = (
        np.asarray(Image.open(path).convert("L"), float)
        for path in (file, draw_readme.PICTURE)
    )
    assert new.shape == old.shape
    # Another version of a font library moves edges by a part of a pixel.
    assert np.abs(new - old).mean() < 2
    assert np.abs(new - old[:, ::-1]).mean() > 10  # which another picture does not


def test_the_example_prints_what_the_page_says(index):
    [(code, printed)] = BLOCK.findall(index)
    assert ".model()" in code
    assert len([line for line in code.splitlines() if line]) == 5
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(code, {})
    assert out.getvalue() == printed


def test_the_front_page_is_short(index):
    text = re.sub(r"```.*?```|^:.*$|\{\w+\}", "", index, flags=re.DOTALL | re.M)
    assert len(text.split()) < 450
    before = index.split("```{picture}")[0]
    assert len(before.split()) < 90
    assert not re.search(r"\d", before)


@pytest.mark.parametrize("name", ["index", "readme"])
def test_every_chapter_is_linked(name, request):
    text = request.getfixturevalue(name)
    for chapter in ("rnn", "positions", "attention", "diffusion"):
        assert re.search(rf":link: {chapter}\n|\(docs/{chapter}\.md\)", text)


def test_what_the_readme_links_to_is_there(readme, root):
    links = re.findall(r"\]\(([^)#]+)\)", readme)
    assert len(links) > 5
    for link in links:
        assert (root / link).is_file()
    for command in ("make html", "make test"):
        assert f"$ {command}\n" in readme


def test_the_sidebar_is_in_reading_order(index):
    captions = re.findall(":caption: (.*)", index)
    assert captions == ["Start", "Chapters", "Evidence", "Teaching", "Reference"]
