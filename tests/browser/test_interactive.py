"""Figures that can be moved by pointer and by keyboard, and say what they show."""

import re

import pytest

PAGES = {
    "rotary": "gallery/2_positions/plot_3_rotary.html",
    "sinusoidal": "gallery/2_positions/plot_2_sinusoidal.html",
    "scaling": "gallery/2_positions/plot_5b_lengths.html",
    "attention": "gallery/3_attention/plot_4_random_matrix.html",
    "masks": "gallery/3_attention/plot_5_masks.html",
    "softmax": "gallery/3_attention/plot_1_scale.html",
    "noising": "gallery/4_diffusion/plot_1_noising.html",
    "gradient": "gallery/1_rnn/plot_3_vanishing.html",
    "unit": "gallery/1_rnn/plot_2_bptt.html",
    "forget": "gallery/1_rnn/plot_3b_gates.html",
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


ALIKE = {"YaRN", "NTK", "aware", "simple"}
"""Words of a figure that are the same in both editions."""


def words_of(figure) -> list[str]:
    """List the English words that a figure shows or reads out, besides its caption."""
    parts = figure.locator("text, label, option, output, button, p")
    shown = parts.all_text_contents()
    shown += [one.get_attribute("aria-label") for one in figure.locator("[role]").all()]
    return sorted(set(re.findall("[A-Za-z]{3,}", " ".join(shown))) - ALIKE)


def seen(figure) -> tuple[str, str]:
    """Return what a figure says and what it shows."""
    canvas = figure.locator("canvas")
    pixels = canvas.evaluate_all("all => all.map((one) => one.toDataURL()).join()")
    drawn = figure.locator("svg").evaluate_all("all => all.map((one) => one.innerHTML)")
    return figure.locator("[aria-live]").text_content(), f"{pixels} {drawn}"


@pytest.mark.parametrize("edition", ["", "zh_CN/"])
@pytest.mark.parametrize("name", PAGES)
def test_every_control_changes_what_is_said_or_shown(opened, origin, name, edition):
    with opened() as tab:
        tab.goto(f"{origin}/{edition}{PAGES[name]}")
        figure = tab.locator(f'figure[data-figure="{name}"]')
        foreign = set()

        def compare(move) -> None:
            before = seen(figure)
            move()
            assert seen(figure) != before
            if edition:
                foreign.update(words_of(figure))

        for button in figure.locator("button").all():
            compare(button.click)
        for slider in figure.locator("input").all():
            ends = [slider.get_attribute(end) for end in ("max", "min")]
            for end in ends:
                if slider.input_value() != end:
                    compare(lambda slider=slider, end=end: slider.fill(end))
        for choice in figure.locator("select").all():
            for index in reversed(range(choice.locator("option").count())):
                compare(lambda c=choice, i=index: c.select_option(index=i))
        assert not foreign


@pytest.mark.parametrize("name", ["attention", "masks"])
def test_the_pointer_chooses_a_row_of_weights(opened, origin, name):
    with opened() as tab:
        tab.goto(f"{origin}/{PAGES[name]}")
        figure = tab.locator(f'figure[data-figure="{name}"]')
        cells = figure.locator(".map")
        cells.scroll_into_view_if_needed()
        box = cells.bounding_box()
        n_row = int(figure.locator("input").last.get_attribute("max")) + 1
        tab.mouse.move(box["x"] + 30, box["y"] + (6 + 0.5) / n_row * box["height"])
        told = figure.locator("[aria-live]").text_content()
        assert "uery 6" in told
        assert "sums to 1.00" in told


def test_a_query_without_keys_has_no_weights(opened, origin):
    with opened() as tab:
        tab.goto(f"{origin}/{PAGES['masks']}")
        figure = tab.locator('figure[data-figure="masks"]')
        figure.locator("select").select_option("padding first, and causal")
        figure.locator("input").fill("1")
        told = figure.locator("[aria-live]").text_content()
        assert "Query 1 may attend to no key" in told
        heights = [
            float(bar.get_attribute("height")) for bar in figure.locator(".bar").all()
        ]
        assert heights
        assert not any(heights)


def test_the_divided_scores_have_unit_variance_for_every_dimension(opened, origin):
    with opened() as tab:
        tab.goto(f"{origin}/{PAGES['softmax']}")
        figure = tab.locator('figure[data-figure="softmax"]')
        told = figure.locator("[aria-live]")
        assert "s = 8." in told.text_content()
        figure.locator("select").select_option("√dₖ")
        weights = told.text_content().partition("s = ")[2]
        figure.locator("input").fill("0")
        assert told.text_content().partition("s = ")[2] == weights
        assert weights.startswith("1.")


def test_moving_both_positions_keeps_the_score(opened, origin):
    with opened() as tab:
        tab.goto(f"{origin}/{PAGES['rotary']}")
        figure = tab.locator("figure.interactive")
        query, key = figure.locator("input").all()
        query.fill("39")
        said = [figure.locator("[aria-live]").text_content()]
        dot = figure.locator(".here")
        place = dot.get_attribute("cx"), dot.get_attribute("cy")
        for _ in range(2):  # the second time, the query is at its last position
            figure.locator("button").first.click()
            said.append(figure.locator("[aria-live]").text_content())
        assert said[0].startswith("Query at position 39, key at position 4: relative")
        assert said[1].startswith("Query at position 40, key at position 5: relative")
        assert said[1] == said[2]
        assert said[0].partition(":")[2] == said[1].partition(":")[2]
        assert place == (dot.get_attribute("cx"), dot.get_attribute("cy"))
        figure.locator("button").nth(1).click()
        assert figure.locator("[aria-live]").text_content() == said[0]
        key.fill("39")
        assert "relative position 0, score 4.000 of" in (
            figure.locator("[aria-live]").text_content()
        )


def test_the_products_of_an_encoding_depend_on_the_offset(opened, origin):
    with opened() as tab:
        tab.goto(f"{origin}/{PAGES['sinusoidal']}")
        figure = tab.locator("figure.interactive")
        products = []
        for place in (10, 17):
            figure.locator("input").first.fill(str(place))
            points = figure.locator("polyline").get_attribute("points").split()
            products.append([float(point.partition(",")[0]) for point in points])
        assert products[0][:-7] == products[1][7:]
        assert max(products[0]) == products[0][10]
        assert figure.locator("rect.cell, rect.below").count() == 2 + 48 * 32


def test_the_threshold_of_the_paper_slows_every_pair_of_a_short_context(opened, origin):
    with opened() as tab:
        tab.goto(f"{origin}/{PAGES['scaling']}")
        figure = tab.locator("figure.interactive")
        words = figure.locator("[aria-live]")
        assert words.text_content().startswith("Training length 64, factor 4, β = 8: ")
        assert "keeps 1 of the 8" in words.text_content()
        figure.locator("input").nth(2).fill("1")
        assert "keeps 0 of the 8" in words.text_content()


def test_each_loss_has_a_line_of_its_own_kind(opened, origin):
    with opened() as tab:
        tab.goto(f"{origin}/{PAGES['weights']}")
        styles = tab.locator("figure.interactive polyline").evaluate_all(
            "(all) => all.map((one) => getComputedStyle(one))"
            ".map(({ stroke, strokeDasharray }) => `${stroke} ${strokeDasharray}`)"
        )
        assert len(set(styles)) == len(styles) == 4


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


def test_the_states_of_one_unit_are_those_of_the_worked_example(opened, origin):
    with opened() as tab:
        tab.goto(f"{origin}/rnn.html")
        figure = tab.locator('figure[data-figure="unit"]')
        assert "weight 0.8, impulse 1:" in figure.locator("[aria-live]").text_content()
        points = figure.locator("polyline").first.get_attribute("points").split()
        heights = [float(point.partition(",")[2]) for point in points]
        states = [1 - (height - 8) / 70 for height in heights]  # the panel has 140 rows
        assert states[:3] == pytest.approx([0.762, 0.544, 0.409], abs=1e-3)


def test_the_time_scale_of_a_forget_gate_is_that_of_the_worked_example(opened, origin):
    with opened() as tab:
        tab.goto(f"{origin}/rnn_gated.html")
        words = tab.locator('figure[data-figure="forget"] [aria-live]').text_content()
        assert words.startswith("Bias 3: the gate is 0.953, and its time scale is 20.6")
        assert "After 27 steps a fraction of 0.27 " in words


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
