r"""Chapter 4: the U-Net.

The network is computed a second time from its formulas alone: a convolution is a sum
over nine shifted images, GroupNorm divides by a standard deviation computed here, and
attention loops over its queries.
"""

import math

import torch
from torch import Tensor, nn

from dian.claims import Mutant, claim
from dian.claims.compare import holds, largest, normal, relative
from dian.diffusion import unet

HO = "Ho et al., Denoising Diffusion Probabilistic Models, 2020, arXiv:2006.11239"
SHAPE = {"channels": 2, "width": 6, "multipliers": (1, 2), "blocks": 1, "groups": 3}
BATCH, ROW, COLUMN = 5, 4, 8


def random_network(unet) -> nn.Module:
    """A small network in float64, in which no weight is zero."""
    network = unet.UNet(unet.UNetConfig(**SHAPE)).double()
    generator = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.3, generator=generator)
    return network


def swish(x: Tensor) -> Tensor:
    """The activation, z / (1 + exp(-z))."""
    return x / (1 + torch.exp(-x))


def normalised(x: Tensor, norm: nn.Module) -> Tensor:
    """GroupNorm: mean 0 and deviation 1 over the channels of a group, at all pixels."""
    groups = x.reshape(len(x), SHAPE["groups"], -1)
    mean = groups.mean(-1, keepdim=True)
    variance = ((groups - mean) ** 2).mean(-1, keepdim=True)
    scaled = ((groups - mean) / (variance + 1e-6).sqrt()).reshape(x.shape)
    return scaled * norm.weight[:, None, None] + norm.bias[:, None, None]


def convolved(x: Tensor, conv: nn.Module, stride: int = 1, before: int = 1) -> Tensor:
    """A sum over shifted images, with zeros outside; ``before`` of them come first."""
    size = conv.weight.shape[-1]
    rows, columns = x.shape[2:]
    wide = x.new_zeros(*x.shape[:2], rows + size - 1, columns + size - 1)
    wide[:, :, before : before + rows, before : before + columns] = x
    y = conv.bias[:, None, None]
    for i in range(size):
        for j in range(size):
            at = wide[:, :, i : i + rows : stride, j : j + columns : stride]
            y = y + torch.einsum("oc,bcij->boij", conv.weight[:, :, i, j], at)
    return y


def attended(x: Tensor, layer: nn.Module) -> Tensor:
    """Each pixel attends to all pixels of its image."""
    pixels = normalised(x, layer.norm).flatten(2).transpose(1, 2)
    out = torch.zeros_like(pixels)
    for n, image in enumerate(pixels):
        Q, K, V = (
            image @ W.weight.T + W.bias for W in (layer.W_Q, layer.W_K, layer.W_V)
        )
        for i, query in enumerate(Q):
            weight = torch.exp(K @ query / math.sqrt(len(query)))
            out[n, i] = weight @ V / weight.sum()
    out = out @ layer.W_O.weight.T + layer.W_O.bias
    return x + out.transpose(1, 2).reshape(x.shape)


def block(x: Tensor, e: Tensor, layer: nn.Module) -> Tensor:
    """A residual block: two convolutions and a skip connection; then attention."""
    h = convolved(swish(normalised(x, layer.norm_1)), layer.conv_1)
    h = h + (e @ layer.time.weight.T + layer.time.bias)[:, :, None, None]
    h = convolved(swish(normalised(h, layer.norm_2)), layer.conv_2)
    if isinstance(layer.shortcut, nn.Conv2d):
        x = convolved(x, layer.shortcut, before=0)
    attention = layer.attention
    return x + h if isinstance(attention, nn.Identity) else attended(x + h, attention)


