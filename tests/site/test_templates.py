"""The page with the templates of the tasks shows those of its edition."""

import re
from html import unescape

import pytest
from sphinx.errors import ExtensionError

from dian.check.template import TASKS, contracts_page, template

PAGE = contracts_page()
TAG = re.compile(r"<[^>]+>")


@pytest.fixture
def built(tmp_path, extension_of, sphinx_build):
    """Return a function that builds the page in a language, and returns its text."""
    source = tmp_path / "docs"
    source.mkdir()
    settings = {
        "extensions": ["myst_nb", "sphinx_design", extension_of("templates")],
        "myst_enable_extensions": {"colon_fence"},
        "nb_execution_mode": "off",
        "master_doc": "contracts",
        "html_theme": "basic",
    }

    def build(language, page=PAGE):
        text = re.sub(r"\{\w+\}`.*?`", "", page.partition("## Contracts")[0])
        (source / "contracts.md").write_text(text, "utf-8")
        folder = tmp_path / language
        assert sphinx_build(source, folder, settings | {"language": language}) == ""
        html = (folder / "contracts.html").read_text("utf-8")
        return unescape(TAG.sub("", html))

    return build


@pytest.mark.parametrize("task", TASKS)
def test_each_edition_shows_its_own(task, built):
    english, chinese = built("en"), built("zh_CN")
    ours, theirs = template(task).rstrip(), template(task, "zh_CN").rstrip()
    assert ours in english
    assert theirs not in english
    assert theirs in chinese
    assert ours not in chinese
    assert f"{task}: {TASKS[task][0]}" in english
    assert re.search(rf"{task} [\u3400-\u9fff]+\n", chinese)


def test_a_page_without_a_template_stops_the_build(built):
    page = PAGE.replace(template("task-2").rstrip(), "x = 1")
    with pytest.raises(ExtensionError, match="no template of task-2"):
        built("zh_CN", page)
