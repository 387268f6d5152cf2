"""Live figures for every reader: what is loaded, shown and said, and by which means."""

import gzip
import re

import numpy as np
import pytest
from built import CHAPTERS, HTML, MODES, until
from live_figures import PAGES, figure, finished, started
from PIL import Image
from survey import AXE, RUN_AXE, listened


@pytest.mark.parametrize("kind", [*PAGES, "index"])
def test_axe_finds_nothing_while_it_runs_and_it_fits_a_telephone(opened, origin, kind):
    with opened(width=390) as tab, listened(tab, origin) as told:
        box = started(tab, origin, kind)
        fold = box.locator("details summary")
        if fold.count():
            fold.first.evaluate("e => e.parentElement.open = true")
        if kind == "denoise":
            box.get_by_label("Guidance weight").fill("1")  # which shows a sentence
        tab.evaluate(AXE.read_text("utf-8"))
        for mode in MODES:
            tab.emulate_media(color_scheme=mode)
            until(tab, f"document.documentElement.dataset.theme === '{mode}'")
            # Other tests examine the rest of the page.
            assert tab.evaluate(RUN_AXE.replace("document", "'figure.live'")) == []
        assert tab.evaluate("document.documentElement.scrollWidth") <= 390
        assert not told


@pytest.mark.parametrize("kind", PAGES)
def test_nothing_is_loaded_before_the_button(opened, origin, kind):
    asked = []
    with opened() as tab:
        tab.on("request", lambda request: asked.append(request.url))
        tab.goto(f"{origin}/{PAGES[kind]}.html")
        assert figure(tab, kind).locator(".live-start button").is_visible()
    live = [url for url in asked if "/_static/live/" in url]
    assert len(live) == 1
    assert "/live/live.js" in live[0]
    assert (HTML / "_static/live/live.js").stat().st_size < 10_000


@pytest.mark.parametrize("kind", [*PAGES, "index"])
def test_a_page_that_does_not_run_it_is_hardly_heavier(kind):
    page = (HTML / f"{PAGES.get(kind, kind)}.html").read_text("utf-8")
    policy = r'<meta http-equiv="Content-Security-Policy"[^>]*>'
    before = re.sub(policy, "", FIGURE.sub("", page))
    parts = [HTML / "_static/live" / name for name in ("live.js", "live.css")]
    added = packed(page) - packed(before)
    added += sum(packed(part.read_text("utf-8")) for part in parts)
    print(kind, added, len(page) - len(before))
    assert 2_000 < added < 30_000


FIGURE = re.compile(r'<figure class="live.*?</figcaption></figure>', re.S)


def packed(text):
    return len(gzip.compress(text.encode(), 6))


@pytest.mark.parametrize("kind", [*PAGES, "index"])
def test_without_scripts_the_recorded_result_stays(opened, origin, kind):
    with opened(java_script_enabled=False) as tab:
        tab.goto(f"{origin}/{PAGES.get(kind, 'index')}.html")
        box = figure(tab, kind if kind in PAGES else "reader")
        assert box.locator(".live-still img:visible").count() >= 1
        assert not box.locator(".live-start button").is_visible()
        assert "Without JavaScript" in box.locator(".live-status").inner_text()


@pytest.mark.parametrize("kind", PAGES)
def test_opened_as_a_file_it_runs_or_says_why_not(opened, kind):
    with opened() as tab:
        tab.goto((HTML / f"{PAGES[kind]}.html").as_uri())
        box = figure(tab, kind)
        if kind == "denoise":
            assert "opened as a file" in box.locator(".live-status").text_content()
            assert not box.locator(".live-start button").is_visible()
        else:
            box.locator(".live-start button").click()
            box.locator(".interactive-words:not(:empty)").wait_for()
        assert box.locator(".live-still img").is_visible() == (kind == "denoise")


@pytest.mark.parametrize("kind", PAGES)
def test_the_keyboard_reaches_everything(opened, origin, kind):
    with opened() as tab:
        tab.goto(f"{origin}/{PAGES[kind]}.html")
        box = figure(tab, kind)
        box.locator(".live-start button").focus()
        tab.keyboard.press("Enter")
        words = box.locator(".interactive-words:not(:empty)")
        words.wait_for(timeout=60_000)
        until(tab, "document.activeElement.matches('figure.live .live-box *')")
        if kind == "denoise":
            finished(box)
            box.get_by_role("button", name="Denoise").focus()
            tab.keyboard.press("Space")
            finished(box)
            return
        before = words.text_content()
        label = {"reader": "Rows read", "attention": "Row (query)"}[kind]
        box.get_by_label(label).focus()
        tab.keyboard.press("ArrowLeft")
        assert words.text_content() != before
        box.get_by_role("button", name="Sandal").first.focus()
        before = words.text_content()
        tab.keyboard.press("Enter")
        assert words.text_content() != before


def test_a_drawing_by_keyboard_is_read(opened, origin):
    with opened() as tab:
        box = started(tab, origin, "reader")
        box.locator("details summary").first.click()
        before = box.locator(".interactive-words").text_content()
        box.get_by_role("application").focus()
        for key in ["Space", "ArrowDown", "Space", "ArrowRight", "Space"]:
            tab.keyboard.press(key)
        assert box.locator(".interactive-words").text_content() != before