def encoded(t: Tensor, w: int) -> Tensor:
    """Sine and cosine of t - 1 at frequencies from 1 to 1/10000, both included."""
    rows = []
    for step in t.tolist():
        angles = [(step - 1) * 1e4 ** (-i / (w // 2 - 1)) for i in range(w // 2)]
        rows.append([f(a) for a in angles for f in (math.sin, math.cos)])
    return torch.tensor(rows, dtype=torch.float64)


def by_hand(network: nn.Module, x: Tensor, t: Tensor) -> Tensor:
    """The whole network of two levels, written out."""
    e = encoded(t, SHAPE["width"])
    for layer in (network.time_1, network.time_2):
        e = swish(e @ layer.weight.T + layer.bias)
    return convolutions(network, x, e)


def convolutions(network: nn.Module, x: Tensor, e: Tensor) -> Tensor:
    """All of the network but the embedding of the timestep."""
    one, shrink, two = network.down
    a = convolved(x, network.first)
    b = block(a, e, one)
    c = convolved(b, shrink.conv, stride=2, before=0)
    d = block(c, e, two)
    first, second = network.middle
    h = block(block(d, e, first), e, second)
    up = list(network.up)
    h = block(torch.cat([h, d], 1), e, up[0])
    h = block(torch.cat([h, c], 1), e, up[1])
    larger = torch.zeros(*h.shape[:2], *x.shape[2:], dtype=h.dtype)
    for i in range(x.shape[2]):
        for j in range(x.shape[3]):
            larger[:, :, i, j] = h[:, :, i // 2, j // 2]
    h = convolved(larger, up[2].conv)
    h = block(torch.cat([h, b], 1), e, up[3])
    h = block(torch.cat([h, a], 1), e, up[4])
    return convolved(swish(normalised(h, network.norm)), network.last)


@claim(
    "D17",
    "The U-Net computes its formulas",
    equations=("eq-unet-block", "eq-unet-step"),
    kinds="I E",
    tolerance=1e-10,
    source=f"{HO}, appendix B and the authors' code",
    assumptions="no dropout, as in sampling",
    subjects=(unet,),
    mutants=(
        Mutant("no timestep embedding", "ResBlock.forward",
               "self.conv_1(silu(self.norm_1(x))) + self.time(e)[:, :, None, None]",
               "self.conv_1(silu(self.norm_1(x)))"),
        Mutant("timesteps counted from 1", "UNet.forward", "t - 1", "t"),
        Mutant("the last frequency left out", "UNet.forward",
               "10_000 ** (w / (w - 2))", "10_000.0"),
        Mutant("the residual connection is missing", "ResBlock.forward",
               "self.shortcut(x) + self.conv_2(h)", "self.conv_2(h)"),
        Mutant("padded at the left and the top", "Downsample.forward",
               "[0, 1, 0, 1]", "[1, 0, 1, 0]"),
        Mutant("the residual connection of attention is missing",
               "AttentionBlock.forward",
               "x + self.W_O(attended).transpose(1, 2).unflatten(2, x.shape[2:])",
               "self.W_O(attended).transpose(1, 2).unflatten(2, x.shape[2:])"),
        Mutant("the skip connections are missing", "UNet.forward",
               "torch.cat([h, skips.pop()], 1)", "torch.cat([h, 0 * skips.pop()], 1)"),
        Mutant("normalized after the convolution only", "ResBlock.forward",
               "self.conv_1(silu(self.norm_1(x)))", "self.conv_1(silu(x))"),
        Mutant("the initial prediction is not zero", "UNet.reset_parameters",
               "last = [self.last]", "last = []"),
    ),
)  # fmt: skip
def network() -> float:
    """The output by hand; 0 when initialized; 35,746,307 weights for CIFAR-10."""
    made = random_network(unet)
    (x,) = normal(0, (BATCH, SHAPE["channels"], ROW, COLUMN))
    t = torch.tensor([1, 2, 50, 999, 1000])
    with torch.no_grad():
        residual = relative(made(x, t), by_hand(made, x, t))
        start = unet.UNet(unet.UNetConfig(**SHAPE)).double()(x, t)
    paper = unet.UNet("cifar10")
    n = sum(p.numel() for p in paper.parameters())
    return largest([residual, holds(not start.any()), holds(n == 35_746_307)])


@claim(
    "D17b",
    "Class embedding and patches of the U-Net",
    equations=("eq-diffusion-class-embedding",),
    kinds="I",
    tolerance=1e-10,
    source="Ho and Salimans, Classifier-Free Diffusion Guidance, 2022, "
    "arXiv:2207.12598, for the null class",
    assumptions="no dropout, as in sampling",
    subjects=(unet,),
    mutants=(
        Mutant("the class is ignored", "UNet._add_class",
               "e + self.label(y.long())", "e + 0 * self.label(y.long())"),
        Mutant("without a class it is the first one", "UNet._add_class",
               "torch.full(e.shape[:1], self.null_class, device=e.device)",
               "torch.zeros(e.shape[:1], dtype=torch.int64)"),
        Mutant("the null class is the last class", "UNet.__init__",
               "config, config.num_classes", "config, config.num_classes - 1",
               raises="ValueError"),
        Mutant("the class after the activation", "UNet.forward",
               "silu(self._add_class(self.time_2(silu(self.time_1(e))), y))",
               "self._add_class(silu(self.time_2(silu(self.time_1(e)))), y)"),
        Mutant("the blocks are transposed", "UNet.forward",
               "pixel_unshuffle(x_t, self.config.patch_size)",
               "pixel_unshuffle(x_t.mT, self.config.patch_size).mT"),
        Mutant("the blocks are transposed at the output", "UNet.forward",
               "pixel_shuffle(h, self.config.patch_size)",
               "pixel_shuffle(h.mT, self.config.patch_size).mT"),
    ),
)  # fmt: skip
def classes_and_patches() -> float:
    """By hand, with classes, the null class and none; blocks by slices."""
    options = SHAPE | {"num_classes": 3, "patch_size": 2}
    made = unet.UNet(unet.UNetConfig(**options)).double()
    generator = torch.Generator().manual_seed(1)
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.3, generator=generator)
    (x,) = normal(0, (BATCH, SHAPE["channels"], 2 * ROW, 2 * COLUMN))
    t, y = torch.tensor([1, 2, 50, 999, 1000]), torch.tensor([2, 0, 3, 1, 0])
    blocks = [
        x[:, c, i::2, j::2]
        for c in range(SHAPE["channels"])
        for i in range(2)
        for j in range(2)
    ]
    time = encoded(t, SHAPE["width"])
    time = swish(time @ made.time_1.weight.T + made.time_1.bias)
    time = time @ made.time_2.weight.T + made.time_2.bias
    with torch.no_grad():
        e = swish(time + made.label.weight[y])
        small = convolutions(made, torch.stack(blocks, 1), e)
        expected = torch.zeros_like(x)
        for n, part in enumerate(small.unbind(1)):
            c, i, j = n // 4, n // 2 % 2, n % 2
            expected[:, c, i::2, j::2] = part
        # without classes, every image is as the one of the null class
        alike = relative(made(x[2:3], t[2:3]), expected[2:3])
        return largest([relative(made(x, t, y), expected), alike])
