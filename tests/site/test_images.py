"""A figure of the gallery has a caption with a number, a dark form and an SVG file."""

import re

import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

from dian_sphinx import figures, images

SETTINGS = {
    "extensions": ["myst_nb", "sphinx_gallery.load_style"],
    "html_theme": "basic",
    "nb_execution_mode": "off",
    "master_doc": "index",
    "numfig": True,
    "html_math_renderer": "mathjax",
}


@pytest.fixture
def scraped(tmp_path):
    """Return what is written for the open figures, and the folder of the images."""
    figures.reset({}, "")
    folder = tmp_path / "gallery/one/images"
    folder.mkdir(parents=True)
    names = (f"{folder}/sphx_glr_plot_x_{i:03}.png" for i in range(1, 9))
    block_vars = {"image_path_iterator": names, "example_globals": {}}
    conf = {
        "src_dir": str(tmp_path),
        "image_srcset": [2],
        "matplotlib_animations": (False,),
        "compress_images": (),
    }
    return (lambda: figures.scrape(None, block_vars, conf)), folder


def draw(label=""):
    figure, axes = plt.subplots(figsize=(4, 2))
    axes.plot([0, 1], [0, 1], color="#0072b2", lw=20)
    figure.set_label(label)
    return figure, axes


def test_a_figure_is_saved_in_three_forms(scraped):
    scrape, folder = scraped
    draw()
    rest = scrape()
    names = {file.name.removeprefix("sphx_glr_plot_x_") for file in folder.iterdir()}
    assert names == {"001.png", "001_2_00x.png", "001_dark.png", "001.svg"}
    assert "caption::" not in rest


def test_the_dark_form_swaps_light_and_dark_and_keeps_hues(scraped):
    scrape, folder = scraped
    draw()
    scrape()
    light = np.asarray(Image.open(folder / "sphx_glr_plot_x_001_2_00x.png"))[..., :3]
    dark = np.asarray(Image.open(folder / "sphx_glr_plot_x_001_dark.png"))
    assert light.shape == dark.shape
    assert (dark[light.min(2) == 255] == figures.DARK).all()
    blue = (light == (0, 0x72, 0xB2)).all(2)
    assert blue.any()
    red, green, azure = dark[blue][0]
    assert red < green < azure  # still blue
    assert int(azure) + int(red) > 255  # and light


def test_images_keep_their_colors_in_the_dark_form(scraped):
    scrape, folder = scraped
    figure, (left, right) = plt.subplots(1, 2)
    left.imshow(np.ones((4, 4)), cmap="gray", vmin=0, vmax=1)
    figure.colorbar(right.pcolormesh(np.eye(3)), ax=right)
    figure.canvas.draw()
    boxes = [axes.get_window_extent() for axes in figure.axes]
    height, scale = figure.bbox.height, 2
    scrape()
    light = np.asarray(Image.open(folder / "sphx_glr_plot_x_001_2_00x.png"))[..., :3]
    dark = np.asarray(Image.open(folder / "sphx_glr_plot_x_001_dark.png"))
    for box in boxes:
        row = int((height - (box.y0 + box.y1) / 2) * scale)
        column = int((box.x0 + box.x1) / 2 * scale)
        assert (light[row, column] == dark[row, column]).all()
    assert (dark[0, 0] == figures.DARK).all()


def test_the_svg_file_is_the_same_twice(scraped):
    scrape, folder = scraped
    for _ in range(2):
        draw()
        scrape()
    first, second = sorted(folder.glob("*.svg"))
    assert first.read_bytes() == second.read_bytes()