def test_a_drawing_by_pointer_is_read_at_its_end(opened, origin):
    with opened() as tab:
        box = started(tab, origin, "reader")
        box.locator("details summary").first.click()
        words = box.locator(".interactive-words")
        before = words.text_content()
        field = box.get_by_role("application")
        field.scroll_into_view_if_needed()
        at = field.bounding_box()
        tab.mouse.move(at["x"] + 30, at["y"] + 30)
        tab.mouse.down()
        tab.mouse.move(at["x"] + 90, at["y"] + 120, steps=5)
        assert words.text_content() == before
        tab.mouse.up()
        until(tab, f"!document.body.textContent.includes({before!r})")
        drawn = field.evaluate("canvas => canvas.toDataURL()")
        tab.mouse.move(at["x"] + 120, at["y"] + 30)  # the button is up
        assert field.evaluate("canvas => canvas.toDataURL()") == drawn


def test_a_network_that_cannot_be_loaded_can_be_chosen_again(opened, origin):
    with opened() as tab:
        box = started(tab, origin, "reader")
        words, chooser = box.locator(".interactive-words"), box.get_by_label("Network")
        before = words.text_content()
        tab.route("**/torch-gru.js*", lambda route: route.abort())
        chooser.select_option("torch-gru")
        status = box.locator(".live-status")
        status.filter(has_text="data/torch-gru.js could not be loaded.").wait_for()
        assert chooser.input_value() == "rnn-fashion-mnist"
        assert words.text_content() == before
        tab.unroute("**/torch-gru.js*")
        chooser.select_option("torch-gru")
        until(tab, f"!document.body.textContent.includes({before!r})")
        assert status.text_content() == ""


def test_an_image_is_opened_and_a_wrong_file_gets_one_line(opened, origin, tmp_path):
    right, wrong, large = (tmp_path / name for name in ("a.png", "b.png", "c.png"))
    Image.fromarray(np.full((60, 60), 200, np.uint8)).save(right)
    wrong.write_text("no image")
    large.write_bytes(bytes(5_100_000))
    with opened() as tab:
        box = started(tab, origin, "reader")
        box.locator("details summary").first.click()
        told, words = box.locator(".live-told"), box.locator(".interactive-words")
        before = words.text_content()
        for file, said in ((wrong, "not an image"), (large, "at most 5 MB")):
            box.get_by_label("Image file").set_input_files(file)
            told.filter(has_text=said).wait_for()
            assert words.text_content() == before
        box.get_by_label("Image file").set_input_files(right)
        told.filter(has_text=said).wait_for(state="detached")
        assert words.text_content() != before


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", [*PAGES, "index"])
def test_on_paper_is_the_recorded_result(tabs, kind, mode):
    tab = tabs[kind]
    box = figure(tab, "reader" if kind == "index" else kind)
    assert box.locator(".live-still img:visible").count() == 0
    tab.emulate_media(media="print", color_scheme=mode)
    assert box.locator(".live-still img:visible").count() == 1
    assert not box.locator(".live-box").is_visible()
    tab.emulate_media(media="screen", color_scheme="light")


@pytest.mark.parametrize("kind", PAGES)
def test_a_screen_reader_is_told_what_is_shown(tabs, kind):
    box = figure(tabs[kind], kind)
    words = box.locator(".interactive-words")
    assert words.get_attribute("aria-live") == "polite"
    assert words.text_content()
    unnamed = box.locator("canvas:not([aria-label], [aria-hidden])")
    assert unnamed.count() == 0
    assert box.locator("canvas[role='img'][aria-label]").count() >= 2
    for control in box.locator("input, select").all():
        assert control.evaluate("e => e.labels.length && e.labels[0].textContent")
    for control in box.locator("input[type='range']").all():
        assert control.get_attribute("aria-valuetext")


def test_a_screen_reader_hears_the_end_of_a_reading_alone(tabs):
    box = figure(tabs["index"], "reader")
    words = box.locator(".interactive-words")
    end = words.filter(has_text="After row 28 of 28: Ankle boot")
    end.wait_for(timeout=30_000)  # the first reading, which begins by itself
    box.get_by_role("button").click()
    assert words.get_attribute("aria-live") == "off"
    end.wait_for(timeout=30_000)
    assert words.get_attribute("aria-live") == "polite"


@pytest.mark.parametrize("page", ["index", *CHAPTERS])
def test_a_bug_is_spotted_without_scripts(opened, origin, page):
    with opened(java_script_enabled=False) as tab:
        tab.goto(f"{origin}/{page}.html")
        box = tab.locator("figure.live.spot")
        answers = []
        for reply in box.locator("details").all():
            reply.locator("summary").click()
            answers.append(reply.locator("p").text_content().split()[0])
            address = reply.locator("a").get_attribute("href")
            assert (HTML / address.partition("#")[0]).is_file()
        assert sorted(answers) == ["Correct.", "No."]


def test_the_whole_of_what_is_added_is_small():
    size = sum(
        p.stat().st_size for p in (HTML / "_static/live").rglob("*") if p.is_file()
    )
    print(f"{size / 1e6:.1f} MB")
    assert size < 40e6
