"""No page asks another origin for anything, and none asks for what is not there."""

from importlib.metadata import version

import pytest
from built import HTML, MODES
from survey import listened


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("scheme", ["http", "file"])
def test_nothing_is_loaded_from_elsewhere_and_nothing_fails(surveys, scheme, mode):
    assert not surveys[mode].told[scheme]


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("new Image().src = 'http://127.0.0.2:9/x.png'", "asks for http://127.0.0.2:9"),
        ("new Image().src = 'gone.png'", "404"),
        ("setTimeout(() => { throw new Error('broken') })", "fails: broken"),
    ],
)
def test_the_test_above_can_fail(opened, origin, fault, said):
    with opened() as tab, listened(tab, origin) as told:
        tab.goto(f"{origin}/index.html")
        assert not told
        tab.evaluate(fault)
        tab.wait_for_timeout(300)
    assert any(said in line for line in told)


@pytest.mark.parametrize("mode", MODES)
def test_the_colours_are_those_that_the_reader_wants(surveys, mode):
    assert {look["theme"] for look in surveys[mode].looks.values()} == {mode}


def test_without_scripts_a_page_is_read_as_well(opened):
    with opened("dark", java_script_enabled=False) as tab:
        tab.goto((HTML / "rnn.html").as_uri())
        assert tab.locator("article h1").first.is_visible()


def test_each_page_says_its_version(surveys):
    said = {look["version"] for look in surveys["light"].looks.values()}
    assert said == {f"Dian {version('dian')}"}
