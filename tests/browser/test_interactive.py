"""Figures that can be moved by pointer and by keyboard, and say what they show."""

import pytest

PAGES = {
    "rotary": "gallery/2_positions/plot_3_rotary.html",
    "attention": "gallery/3_attention/plot_4_random_matrix.html",
    "noising": "gallery/4_diffusion/plot_1_noising.html",
    "gradient": "gallery/1_rnn/plot_3_vanishing.html",
    "mixture": "gallery/4_diffusion/plot_3_algorithms.html",
    "weights": "gallery/4_diffusion/plot_2_bound.html",
}


@pytest.mark.parametrize("name", PAGES)
def test_the_keyboard_moves_it_and_words_follow(opened, origin, name):
    with opened() as tab:
        tab.goto(f"{origin}/{PAGES[name]}")
        figure = tab.locator(f'figure[data-figure="{name}"]')
        assert figure.is_visible()
        words = figure.locator("[aria-live]")
        for number in range(figure.locator("input").count()):
            before = words.text_content()
            control = figure.locator("input").nth(number)
            control.focus()
            tab.keyboard.press("ArrowLeft" if name == "gradient" else "ArrowRight")
            assert words.text_content() != before
            shown = figure.locator("output").nth(number).text_content()
            assert shown in words.text_content()
            assert control.get_attribute("aria-valuetext") == shown


def test_the_pointer_chooses_a_row_of_attention(opened, origin):
    with opened() as tab:
        tab.goto(f"{origin}/{PAGES['attention']}")
        figure = tab.locator("figure.interactive")
        picture = figure.locator("svg")
        picture.scroll_into_view_if_needed()
        box = picture.bounding_box()
        # 20 rows, and below them the bars, four rows high
        row = (0.5 + 6) / 24 * box["height"]
        tab.mouse.move(box["x"] + 30, box["y"] + row)
        assert "query 7 reads" in figure.locator("[aria-live]").text_content()
        assert "sums to 1.00" in figure.locator("[aria-live]").text_content()


def test_moving_both_positions_keeps_the_product(opened, origin):
    with opened() as tab:
        tab.goto(f"{origin}/{PAGES['rotary']}")
        figure = tab.locator("figure.interactive")
        figure.locator("input").first.fill("5")
        before = figure.locator("[aria-live]").text_content()
        figure.locator("button").click()
        after = figure.locator("[aria-live]").text_content()
        assert before.startswith("Query (solid) at 5, key (dashed) at 0: offset 5")
        assert after.startswith("Query (solid) at 6, key (dashed) at 1: offset 5")
        assert before.partition("product")[2] == after.partition("product")[2]


@pytest.mark.parametrize("gain", ["min", "max"])
def test_the_gradient_has_no_floor_and_no_ceiling(opened, origin, gain):
    with opened() as tab:
        tab.goto(f"{origin}/{PAGES['gradient']}")
        figure = tab.locator("figure.interactive")
        for control, end in zip(
            figure.locator("input").all(), (gain, "min"), strict=True
        ):
            control.fill(control.get_attribute(end))
        points = figure.locator("polyline").get_attribute("points").split()
        heights = [float(point.partition(",")[2]) for point in points]
        assert len(set(heights[-5:])) == 5
        lines = [float(x.get_attribute("y1")) for x in figure.locator(".grid").all()]
        assert min(lines) <= min(heights) <= max(heights) <= max(lines)


@pytest.mark.parametrize("name", PAGES)
def test_without_scripts_the_pictures_remain(opened, origin, name):
    with opened(java_script_enabled=False) as tab:
        tab.goto(f"{origin}/{PAGES[name]}")
        assert not tab.locator("figure.interactive").is_visible()
        assert tab.locator("main img[class*='sphx-glr']").first.is_visible()


@pytest.mark.parametrize("name", PAGES)
def test_it_has_a_name_and_fits_a_telephone(opened, origin, name):
    with opened(width=390) as tab:
        tab.goto(f"{origin}/{PAGES[name]}")
        figure = tab.locator("figure.interactive")
        drawn = figure.locator("svg, canvas")
        assert drawn.count()
        for one in [*drawn.all(), *figure.locator("input, output, button").all()]:
            box = one.bounding_box()
            assert 0 <= box["x"] <= box["x"] + box["width"] <= 390
        assert all(one.get_attribute("aria-label") for one in drawn.all())
        assert all(one.get_attribute("role") == "img" for one in drawn.all())