def test_a_label_becomes_a_numbered_caption(
    scraped, tmp_path, sphinx_build, extension_of
):
    scrape, _ = scraped
    draw("The state $h_t$\n grows.")
    rest = scrape()
    reference = "See :numref:`fig-plot-x-001`.\n"
    page = f"One\n===\n\n{rest}\n\n{reference}\n.. toctree::\n\n   two\n"
    (tmp_path / "index.rst").write_text(page)
    (tmp_path / "gallery/one/plot_x.rst").write_text(f":orphan:\n\nX\n=\n\n{rest}\n")
    (tmp_path / "two.rst").write_text("Two\n===\n\n.. picture:: gallery/one/plot_x 1\n")
    settings = SETTINGS | {
        "extensions": [*SETTINGS["extensions"], extension_of("images")],
        "exclude_patterns": ["gallery"],
        "nitpick_ignore_regex": [("std:doc", ".*")],
        "suppress_warnings": ["ref.doc"],
    }
    built = tmp_path / "built"
    sphinx_build(tmp_path, built, settings)
    html = (built / "index.html").read_text("utf-8")
    [caption] = re.findall("<figcaption>(.*?)</figcaption>", html, re.DOTALL)
    text = " ".join(re.sub("<[^>]*>", "", caption).split())
    assert text.startswith(r"Fig. 1 The state \(h_t\) grows.")
    assert html.count('class="only-light') == html.count('class="only-dark') == 1
    assert "Fig. 1" in html.split("See ")[1]
    for name in ("sphx_glr_plot_x_001_dark.png", "sphx_glr_plot_x_001.svg"):
        assert name in html
        assert (built / "_images" / name).is_file()
    copy = (built / "two.html").read_text("utf-8")
    assert "Fig. 2" in copy
    assert "grows." in copy


def test_an_image_of_another_source_stays_as_it_is():
    tag = '<img src="_images/photo.png" class="x"/>'
    assert images.TAG.sub(lambda match: images.both(match, {"photo_dark"}), tag) == tag


def test_a_plain_image_has_no_link_below_it():
    for words, classes, count in [
        ("the plain network", "picture", 1),
        ("a network", "picture plain", 0),
        ("a network", "plainly", 1),
    ]:
        tag = f'<img alt="{words}" class="{classes}" src="_images/sphx_glr_x_001.png"/>'
        html = images.TAG.sub(
            lambda match: images.both(match, {"sphx_glr_x_001_dark"}), tag
        )
        assert html.count("figure-svg") == count
        assert html.count("only-dark") == 1


def test_the_light_form_on_the_first_screen_is_fetched_first():
    tag = f'<img class="{images.FIRST}" src="_images/sphx_glr_x_001.png"/>'
    html = images.TAG.sub(
        lambda match: images.both(match, {"sphx_glr_x_001_dark"}), tag
    )
    light, dark = html.split("<img")[1:]
    assert 'fetchpriority="high"' in light
    assert "fetchpriority" not in dark
    assert 'loading="lazy"' in dark


def test_a_plain_picture_is_the_image_alone(tmp_path, sphinx_build, extension_of):
    folder = tmp_path / "gallery/one/images"
    folder.mkdir(parents=True)
    name = "gallery/one/images/sphx_glr_plot_x_001.png"
    Image.new("RGB", (4, 4)).save(tmp_path / name)
    page = f".. image-sg:: /{name}\n   :alt: a curve\n   :srcset: /{name}\n\n"
    (tmp_path / "gallery/one/plot_x.rst").write_text(f":orphan:\n\nX\n=\n\n{page}")
    text = ".. picture:: gallery/one/plot_x 1\n   :{}:\n\n"
    (tmp_path / "index.rst").write_text("One\n===\n\n" + text.format("plain"))
    (tmp_path / "two.rst").write_text(":orphan:\n\nTwo\n===\n\n" + text.format("first"))
    settings = SETTINGS | {
        "extensions": [*SETTINGS["extensions"], extension_of("images")],
        "exclude_patterns": ["gallery"],
        "suppress_warnings": ["ref.doc"],
    }
    sphinx_build(tmp_path, tmp_path / "built", settings)
    plain, first = (
        (tmp_path / f"built/{name}.html").read_text("utf-8")
        for name in ("index", "two")
    )
    assert "From the page" not in plain
    assert 'loading="lazy"' in plain
    assert "From the page" in first
    assert 'loading="lazy"' not in first
