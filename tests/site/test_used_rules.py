"""The style sheet loses the rules that no page can use, and no others."""

from pathlib import Path

import pydata_sphinx_theme
import pytest

from dian_sphinx.used_rules import classes, left_out, used, words

THEME = Path(pydata_sphinx_theme.__file__).parent / (
    "theme/pydata_sphinx_theme/static/styles/pydata-sphinx-theme.css"
)


@pytest.mark.parametrize(
    ("sheet", "kept"),
    [
        (".a{b:c}", ".a{b:c}"),
        (".b{b:c}", ""),
        (".a .b,.a{b:c}", ".a{b:c}"),
        (".a:not(.b){b:c}", ".a:not(.b){b:c}"),
        (":is(.a,.b:not(.c)),.b{b:c}", ":is(.a,.b:not(.c)){b:c}"),
        ("@media print{.b{b:c}}a{b:c}", "a{b:c}"),
        ("@media print{.b{b:c}.a{d:e}}", "@media print{.a{d:e}}"),
        ("@keyframes b{0%{c:d}to{c:e}}", "@keyframes b{0%{c:d}to{c:e}}"),
        ('@charset "UTF-8";.a{b:c}', '@charset "UTF-8";.a{b:c}'),
        ("a{b:c}/*! Free {}; */a{b:d}", "/*! Free {}; */a{b:c}a{b:d}"),
        (r".a\:b{c:d}", ""),
        ("/* .a{} */a{b:c}", "a{b:c}"),
    ],
)
def test_a_rule_stays_if_its_classes_are_known(sheet, kept):
    assert used(sheet, {"a"}) == kept


def test_nothing_else_of_the_theme_changes():
    """All classes are known; only comments and some white space are left out."""
    sheet = THEME.read_text("utf-8")
    known = classes(sheet)
    kept = used(sheet, known)
    assert left_out(sheet, known) == []
    assert 0 <= len(sheet) - len(kept) < 1500
    assert kept.count("{") == kept.count("}")


def test_the_theme_gets_small_and_keeps_what_its_templates_name():
    sheet, known = THEME.read_text("utf-8"), words()
    kept, gone = used(sheet, known), left_out(sheet, known)
    assert len(kept) < 0.4 * len(sheet)
    assert all(not classes(one) <= known for one in gone)
    for name in ("bd-sidebar-primary", "dropdown-menu", "admonition", "modal", "col"):
        assert name in known
        assert f".{name}" in kept
    assert ".bg-warning-subtle" not in kept
