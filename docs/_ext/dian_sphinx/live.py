"""Live figures: recorded networks that run in the reader's browser.

The directive ``live-figure`` places one: ``reader`` (a recurrent network reads an
image), ``attention`` (a transformer reads one), ``denoise`` (images from noise), or
``spot`` (of two results, one is of code with a bug). A page loads nothing of a network
until its button is pressed; before that, without scripts and on paper, it shows a
recorded result, or what the directive contains.

What is said here stands in ``TEXT``, ``CAPTIONS`` and ``PUZZLES``; the scripts have a
table ``TEXT`` each.

What the browser needs is made from the records while the site is built, by ``python -m
dian_sphinx.live`` in a process of its own, since this one must not run torch. It is
kept in ``build/live``, under a key of the record, of this module and of the code it
runs.
"""

import base64
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from html import escape
from importlib.metadata import version
from pathlib import Path
from typing import ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from dian.runs.code_hash import source_key
from dian.runs.record import hashes_of, load, record_names

ROOT = Path(__file__).parents[3]
KEPT = ROOT / "build/live"
SCRIPTS = ROOT / "docs/_static/live"
RUNTIME = ROOT / "node_modules/onnxruntime-web/dist"
RUNTIME_FILES = (
    "ort.wasm.min.js",
    "ort-wasm-simd-threaded.mjs",
    "ort-wasm-simd-threaded.wasm",
)
FOLDER = "_static/live"
SUBSCRIPT = re.compile(r"(?<=\w)_(?:\{([^{}]+)\}|(\w))")
USED = re.compile(r"^[:`]{3,}\{live-figure\}", re.M)

READERS = {
    "rnn-fashion-mnist": "Recurrent network of the study",
    "rnn-best": "Best plain recurrent network",
    "torch-gru": "GRU of PyTorch",
}
TRANSFORMERS = {
    "rows-sinusoidal": "Sinusoidal encoding",
    "rows-rotary": "Rotary embedding",
    "rows-none": "Trained without positions",
}
DENOISERS = {
    "ddpm-fashion-mnist-small": "Unconditional network",
    "ddpm-conditional-small": "Class-conditional network",
}
"""The second is offered as soon as it is recorded."""
DENOISER = next(iter(DENOISERS))

CAPTIONS = {
    "reader": "Try it: a recorded recurrent network reads an image row by row in your "
    "browser. The image never leaves this page.",
    "attention": "Try it: a recorded transformer reads all rows of an image at once in "
    "your browser. You can shuffle the rows and remove the positional encoding.",
    "denoise": "Try it: a recorded diffusion model generates an image in your browser, "
    "step by step.",
    "spot": "Both results are computed while this site is built; one of them is "
    "computed by code with one wrong expression.",
}
SMALL_CAPTION = (
    "Press <em>Run</em>, and the recorded network reads this image in your browser."
)

TEXT = {
    "run": "Run",
    "no script": "Without JavaScript, the recorded result is shown.",
    "reader": "Left, an image. Right, the absolute gradient of the loss with respect "
    "to each pixel; the darkest pixel has the largest gradient. From row {first} on, "
    "the class {name} is the most probable one; after the last row its probability is "
    "{p:.3f}.",
    "attention": "Left, an image of 28 rows. Right, the attention weights of the four "
    "heads of the first layer, from each row (query, down) to each row (key, right). "
    "In each head, the largest weight is black.",
    "denoise": "From noise to an image in 20 DDIM steps. Top, the noisy image after "
    "steps 1, 5, 9, 13, 16, 18 and 20. Bottom, the predicted clean image.",
    "on paper": "The HTML edition has a figure here that runs in the browser.",
    "spot": "Spot the bug.",
    "which": "Which one is computed by the code with the bug?",
    "result": "Result {place}",
    "curve": "Result {place}: a decreasing curve",
    "answer": "The bug is in {place}",
    "right": "Correct.",
    "wrong": "No.",
    "reply": "The bug is in {place}: {what}. The check {link} detects it: without the "
    "bug, the two sides of the equation differ by {without}; with the bug, they differ "
    "by {bug}. The tolerance is {tolerance}.",
}


