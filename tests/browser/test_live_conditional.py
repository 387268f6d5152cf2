"""The network with classes generates in the page what the library does with its record.

The controls are those that a reader uses: the network, its class and the guidance
weight. Each comparison is also seen to fail, with one expression or weight changed.
"""

import json

import numpy as np
import pytest
import torch
from live_figures import (
    CONDITIONAL,
    change_a_weight,
    choose_network,
    denoised,
    finished,
    open_settings,
    started,
    without,
)

from dian.diffusion.guidance import guide
from dian.diffusion.sampling import (
    Denoiser,
    ddim_sample,
    ddpm_sample,
    evenly_spaced_timesteps,
)
from dian.diffusion.schedule import linear_schedule
from dian.runs.record import load

CLOSE, SHAPE = 1e-3, (1, 1, 28, 28)
NOISE = "([seed, t]) => [...dianLive.sampler.normal(seed, t, 784)]"


def noise(tab, seed, t):
    """Return the noise that the page uses at step t; the initial one is that of 0."""
    return torch.tensor(tab.evaluate(NOISE, [seed, t])).reshape(SHAPE)


def recorded(label, w):
    """Return the schedule and the recorded denoiser, for a class or for none."""
    record = load(CONDITIONAL)
    s, model = record.settings, record.model()
    if label is not None:
        model = guide(model, torch.tensor([label]), model.null_class, w)
    schedule = linear_schedule(s["T"], s["beta_1"], s["beta_T"])
    return schedule, Denoiser(model, s["target"])


def ddim_image(tab, label, w=0.0, *, seed=7, steps=20, eta=0.0):
    """Generate an image with the library, from the noise of the page."""
    noises = {t: noise(tab, seed, t) for t in evenly_spaced_timesteps(1000, steps)}
    start = noise(tab, seed, 0)
    options = {"steps": steps, "eta": eta, "noise": noises.get}
    return ddim_sample(*recorded(label, w), start, **options)


def chosen(box, label, w=0.0, *, seed=7, steps=20, eta=0.0):
    """Set the controls of the figure, and return the image that it generates."""
    box.get_by_label("Class", exact=True).select_option(
        "none" if label is None else str(label)
    )
    if label is not None:
        box.get_by_label("Guidance weight").fill(str(w))
    open_settings(box)
    values = {"Seed": seed, "Steps": steps, "η (new noise)": eta}
    for name, value in values.items():
        box.get_by_label(name, exact=True).fill(str(value))
    return denoised(box)


def distance(image, here):
    """Return the largest difference of a pixel between the page and the library."""
    return np.abs(np.array(json.loads(image)) - here.flatten().numpy()).max()


def test_it_is_chosen_first_and_generates_the_image_of_the_library(opened, origin):
    with opened() as tab:
        box = started(tab, origin, "denoise")
        assert box.get_by_label("Network").input_value() == CONDITIONAL
        assert box.get_by_label("Class", exact=True).input_value() == "9"
        seed = int(box.get_by_label("Seed", exact=True).input_value())
        here = ddim_image(tab, 9, seed=seed, steps=50)
        assert distance(finished(box), here) < CLOSE


@pytest.mark.parametrize(
    ("label", "w", "eta"),
    [(None, 0, 0), (4, 0, 0), (0, 1, 0), (8, 2.5, 0), (9, 1, 0.5)],
)
def test_the_controls_generate_the_image_of_the_library(opened, origin, label, w, eta):
    with opened() as tab:
        box = started(tab, origin, "denoise")
        image = chosen(box, label, w, eta=eta)
        found = distance(image, ddim_image(tab, label, w, eta=eta))
    print(label, w, eta, found)
    assert found < CLOSE


DDPM = """async ([name, label, w]) => {
  const { sampler, denoise, given } = dianLive;
  const figure = document.querySelector('figure.live[data-live="denoise"]');
  const facts = JSON.parse(figure.querySelector('script').textContent);
  const root = new URL('_static/live/', document.baseURI), schedule = given[name];
  const network = await denoise.open({ facts, root, name, schedule });
  const predict = async (x, t) => sampler.guided(
    ...await network.predict(x, t, [label, null]), w);
  const options = { clip: true, start: 40, noise: (t) => sampler.normal(7, t, 784) };
  let last = null;
  for await (const step of sampler.ddpm(schedule, predict, options.noise(0), options)) {
    last = step;
  }
  await network.release();
  return JSON.stringify([...last.x]);
}"""


def test_algorithm_2_with_guidance_is_that_of_the_library(tabs):
    """The last 40 of its steps; the page takes all."""
    tab, found = tabs["denoise"], {}
    image = tab.evaluate(DDPM, [CONDITIONAL, 4, 1.5])
    for w in (1.5, 1.6):
        here = ddpm_sample(
            *recorded(4, w),
            noise(tab, 7, 0),
            noise=lambda t: noise(tab, 7, t),
            start=40,
        )
        found[w] = distance(image, here)
    print(found)
    assert found[1.5] < CLOSE < found[1.6]


@pytest.mark.parametrize(
    ("script", "right", "planted"),
    [
        ("sampler", "(1 + w) * v - w *", "(1 + 1.1 * w) * v - 1.1 * w *"),
        ("sampler", "eta ** 2 * (1 - a_s)", "(eta + 0.1) ** 2 * (1 - a_s)"),
        ("sampler", "let k = steps; k > 0", "let k = steps; k > 1"),
        (
            "denoise",
            "predict(x, t, [guidance.label, null])",
            "predict(x, t, [null, 9])",
        ),
        ("denoise", "predict(x, t, [guidance.label, null])", "predict(x, t, [9, 0])"),
        ("denoise", "c ?? schedule.nullClass", "c ?? 0"),
        ("denoise", "fill(t))", "fill(t - 1))"),
        ("denoise", "fill(t))", "fill(t))"),
    ],
)
def test_a_planted_change_is_seen(opened, origin, script, right, planted):
    """The last of them changes nothing, and is not seen."""
    with opened() as tab:
        tab.route(f"**/{script}.js*", without(right, planted))
        box = started(tab, origin, "denoise")
        found = distance(chosen(box, 9, 1.0), ddim_image(tab, 9, 1.0))
    print(planted, found)
    assert (found > CLOSE) == (planted != right)


@pytest.mark.parametrize("w", [0, 1])
def test_one_changed_weight_is_seen(opened, origin, w):
    with opened() as tab:
        change_a_weight(tab, CONDITIONAL)
        box = started(tab, origin, "denoise")
        assert distance(chosen(box, 9, w), ddim_image(tab, 9, w)) > CLOSE


def test_the_classes_are_shown_for_the_network_that_has_them(opened, origin):
    with opened() as tab:
        box = started(tab, origin, "denoise")
        label, weight = (
            box.get_by_label(name) for name in ("Class", "Guidance weight")
        )
        expected = box.locator(".live-expected")
        assert float(expected.inner_text().split()[1]) > 0
        before = expected.inner_text()
        assert not box.get_by_text("computes the network twice").is_visible()
        weight.fill("1")
        assert box.get_by_text("computes the network twice").is_visible()
        assert expected.inner_text() != before
        label.select_option("none")
        assert weight.is_disabled()
        assert expected.inner_text() == before
        choose_network(box, "ddpm-fashion-mnist-small")
        assert not label.is_visible()
        assert not weight.is_visible()
        assert expected.inner_text() == ""
        denoised(box)
        choose_network(box, CONDITIONAL)
        assert label.input_value() == "9"
