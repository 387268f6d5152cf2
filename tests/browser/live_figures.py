"""Live figures in a tab: where they are, and how they are started."""

from functools import cache

from dian.data import sample

PAGES = {
    "reader": "rnn",
    "attention": "attention_results",
    "denoise": "diffusion_sampling",
}
READERS = ("rnn-fashion-mnist", "rnn-best", "torch-gru")
TRANSFORMERS = ("rows-sinusoidal", "rows-rotary", "rows-none")
DENOISER = "ddpm-fashion-mnist-small"


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
