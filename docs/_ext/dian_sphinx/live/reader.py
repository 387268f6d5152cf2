"""What the figure ``reader`` needs: the weights of recurrent networks, and a result."""

import torch

from dian.data import CLASSES
from dian.diffusion.pixels import unit
from dian.runs.record import load
from dian_sphinx.live.images import offered_images
from dian_sphinx.live.offered import READERS
from dian_sphinx.live.packed import packed
from dian_sphinx.live.pictures import dark, joined, still
from dian_sphinx.wording import mark

RESULT = mark(
    "Left, an image. Right, the absolute gradient of the loss with respect to each "
    "pixel; the darkest pixel has the largest gradient. From row {first} on, the class "
    "{name} is the most probable one; after the last row its probability is {p:.3f}."
)
# The names of the page, and what torch.nn.GRU calls them.
GRU_NAMES = {
    "W_ih": "weight_ih",
    "W_hh": "weight_hh",
    "b_ih": "bias_ih",
    "b_hh": "bias_hh",
}


def script(name: str) -> str:
    """Write the weights of a recurrent classifier.

    ``layers`` lists, for each layer, the prefix of the weights of each direction.
    """
    record = load(name)
    settings = record.settings
    # In the network of a recipe, the classifier is a submodule.
    weights = {k.removeprefix("classifier."): w for k, w in record.weights.items()}
    readout = {key: weights[key] for key in ("W_hq", "b_q")}
    facts = {"cell": "tanh", "readout": "last", "layers": [["rnn."]]}
    if name.startswith("torch-"):
        facts |= {"cell": "gru", "layers": [[""]]}
        kept = {key: weights[f"rnn.{full}_l0"] for key, full in GRU_NAMES.items()}
        return packed(name, kept | readout, **facts)
    if "layers" in settings:
        facts["readout"] = settings["readout"]
        directions = 2 if settings["bidirectional"] else 1
        facts["layers"] = [
            [f"rnn.layers.{n}.{k}." for k in range(directions)]
            for n in range(settings["layers"])
        ]
    prefixes = [prefix for layer in facts["layers"] for prefix in layer]
    keys = [f"{prefix}{key}" for prefix in prefixes for key in ("W_xh", "W_hh", "b_h")]
    return packed(name, {key: weights[key] for key in keys} | readout, **facts)


def recorded_result() -> dict:
    """Read the first image: the image, and the gradient with respect to each pixel."""
    images, labels, _ = offered_images()
    model = load(next(iter(READERS))).model()
    x = unit(images[:1]).requires_grad_()
    torch.nn.functional.cross_entropy(model(x), labels[:1]).backward()
    with torch.no_grad():
        p = torch.stack([model(x[:, :t])[0].softmax(0) for t in range(1, 29)])
    best = int(p[-1].argmax())
    first = next(t for t in range(28) if (p[t:].argmax(1) == best).all()) + 1
    gradient = dark(x.grad[0].abs().numpy())
    return still(
        joined([255 - images[0].numpy(), gradient]),
        RESULT,
        first=first,
        name=CLASSES[best],
        p=float(p[-1, best]),
    )