def denoisers() -> dict[str, str]:
    """List the records that the figure ``denoise`` runs, with what they are called."""
    there = record_names()
    return {name: words for name, words in DENOISERS.items() if name in there}


RECORDS: dict[str, Callable[[], dict[str, str]]] = {
    "reader": lambda: READERS,
    "attention": lambda: TRANSFORMERS,
    "denoise": denoisers,
    "spot": dict,
}


# --- Making what the browser loads --------------------------------------------------


def packed(name: str, tensors: dict, **facts) -> str:
    """Write arrays as a script, which a page may load from a file, too."""
    import numpy as np

    parts, shapes, at = [], {}, 0
    for key, tensor in sorted(tensors.items()):  # in one order in every build
        array = np.ascontiguousarray(tensor)
        if array.dtype != np.uint8:
            array = array.astype("<f4")
        shapes[key] = [at, *array.shape]
        parts.append(array.tobytes())
        at += array.size
    content = json.dumps({"tensors": shapes, **facts}, separators=(",", ":"))
    data = base64.b64encode(b"".join(parts)).decode()
    return f'dianLive.give("{name}",{content},"{data}");\n'


def reader_script(name: str) -> str:
    """Write the weights of a recurrent classifier."""
    weights = load(name).weights
    end = {"W_hq": weights["W_hq"], "b_q": weights["b_q"]}
    parts = ("W_xh", "W_hh", "b_h")
    facts = {"cell": "tanh", "readout": "last", "layers": [["rnn."]]}
    if name.startswith("torch-"):
        facts["cell"] = "gru"
        facts["layers"] = [[""]]
        layer = {
            f"{short}": weights[f"rnn.{long}_l0"]
            for short, long in (
                *(("W_ih", "weight_ih"), ("W_hh", "weight_hh")),
                *(("b_ih", "bias_ih"), ("b_hh", "bias_hh")),
            )
        }
        return packed(name, layer | end, **facts)
    settings = load(name).settings
    if "layers" in settings:
        facts["readout"] = settings["readout"]
        directions = 2 if settings["bidirectional"] else 1
        facts["layers"] = [
            [f"rnn.layers.{n}.{k}." for k in range(directions)]
            for n in range(settings["layers"])
        ]
    kept = [f"{at}{p}" for layer in facts["layers"] for at in layer for p in parts]
    return packed(name, {key: weights[key] for key in kept} | end, **facts)


def transformer_script(name: str) -> str:
    """Write the weights of a transformer that reads rows."""
    record = load(name)
    facts = {key: record.settings[key] for key in ("encoding", "n_head", "n_layer")}
    return packed(name, record.weights, **facts)


def export(model) -> bytes:
    """Write a U-Net as ONNX; weights that 16 bits hold exactly are stored so."""
    import warnings

    import numpy as np
    import onnx
    import torch
    from onnx import helper, numpy_helper

    classes = model.null_class
    inputs = (torch.randn(2, 1, 28, 28), torch.tensor([7, 500]))
    if classes is not None:
        inputs += (torch.tensor([0, classes]),)
    names, file = ["x", "t", "y"][: len(inputs)], io.BytesIO()
    with warnings.catch_warnings(action="ignore"):  # shapes that are traced are fixed
        torch.onnx.export(
            model.requires_grad_(False),
            inputs,
            file,
            dynamo=False,
            opset_version=17,
            input_names=names,
            output_names=["prediction"],
            dynamic_axes={name: {0: "n"} for name in (*names, "prediction")},
        )
    graph = onnx.load_model_from_string(file.getvalue())
    casts = []
    for stored in graph.graph.initializer:
        if stored.data_type != onnx.TensorProto.FLOAT:
            continue
        wide = numpy_helper.to_array(stored)
        with np.errstate(over="ignore"):
            half = wide.astype(np.float16)
        if wide.size > 1 and np.array_equal(half.astype(np.float32), wide):
            name = stored.name
            stored.CopyFrom(numpy_helper.from_array(half, f"{name}/half"))
            cast = helper.make_node(
                "Cast", [f"{name}/half"], [name], to=onnx.TensorProto.FLOAT
            )
            casts.append(cast)
    for cast in reversed(casts):
        graph.graph.node.insert(0, cast)
    onnx.checker.check_model(graph)
    return graph.SerializeToString(deterministic=True)


