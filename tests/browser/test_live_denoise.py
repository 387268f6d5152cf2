"""The samplers in the page generate the images that the library generates.

Each comparison is also seen to fail: with one step, one weight or another eta changed.
"""

import numpy as np
import onnx
import pytest
import torch
from built import HTML
from live_figures import DENOISER, finished, started
from onnx import numpy_helper

from dian.diffusion.guidance import guide
from dian.diffusion.sampling import (
    Denoiser,
    ddim_sample,
    ddpm_sample,
    evenly_spaced_timesteps,
)
from dian.diffusion.schedule import linear_schedule
from dian.diffusion.unet import UNet
from dian.runs.record import load
from dian_sphinx.live.unet_export import export

CLOSE = 1e-3

DENOISE = """async ([name, method, options, later]) => {
  const { sampler, denoise, given } = dianLive;
  const figure = document.querySelector('figure.live[data-live="denoise"]');
  const facts = JSON.parse(figure.querySelector('script').textContent);
  const root = new URL('_static/live/', document.baseURI), schedule = given[name];
  window.kept ??= await denoise.open({ facts, root, name, schedule });
  const predict = async (x, t) => (await kept.predict(x, t + later))[0];
  const noise = (t) => sampler.normal(7, t, 784);
  let last = null;
  const times = [], x_T = sampler.normal(7, 0, 784);
  const steps = sampler[method](schedule, predict, x_T, { noise, ...options });
  for await (const step of steps) {
    last = step;
    times.push(step.t);
  }
  const noises = Object.fromEntries(times.map((t) => [t, [...noise(t)]]));
  return { x: [...last.x], x_T: [...x_T], noises };
}"""


def recorded():
    """Return the recorded network, and its noise schedule."""
    record = load(DENOISER)
    s = record.settings
    return record, linear_schedule(s["T"], s["beta_1"], s["beta_T"])


def distance(there, here):
    """Return the largest difference of a pixel between the page and the library."""
    return np.abs(np.array(there["x"]) - here.flatten().numpy()).max()


def library_image(there, sampler, clip, **options):
    """Generate the same image with the library, from the noise of the page."""
    record, schedule = recorded()
    shape = (1, 1, 28, 28)
    return sampler(
        schedule,
        Denoiser(record.model(), record.settings["target"], clip=clip),
        torch.tensor(there["x_T"]).reshape(shape),
        noise=lambda t: torch.tensor(there["noises"][str(t)]).reshape(shape),
        **options,
    )


def ddim_distance(tab, eta=0.0, *, clip=True, page=None, later=0):
    """Compare an image of 20 DDIM steps; the rest changes the page alone."""
    options = {"steps": 20, "eta": eta, "clip": clip} | (page or {})
    there = tab.evaluate(DENOISE, [DENOISER, "ddim", options, later])
    clip = 1.0 if clip else None
    return distance(there, library_image(there, ddim_sample, clip, steps=20, eta=eta))


@pytest.mark.parametrize(("eta", "clip"), [(0.0, True), (0.5, True), (1.0, False)])
def test_an_image_of_20_steps_is_that_of_the_library(tabs, eta, clip):
    found = ddim_distance(tabs["denoise"], eta, clip=clip)
    print(eta, clip, found)
    assert found < CLOSE


def test_algorithm_2_is_that_of_the_library(tabs):
    options = {"clip": True, "start": 40}
    there = tabs["denoise"].evaluate(DENOISE, [DENOISER, "ddpm", options, 0])
    assert distance(there, library_image(there, ddpm_sample, 1.0, start=40)) < CLOSE


@pytest.mark.parametrize(
    "planted", [{"page": {"steps": 19}}, {"page": {"eta": 0.1}}, {"later": -1}], ids=str
)
def test_another_image_is_seen(tabs, planted):
    """One step fewer, another eta, the network asked about the step before."""
    found = ddim_distance(tabs["denoise"], **planted)
    print(planted, found)
    assert found > CLOSE


def test_one_changed_weight_of_the_unet_is_seen(opened, origin):
    model = onnx.load(HTML / f"_static/live/data/{DENOISER}.onnx")
    for stored in model.graph.initializer:
        if stored.name == "first.weight/half":
            weights = numpy_helper.to_array(stored).copy()
            weights[3, 0, 1, 1] += 0.05
            stored.CopyFrom(numpy_helper.from_array(weights, stored.name))
            break
    else:
        pytest.fail("no such weight")
    changed = model.SerializeToString()
    with opened() as tab:
        tab.route("**/*.onnx*", lambda route: route.fulfill(body=changed))
        started(tab, origin, "denoise")
        assert ddim_distance(tab) > CLOSE


def test_the_timesteps_are_those_of_the_library(tabs):
    wanted = [evenly_spaced_timesteps(1000, n) for n in range(1, 101)]
    found = tabs["denoise"].evaluate(
        "() => Array.from({ length: 100 }, (_, n) => "
        "dianLive.sampler.evenlySpaced(1000, n + 1))"
    )
    assert found == wanted


def test_guidance_extrapolates_as_the_library_does(tabs):
    found = tabs["denoise"].evaluate("() => [...dianLive.sampler.guided([3], [1], 2)]")
    assert found == [3 * 3 - 2 * 1]


