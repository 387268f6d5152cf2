"""The Content-Security-Policy that is written into every page."""

import re

from dian_sphinx import policy


def test_the_policy_names_the_scripts_of_the_page_and_no_other_origin():
    page = (
        "<html><head></head><body><script>a()</script>"
        '<script type="application/json">{"x": "<b onclick=\\"no()\\">"}</script>'
        '<button onclick="b(&quot;c&quot;)">x</button></body></html>'
    )
    secured = policy.secured(page)
    content = re.search(r'content="([^"]*)"', secured)[1]
    assert policy.hashed("a()") in content
    assert policy.hashed('b("c")') in content
    assert content.count("sha256") == 2
    assert "http" not in content
    assert "'unsafe-eval'" not in content
    assert policy.policy(secured) == content
    assert policy.secured("not a page") == "not a page"


def test_every_handler_of_an_element_is_allowed():
    page = '<a title="a > b" onclick="c()" href="x" onfocus="d()">x</a> onblur="e()"'
    found = policy.policy(page)
    assert policy.hashed("c()") in found
    assert policy.hashed("d()") in found
    assert policy.hashed("e()") not in found