def chosen() -> tuple:
    """Return the images that all figures offer: the first two of each class."""
    from dian.data import sample

    test = sample("test")
    firsts = [(test.labels == c).nonzero()[:2, 0] for c in range(10)]
    order = [9, *range(9)]  # a boot first
    index = [int(firsts[c][k]) for k in range(2) for c in order]
    return test.images[index], test.labels[index], test.index[index]


def images_script() -> str:
    """Write the images that the figures offer, with their classes."""
    from dian.data import CLASSES

    images, labels, index = chosen()
    facts = {"labels": labels.tolist(), "index": index.tolist(), "classes": CLASSES}
    return packed("images", {"images": images}, **facts)


def picture(rows) -> str:
    """Write a grey picture, 0 to 255, as an address of its own."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(rows).save(file, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def beside(parts, gap: int = 2):
    """Put grey pictures side by side, with white between them."""
    import numpy as np

    white = np.full((len(parts[0]), gap), 255, np.uint8)
    joined = [x for part in parts for x in (part, white)]
    return np.concatenate(joined[:-1], 1)


def dark(values):
    """Turn numbers into grey: the largest is black, and 0 is white."""
    import numpy as np

    values = np.asarray(values)
    return (255 - 255 * values / max(values.max(), 1e-12)).round().astype(np.uint8)


def reader_still() -> dict:
    """Read the first image: the image, and the gradient with respect to each pixel."""
    import torch

    from dian.data import CLASSES
    from dian.diffusion.pixels import unit

    images, labels, _ = chosen()
    model, x = load("rnn-fashion-mnist").model(), unit(images[:1]).requires_grad_()
    torch.nn.functional.cross_entropy(model(x), labels[:1]).backward()
    with torch.no_grad():
        p = torch.stack([model(x[:, :t])[0].softmax(0) for t in range(1, 29)])
    first = next(t for t in range(28) if (p[t:].argmax(1) == p[-1].argmax()).all()) + 1
    best = int(p[-1].argmax())
    said = TEXT["reader"].format(first=first, name=CLASSES[best], p=p[-1, best])
    parts = [255 - images[0].numpy(), dark(x.grad[0].abs().numpy())]
    return {"image": picture(beside(parts)), "said": said, "width": 58}


def attention_still() -> dict:
    """Draw the weights of all heads of the first layer for the first image."""
    import torch

    from dian.diffusion.pixels import unit

    images, _, _ = chosen()
    model = load("rows-sinusoidal").model()
    with torch.no_grad():
        P = model.attention_weights(unit(images[:1]))[0][0]
    parts = [255 - images[0].numpy(), *(dark(head.numpy()) for head in P)]
    return {
        "image": picture(beside(parts)),
        "said": TEXT["attention"],
        "width": 148,
    }


def denoise_still() -> dict:
    """Draw an image from noise, by 20 steps of DDIM."""
    import torch

    from dian.diffusion.pixels import to_bytes
    from dian.diffusion.sampling import Denoiser, ddim_sample

    record = load(DENOISER)
    schedule = schedule_of(record)
    seen = []
    ddim_sample(
        schedule,
        Denoiser(record.model(), record.settings["target"]),
        torch.randn(1, 1, 28, 28, generator=torch.Generator().manual_seed(3)),
        steps=20,
        callback=lambda t, x, x_0: seen.append((x, x_0)),
    )
    shown = [0, 4, 8, 12, 15, 17, 19]
    rows = [
        beside([255 - to_bytes(seen[i][k])[0, 0].numpy() for i in shown])
        for k in (0, 1)
    ]
    import numpy as np

    gap = np.full((2, rows[0].shape[1]), 255, np.uint8)
    whole = np.concatenate([rows[0], gap, rows[1]])
    return {"image": picture(whole), "said": TEXT["denoise"], "width": whole.shape[1]}


def schedule_of(record):
    """Return the noise schedule of a record."""
    from dian.diffusion.schedule import linear_schedule

    s = record.settings
    return linear_schedule(s["T"], s["beta_1"], s["beta_T"])


# --- Two results, one of them with a bug --------------------------------------------


def puzzle_rnn(module) -> dict:
    """Train a network on the sample, with the gradient of a module."""
    import numpy as np
    import torch

    from dian import data
    from dian.rnn.networks import RNNClassifier
    from dian.training.loop import Training
    from dian.training.loss import cross_entropy

    train = data.sample("train")
    generator = torch.Generator().manual_seed(0)
    model = RNNClassifier(28, 64, 10, generator=generator)
    layer = module.RNN(28, 64)
    layer.load_state_dict(model.rnn.state_dict())
    model.rnn = layer
    steps = Training(
        model,
        lambda images, labels: cross_entropy(model(images), labels),
        (train.unit(), train.labels),
        optimizer=torch.optim.SGD(model.parameters(), lr=0.2),
        schedule="cosine",
        max_norm=1.0,
        batch_size=25,
        epochs=6,
        generator=generator,
    )
    losses = np.convolve([step.loss for step in steps], np.ones(20) / 20, "valid")
    x = np.linspace(0, 200, len(losses))
    y = 100 - 100 * losses / 2.5
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
    return {"points": points}


def puzzle_positions(module) -> dict:
    """Compute the attention weights of rotated queries and keys."""
    import torch

    from dian.positions.sinusoidal import frequencies

    state = torch.Generator().manual_seed(0)
    q = torch.randn(24, 32, generator=state, dtype=torch.float64)
    k = q + torch.randn(24, 32, generator=state, dtype=torch.float64)
    Q, K = (module.rotate_half_split(x, frequencies(32)) for x in (q, k))
    return {"image": picture(dark((Q @ K.T / 32**0.5).softmax(-1).numpy()))}


def puzzle_attention(module) -> dict:
    """Compute attention weights of 24 queries and 24 keys."""
    import torch

    state = torch.Generator().manual_seed(0)
    Q, K = torch.randn(2, 1, 24, 16, generator=state, dtype=torch.float64)
    _, P = module.scaled_dot_product_attention(1.5 * Q, K, K)
    return {"image": picture(dark(P[0].numpy()))}


def puzzle_diffusion(module) -> dict:
    """Sample a ring of eight Gaussians with the optimal denoiser."""
    import numpy as np
    import torch

    from dian.diffusion.gaussian_mixture import optimal_denoiser, ring
    from dian.diffusion.schedule import linear_schedule

    schedule = linear_schedule(100, 0.001, 0.2)
    eight = ring(8, radius=0.8, variance=0.005)
    denoiser = module.Denoiser(optimal_denoiser(eight, schedule.alpha_bar), clip=None)
    x_T = torch.randn(2000, 2, generator=torch.Generator().manual_seed(1)).double()
    state = torch.Generator().manual_seed(2)
    points = module.ddpm_sample(schedule, denoiser, x_T, generator=state).numpy()
    edges = np.linspace(-1.3, 1.3, 79)
    counts, _, _ = np.histogram2d(*points.T, bins=(edges, edges))
    return {"image": picture(dark(np.minimum(counts, 3)))}


PUZZLES = {
    # chapter: what is shown; the module and its mutant; the claim; where the bug is
    "rnn": (
        puzzle_rnn,
        "Two curves show the training loss of a recurrent network on 1,000 images, by "
        "step.",
        ("dian.rnn.recurrence", "dian.claims.rnn.recurrence", "bptt"),
        "H_t for H_{t-1}",
        "B",
    ),
    "positions": (
        puzzle_positions,
        "Two pictures show the attention weights of 24 queries and keys with rotary "
        "embedding; dark is large.",
        ("dian.positions.rotary", "dian.claims.positions.rotary", "forms"),
        "the cosine is used twice",
        "A",
    ),
    "attention": (
        puzzle_attention,
        "Two pictures show the attention weights of 24 random queries and keys with 16 "
        "features; dark is large.",
        ("dian.attention.dot_product", "dian.claims.attention.dot_product", "plain"),
        "divided by the square root of the number of keys",
        "B",
    ),
    "diffusion": (
        puzzle_diffusion,
        "Two pictures show 2,000 samples of a ring of eight Gaussians, drawn with the "
        "optimal denoiser.",
        (
            "dian.diffusion.sampling",
            "dian.claims.diffusion.sampling",
            "gaussian_oracle",
        ),
        "variance in place of deviation",
        "A",
    ),
}


def puzzle(chapter: str) -> dict:
    """Compute both results, and what the check of a claim says of the one."""
    from importlib import import_module

    from dian.claims import verify

    show, question, (module, claims, check), what, place = PUZZLES[chapter]
    claim = getattr(import_module(claims), check).claim
    mutant = next(one for one in claim.mutants if one.what == what)
    right, wrong = verify.verify(claim), verify.run_mutant(claim, mutant)
    if not (right.passed and verify.killed(mutant, wrong)):
        raise ValueError(f"{claim.id}: expected that the check sees: {what}")
    shown = {place: show(verify.load_mutant(module, mutant))}
    shown["AB".replace(place, "")] = show(import_module(module))
    return {
        "question": question,
        "place": place,
        "what": what,
        "shown": shown,
        "claim": claim.id,
        "title": claim.title,
        "tolerance": f"{claim.tolerance:.0e}",
        "right": f"{right.residual:.0e}",
        "wrong": f"{wrong.residual:.0e}",
    }


# --- What is made again ---------------------------------------------------------------


def _records(*names: str) -> Callable[[], object]:
    return lambda: hashes_of(names)


@cache
def pieces() -> dict[
    str, tuple[Callable[[], object], Callable[[], str | bytes | dict]]
]:
    """Return, for each file, what it depends on and the function that makes it."""
    made: dict = {"images.js": (_records(), images_script)}
    for name in READERS:
        made[f"{name}.js"] = (_records(name), lambda name=name: reader_script(name))
    for name in TRANSFORMERS:
        made[f"{name}.js"] = _records(name), lambda name=name: transformer_script(name)
    for name in denoisers():
        made[f"{name}.onnx"] = (
            lambda name=name: (hashes_of([name]), source_key("dian.diffusion.unet")),
            lambda name=name: export(load(name).model()),
        )
        made[f"{name}.js"] = (
            _records(name, *evaluation(name)),
            lambda name=name: denoiser_script(name),
        )
    stills = {
        "reader": (reader_still, "rnn-fashion-mnist"),
        "attention": (attention_still, "rows-sinusoidal"),
        "denoise": (denoise_still, DENOISER),
    }
    for kind, (make, name) in stills.items():
        made[f"still-{kind}.json"] = _records(name), make
    for chapter, (_, _, (module, claims, _), _, _) in PUZZLES.items():
        made[f"spot-{chapter}.json"] = (
            lambda m=module, c=claims: (source_key(m), source_key(c)),
            lambda c=chapter: puzzle(c),
        )
    return made


def denoiser_script(name: str) -> str:
    """Write the noise schedule of a diffusion model, and what its network takes."""
    record = load(name)
    schedule = schedule_of(record)
    facts = {
        "T": schedule.T,
        "beta": schedule.beta.tolist(),
        "alphaBar": schedule.alpha_bar.tolist(),
        "predicts": record.settings["target"],
        "nullClass": record.model().null_class,
        "recorded": recorded_distances(name),
    }
    return packed(name, {}, **facts)


def evaluation(name: str) -> list[str]:
    """Return the record of how good the samples of a diffusion model are, if any."""
    return [one for one in [f"{name}-evaluation"] if one in record_names()]


def recorded_distances(name: str) -> dict[int, tuple[float, float]]:
    """Return Fréchet distance and standard error by the number of DDIM steps."""
    found = {}
    for one in evaluation(name):
        record = load(one)
        ways = record.settings["ways"].split()
        for steps in (10, 20, 50, 100):
            if f"ddim-{steps}" in ways and "guidance" not in record.settings:
                place = f"ddim-{steps}/both/frechet"
                pair = record.value(place), record.value(f"{place}_error")
                found[steps] = tuple(round(float(v), 2) for v in pair)
    return found


def keys() -> dict[str, str]:
    """Return the key of each file, which changes with all that it is made of."""
    common = [Path(__file__).read_text("utf-8"), *map(version, ("torch", "onnx"))]
    return {
        name: hashlib.sha256(repr((common, depends())).encode()).hexdigest()
        for name, (depends, _) in pieces().items()
    }


def _store() -> Path:
    return KEPT / "keys.json"


def kept_keys() -> dict[str, str]:
    """Return the keys of the files that are there."""
    try:
        stored = json.loads(_store().read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return {name: key for name, key in stored.items() if (KEPT / name).is_file()}


def main() -> None:
    """Make what is missing or of another key, and remove what is of no use any more."""
    import torch

    torch.set_num_threads(1)
    KEPT.mkdir(parents=True, exist_ok=True)
    now, there = keys(), kept_keys()
    for name, (_, make) in pieces().items():
        if there.get(name) == now[name]:
            continue
        made = make()
        if isinstance(made, dict):
            made = json.dumps(made)
        data = made.encode() if isinstance(made, str) else made
        (KEPT / name).write_bytes(data)
        there[name] = now[name]
        _store().write_text(json.dumps(there, indent=1, sort_keys=True), "utf-8")
    for path in KEPT.iterdir():
        if path.name not in now and path != _store():
            path.unlink()


def make(app: Sphinx) -> None:
    """Make what is missing before any page is read, if a page has a live figure."""
    pages = Path(app.srcdir).glob("*.md")
    if not any(USED.search(page.read_text("utf-8")) for page in pages):
        return
    app.has_live = True
    if kept_keys() == keys():
        return
    path = os.pathsep.join([str(Path(__file__).parents[1]), *filter(None, sys.path)])
    command = [sys.executable, "-m", "dian_sphinx.live"]
    done = subprocess.run(
        command,
        env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise SystemExit(f"live figures could not be made:\n{done.stderr}")


def copy(app: Sphinx, exception: Exception | None) -> None:
    """Put what was made, and the runtime, into the site."""
    if exception or app.builder.format != "html" or not hasattr(app, "has_live"):
        return
    target = Path(app.outdir, FOLDER)
    sources = [path for path in KEPT.iterdir() if path.suffix in (".js", ".onnx")]
    for source in [*sources, *(RUNTIME / name for name in RUNTIME_FILES)]:
        folder = target / ("runtime" if source.parent == RUNTIME else "data")
        folder.mkdir(parents=True, exist_ok=True)
        copied = folder / source.name
        if not copied.is_file() or copied.read_bytes() != source.read_bytes():
            shutil.copyfile(source, copied)


# --- The directive ------------------------------------------------------------------


def _sum(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:8]


@cache
def loaded(kind: str) -> str:
    """Return what the script of a figure has to know, as JSON: what it may load."""
    scripts = {path.name: _sum(path) for path in sorted(SCRIPTS.glob("*.js"))}
    names = RECORDS[kind]()
    files = ["images.js", *(f"{name}.js" for name in names)]
    files += [f"{name}.onnx" for name in names if kind == "denoise"]
    data = {name: _sum(KEPT / name) for name in files}
    content = {"scripts": scripts, "data": data, "networks": names}
    if kind == "denoise":
        content["runtime"] = version_of_runtime()
    return json.dumps(content, separators=(",", ":")).replace("<", r"\u003c")


def version_of_runtime() -> str:
    """Return the version of the runtime that is installed."""
    file = RUNTIME.parent / "package.json"
    return json.loads(file.read_text("utf-8"))["version"]


class Live(SphinxDirective):
    """Place a live figure."""

    required_arguments = 1
    optional_arguments = 1
    has_content = True
    option_spec: ClassVar = {"small": directives.flag, "name": directives.unchanged}

    def run(self) -> list[nodes.Node]:
        """Return the figure, with the result that stands there before it runs."""
        kind = self.arguments[0].split()[0]
        if kind not in CAPTIONS:
            raise self.error(
                f"live-figure: expected one of {', '.join(CAPTIONS)}, got {kind}"
            )
        if kind == "spot":
            chapter = self.arguments[-1].split()[-1]
            if chapter not in PUZZLES:
                raise self.error(f"live-figure: spot has no chapter {chapter}")
            self.env.note_dependency(str(KEPT / f"spot-{chapter}.json"))
            text = spot(json.loads((KEPT / f"spot-{chapter}.json").read_text("utf-8")))
            return self.placed(nodes.raw("", text, format="html"))
        for name in RECORDS[kind]():
            for file in (f"{name}.js", f"still-{kind}.json"):
                self.env.note_dependency(str(KEPT / file))
        for script in SCRIPTS.glob("*.js"):
            self.env.note_dependency(str(script))
        self.env.metadata[self.env.docname]["live"] = "yes"
        small = "small" in self.options
        begin, end = figure(kind, small)
        shown = self.parse_content_to_nodes()
        if not shown:
            shown = [nodes.raw("", still(kind), format="html")]
        return self.placed(
            nodes.raw("", begin, format="html"),
            *shown,
            nodes.raw("", end, format="html"),
        )

    def placed(self, *parts: nodes.Node) -> list[nodes.Node]:
        """Return the parts of a figure in one box, to which its name leads.

        In LaTeX a box has no anchor, so the name is that of a target. On paper, a
        sentence says that the site shows more.
        """
        places = []
        if "name" in self.options:
            places = [nodes.target()]
            self.add_name(places[0])
        box = nodes.container("", *parts, classes=["live-place"])
        self.set_source_info(box)
        said = TEXT["on paper"]
        paper = addnodes.only(expr="latex")
        paper += nodes.paragraph("", "", nodes.emphasis(said, said))
        return [*places, box, paper]


def still(kind: str) -> str:
    """Write the recorded result of a figure."""
    one = json.loads((KEPT / f"still-{kind}.json").read_text("utf-8"))
    said = escape(one["said"])
    return (
        f'<img src="{one["image"]}" alt="{said}" width="{4 * one["width"]}">'
        f"<p>{said}</p>"
    )


def figure(kind: str, small: bool) -> tuple[str, str]:
    """Write a figure that waits for its button: before and after what it shows."""
    size = "small" if small else "whole"
    invitation = f"<span hidden>{SMALL_CAPTION}</span> " if small else ""
    start = (
        f'<p class="live-start"><button type="button" hidden>{TEXT["run"]}</button> '
        f'{invitation}<span class="live-status" role="status">'
        f"{escape(TEXT['no script'])}</span></p>"
    )
    begin = (
        f'<figure class="live" data-live="{kind}" data-size="{size}">'
        f'<script type="application/json">{loaded(kind)}</script>'
        f'{start if small else ""}<div class="live-still">'
    )
    end = (
        f'</div>{"" if small else start}<div class="live-box"></div>'
        f"<figcaption>{escape(CAPTIONS[kind])}</figcaption></figure>"
    )
    return begin, end


def spot(puzzle: dict) -> str:
    """Write two results and, behind each, whether it is that of the bug."""
    shown, replies = [], []
    for place in "AB":
        one = puzzle["shown"][place]
        name = TEXT["result"].format(place=place)
        if "image" in one:
            drawn = f'<img src="{one["image"]}" alt="{name}" width="176">'
        else:
            curve = TEXT["curve"].format(place=place)
            drawn = (
                f'<svg viewBox="-2 -2 204 104" role="img" aria-label="{curve}">'
                f'<path d="M0 0V100H200"/><polyline points="{one["points"]}"/></svg>'
            )
        shown.append(f"<div><p>{place}</p>{drawn}</div>")
        claim = puzzle["claim"]
        address = f"verification/{_chapter(claim)}.html#claim-{claim.lower()}"
        title = escape(f"{claim}, {puzzle['title']}")
        reply = TEXT["reply"].format(
            place=puzzle["place"],
            what=SUBSCRIPT.sub(subscript, escape(puzzle["what"])),
            link=f'<a href="{address}">{title}</a>',
            without=number(puzzle["right"]),
            bug=number(puzzle["wrong"]),
            tolerance=number(puzzle["tolerance"]),
        )
        word = TEXT["right" if place == puzzle["place"] else "wrong"]
        answer = TEXT["answer"].format(place=place)
        replies.append(
            f"<details><summary>{answer}</summary><p>{word} {reply}</p></details>"
        )
    return (
        '<figure class="live spot" data-live="spot">'
        f"<p><strong>{TEXT['spot']}</strong> {escape(puzzle['question'])} "
        f'{TEXT["which"]}</p><div class="live-pair">{"".join(shown)}</div>'
        f"{''.join(replies)}<figcaption>{escape(CAPTIONS['spot'])}</figcaption>"
        "</figure>"
    )


def subscript(match: re.Match) -> str:
    """Write what follows the underscore of a name in HTML.

    >>> SUBSCRIPT.sub(subscript, "H_t for H_{t-1}")
    'H<sub>t</sub> for H<sub>t&minus;1</sub>'
    """
    return f"<sub>{(match[1] or match[2]).replace('-', '&minus;')}</sub>"


def number(text: str) -> str:
    """Write a number of one digit in HTML.

    >>> number("6e-16"), number("1e-10"), number("9e-01"), number("2e+00")
    ('6 &times; 10<sup>&minus;16</sup>', '10<sup>&minus;10</sup>', '0.9', '2')
    """
    digit, _, power = text.partition("e")
    if int(power) >= -2:
        return f"{float(text):g}"
    before = "" if digit == "1" else f"{digit} &times; "
    return f"{before}10<sup>&minus;{-int(power)}</sup>"


def _chapter(claim: str) -> str:
    """Return the page of the ledger on which a claim is.

    >>> _chapter("A4")
    'attention'
    """
    pages = {"R": "rnn", "P": "positions", "A": "attention", "D": "diffusion"}
    return pages[claim[0]]


def load_script(app: Sphinx, pagename, templatename, context, doctree) -> None:
    """Load the small script that waits for the button, on pages that have one."""
    if app.env.metadata.get(pagename, {}).get("live"):
        app.add_js_file("live/live.js")


def connect(app: Sphinx) -> None:
    """Make the files before pages are read, and copy them after all are written."""
    app.add_directive("live-figure", Live)
    app.connect("builder-inited", make)
    app.connect("html-page-context", load_script, priority=800)
    app.connect("build-finished", copy)


if __name__ == "__main__":
    main()