GUIDED = """async ([label, weight]) => {
  const { sampler, denoise, given } = dianLive;
  const facts = { runtime: 'test', data: { 'classes.onnx': 'test' } };
  const root = new URL('_static/live/', document.baseURI);
  const schedule = { ...given['ddpm-fashion-mnist-small'], nullClass: 10 };
  const network = await denoise.open({ facts, root, name: 'classes', schedule });
  const predict = async (x, t) => {
    const found = await network.predict(x, t, [label, null]);
    return sampler.guided(found[0], found[1], weight);
  };
  const x_T = sampler.normal(7, 0, 784);
  let last = null;
  const options = { steps: 20, eta: 0, clip: true };
  for await (const step of sampler.ddim(schedule, predict, x_T, options)) last = step;
  await network.release();
  return { x: [...last.x], x_T: [...x_T] };
}"""


def test_a_guided_image_is_that_of_the_library(tabs):
    """With a network of random weights: the same code runs a recorded one."""
    torch.manual_seed(0)
    model = UNet("tiny", num_classes=10).eval()
    for weight in model.parameters():  # none of them is zero
        weight.data += 0.05 * torch.randn_like(weight)
    file, tab = export(model), tabs["denoise"]
    tab.route("**/classes.onnx*", lambda route: route.fulfill(body=file))
    there = tab.evaluate(GUIDED, [4, 2])
    _, schedule = recorded()
    found = {}
    for label in (4, 5):
        guided = guide(model, torch.tensor([label]), null_class=10, w=2.0)
        x_T = torch.tensor(there["x_T"]).reshape(1, 1, 28, 28)
        here = ddim_sample(schedule, Denoiser(guided, "epsilon"), x_T, steps=20)
        found[label] = distance(there, here)
    print(found)
    assert found[4] < CLOSE < found[5]


def test_the_noise_is_normal_and_that_of_its_seed(tabs):
    draw = "([s, k]) => [...dianLive.sampler.normal(s, k, 20000)]"
    first, again, other, later = (
        np.array(tabs["denoise"].evaluate(draw, seed))
        for seed in ([1, 0], [1, 0], [2, 0], [1, 5])
    )
    assert (first == again).all()
    assert abs(first.mean()) < 0.03
    assert abs(first.std() - 1) < 0.03
    assert abs(np.corrcoef([first, other, later]) - np.eye(3)).max() < 0.04


def denoised(box):
    """Press the button of the figure, wait, and return its image."""
    box.get_by_role("button", name="Denoise").click()
    return finished(box)


def task_seconds(client):
    """Return how long the page has used a core."""
    metrics = client.send("Performance.getMetrics")["metrics"]
    return next(m["value"] for m in metrics if m["name"] == "TaskDuration")


def test_the_same_seed_gives_the_same_image_and_50_steps_are_fast(opened, origin):
    with opened() as tab:
        box = started(tab, origin, "denoise")
        images, seconds, worked = [finished(box)], [], []
        client = tab.context.new_cdp_session(tab)
        client.send("Performance.enable", {"timeDomain": "threadTicks"})
        for _ in range(2):
            before = task_seconds(client)
            images.append(denoised(box))
            worked.append(task_seconds(client) - before)
            took = box.locator(".live-box").get_attribute("data-seconds")
            seconds.append(float(took))
        assert len(set(images)) == 1
        box.get_by_label("Seed", exact=True).fill("5")
        assert denoised(box) != images[0]
    print("50 steps, seconds:", seconds, "of a core:", worked)
    # The time of the core, since the machine may be busy with other things.
    assert 0.2 < min(worked) < 3


def test_ten_runs_do_not_grow_the_heap(opened, origin):
    with opened() as tab:
        box = started(tab, origin, "denoise")
        finished(box)
        box.get_by_label("Steps", exact=True).fill("10")
        client = tab.context.new_cdp_session(tab)

        def heap():
            client.send("HeapProfiler.collectGarbage")
            return client.send("Runtime.getHeapUsage")

        denoised(box)
        first = heap()
        for _ in range(10):
            denoised(box)
        last = heap()
    print(first, last)
    for key in ("usedSize", "backingStorageSize"):
        if key in first:
            assert last[key] < 1.1 * first[key], key


def test_cancel_frees_the_network(opened, origin):
    with opened() as tab:
        box = started(tab, origin, "denoise")
        finished(box)
        tab.evaluate("""() => {
          window.freed = 0;
          const { create } = ort.InferenceSession;
          ort.InferenceSession.create = async (...all) => {
            const session = await create.apply(ort.InferenceSession, all);
            const release = session.release.bind(session);
            session.release = () => { window.freed += 1; return release(); };
            return session;
          };
        }""")
        box.get_by_label("Sampler").select_option("ddpm")
        box.get_by_role("button", name="Denoise").click()
        cancel = box.get_by_role("button", name="Cancel")
        tab.wait_for_timeout(500)
        cancel.click()
        box.locator(".interactive-words", has_text="Cancelled").wait_for()
        # the first session was opened before the count began
        box.get_by_role("button", name="Denoise").click()
        tab.wait_for_timeout(1500)
        cancel.click()
        box.locator(".interactive-words", has_text="Cancelled").wait_for()
        assert tab.evaluate("window.freed") == 1
        box.get_by_label("Sampler").select_option("ddim")
        assert denoised(box)
