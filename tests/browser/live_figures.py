"""Live figures in a tab: where they are, and how they are started."""

from functools import cache

import onnx
from built import HTML
from onnx import numpy_helper

from dian.data import sample

PAGES = {
    "reader": "rnn",
    "attention": "attention_results",
    "denoise": "diffusion_sampling",
}
READERS = ("rnn-fashion-mnist", "rnn-recipe-best", "torch-gru")
TRANSFORMERS = ("rows-sinusoidal", "rows-rotary", "rows-none")
DENOISER = "ddpm-fashion-mnist-small"
CONDITIONAL = "ddpm-conditional-long"
MORE = "summary:has-text('More settings')"


def figure(tab, kind):
    """Find a live figure on its page."""
    return tab.locator(f'figure.live[data-live="{kind}"]')


def started(tab, origin, kind):
    """Open the page of a figure, press its button, and wait for its first result."""
    tab.goto(f"{origin}/{PAGES.get(kind, kind)}.html")
    box = figure(tab, "reader" if kind == "index" else kind)
    box.locator(".live-start button").click()
    words = box.locator(".live-box .interactive-words:not(:empty)")
    if kind == "denoise":  # it runs once by itself
        words = words.filter(has_text="done in")
    words.wait_for(timeout=60_000)
    return box


def finished(box):
    """Wait until the figure has generated an image, and return the image."""
    box.locator(".interactive-words", has_text="done in").wait_for(timeout=60_000)
    return box.locator(".live-box").get_attribute("data-image")


def denoised(box):
    """Press the button of the figure, wait, and return its image."""
    box.get_by_role("button", name="Denoise").click()
    return finished(box)


def choose_network(box, name):
    """Choose the network of the figure that denoises, and wait for its data."""
    box.get_by_label("Network").select_option(name)
    box.locator(".live-status:empty").wait_for(state="attached")


def open_settings(box):
    """Open the settings of the figure that denoises which are hidden at first."""
    box.locator(MORE).evaluate("summary => { summary.parentElement.open = true; }")


def change_a_weight(tab, name):
    """Have the page load a U-Net of which one weight is another."""
    model = onnx.load(HTML / f"_static/live/data/{name}.onnx")
    (stored,) = (
        one for one in model.graph.initializer if one.name == "first.weight/half"
    )
    weights = numpy_helper.to_array(stored).copy()
    weights[3, 0, 1, 1] += 0.05
    stored.CopyFrom(numpy_helper.from_array(weights, stored.name))
    changed = model.SerializeToString()
    tab.route(f"**/{name}.onnx*", lambda route: route.fulfill(body=changed))


def without(old, new):
    """Serve a script in which one expression is another."""

    def serve(route):
        name = route.request.url.rpartition("/")[2].partition("?")[0]
        text = (HTML / "_static/live" / name).read_text("utf-8")
        assert text.count(old) == 1
        route.fulfill(body=text.replace(old, new), content_type="text/javascript")

    return serve


@cache
def image():
    """Return an image that the figures do not offer, as bytes, and its label."""
    return sample("test")[20]


def pixels():
    """Return the pixels of that image as a list."""
    return image()[0].flatten().tolist()


CHANGE_A_WEIGHT = """([name, key]) => {
  dianLive.given[name].tensors[key][5] += 0.05;
}"""
