r"""The U-Net of denoising diffusion: an image and a step go in, an image comes out.

It is the network of Ho et al., *Denoising Diffusion Probabilistic Models*, 2020,
arXiv:2006.11239, appendix B: blocks of two convolutions that are told the step, in
levels of falling resolution, with attention at one of them and once in the middle, at
the lowest resolution, and a way across from each block on the way down to one on the
way up.

Axis names: ``batch``, ``row`` and ``column`` as everywhere; ``c`` and the like are
channels, ``e`` is the width of what the blocks are told of the step.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import silu

from dian.attention.dot_product import fused_attention, scaled_dot_product_attention
from dian.diffusion.schedule import check_steps
from dian.positions.sinusoidal import sinusoidal_encoding


@dataclass(frozen=True)
class UNetConfig:
    """What decides the number of weights, and nothing of how they are trained."""

    channels: int = 1
    """Channels of an image: 1 for grey, 3 for colours."""
    width: int = 128
    """Channels of the first level."""
    multipliers: tuple[int, ...] = (1, 2, 2, 2)
    """The channels of each level, in units of ``width``; each halves the image."""
    blocks: int = 2
    """Blocks of a level on the way down; on the way up there is one more."""
    attention: tuple[int, ...] = (1,)
    """The levels with attention, counted from 0; the middle has it in any case."""
    groups: int = 32
    """Groups of channels that are normalised together."""
    dropout: float = 0.0
    """The share of features dropped in each block, in training."""


PRESETS = {
    "cifar10": UNetConfig(channels=3, dropout=0.1),
    "base": UNetConfig(width=48, multipliers=(1, 2, 3), groups=16),
    "small": UNetConfig(width=16, multipliers=(1, 2, 4), blocks=1, groups=8),
    "tiny": UNetConfig(width=8, multipliers=(1, 2), blocks=1, groups=4),
}
"""The networks by their names in the settings of an experiment.

``cifar10`` is the paper's for 32 by 32 pixels, with attention at 16 by 16; the others
are for 28 by 28, with attention at 14 by 14. All attend once more in the middle, at the
lowest resolution: 4 by 4, 7 by 7, or 14 by 14 in ``tiny``. The paper has dropout
against the overfitting of 2,000 passes over its data; the others make far fewer.
"""


class UNet(nn.Module):
    r"""Predict an image from a noisy one and the step :math:`t` that it is at.

    Parameters
    ----------
    shape
        Its dimensions, such as one of :data:`PRESETS`.
    generator
        The source of the random start weights, and of what is dropped.

    Raises
    ------
    ValueError
        If the width is not even and 4 or more, which the encoding of the step needs.

    Notes
    -----
    Start weights as in the authors' code: Xavier-uniform, but 0 in the last layer of
    each residual branch and of the network. So it begins with the prediction 0, and
    with a loss of 1 per dimension where the target is standard normal noise.

    The step counts from 1 here and from 0 in that code, so :math:`t - 1` is encoded.
    Its frequencies fall from 1 to 1/10000 inclusive, where those of
    :func:`dian.positions.sinusoidal.sinusoidal_encoding` stop one short of the last: a
    base of :math:`10000^{w / (w - 2)}` in place of 10000 makes them equal, for width
    :math:`w`.

    Examples
    --------
    >>> network = UNet(PRESETS["tiny"])
    >>> x_t = torch.ones(3, 1, 28, 28)
    >>> network(x_t, torch.tensor([1, 500, 1000])).abs().max().item()
    0.0

    The paper's network:

    >>> network = UNet(PRESETS["cifar10"])
    >>> f"{sum(p.numel() for p in network.parameters()):,}"
    '35,746,307'
    """

    def __init__(self, shape: UNetConfig, generator: torch.Generator | None = None):
        if shape.width < 4 or shape.width % 2:
            raise ValueError(f"width must be even and 4 or more, got {shape.width}")
        super().__init__()
        self.shape = shape
        widths = [shape.width * m for m in shape.multipliers]
        lowest = len(widths) - 1
        e = 4 * shape.width

        def block(n_in: int, n_out: int, attention: bool) -> ResBlock:
            return ResBlock(n_in, n_out, e, shape, attention, generator)

        # Made without values: torch would draw them from the global generator.
        with torch.device("meta"):
            self.time_1 = nn.Linear(shape.width, e)
            self.time_2 = nn.Linear(e, e)
            self.first = nn.Conv2d(shape.channels, widths[0], 3, padding=1)
            across = [widths[0]]  # channels of what goes across
            self.down = nn.ModuleList()
            for level, width in enumerate(widths):
                for _ in range(shape.blocks):
                    self.down.append(block(across[-1], width, level in shape.attention))
                    across.append(width)
                if level < lowest:
                    self.down.append(Downsample(width))
                    across.append(width)
            self.middle = nn.ModuleList(
                block(width, width, attention) for attention in (True, False)
            )
            self.up = nn.ModuleList()
            for level, width_up in reversed(list(enumerate(widths))):
                for _ in range(shape.blocks + 1):
                    n_in = width + across.pop()
                    self.up.append(block(n_in, width_up, level in shape.attention))
                    width = width_up
                if level > 0:
                    self.up.append(Upsample(width))
            self.norm = nn.GroupNorm(shape.groups, width, eps=1e-6)
            self.last = nn.Conv2d(width, shape.channels, 3, padding=1)
        self.to_empty(device="cpu")
        self.start(generator)

    @torch.no_grad()
    def start(self, generator: torch.Generator | None = None) -> None:
        """Draw all weights anew, as the notes above say."""
        for module in self.modules():
            if isinstance(module, nn.GroupNorm):
                nn.init.ones_(module.weight)
                nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.xavier_uniform_(module.weight, generator=generator)
                nn.init.zeros_(module.bias)
        nn.init.zeros_(self.last.weight)
        for module in self.modules():
            if isinstance(module, ResBlock):
                nn.init.zeros_(module.conv_2.weight)
            elif isinstance(module, AttentionBlock):
                nn.init.zeros_(module.W_O.weight)

    def forward(
        self, x_t: Float[Tensor, "batch c row column"], t: Int[Tensor, "batch"]
    ) -> Float[Tensor, "batch c row column"]:
        """Return the prediction for each image, which is at step ``t``, from 1 on.

        Raises
        ------
        TypeError, ValueError
            As :meth:`check`.
        """
        self.check(x_t, t)
        w = self.shape.width
        e = sinusoidal_encoding(t - 1, w, 10_000 ** (w / (w - 2)), x_t.dtype)
        e = silu(self.time_2(silu(self.time_1(e))))
        across = [self.first(x_t)]
        for layer in self.down:
            across.append(layer(across[-1], e))
        h = across[-1]
        for layer in self.middle:
            h = layer(h, e)
        for layer in self.up:
            if isinstance(layer, ResBlock):
                h = torch.cat([h, across.pop()], 1)
            h = layer(h, e)
        return self.last(silu(self.norm(h)))

    def check(self, x_t: Tensor, t: Tensor) -> None:
        """Refuse images that cannot be halved as often as there are levels, and steps.

        Raises
        ------
        TypeError, ValueError
            If the images are of a wrong size; and as
            :func:`dian.diffusion.schedule.check_steps`, for steps from 1 on.
        """
        c, times = self.shape.channels, 2 ** (len(self.shape.multipliers) - 1)
        fits = x_t.ndim == 4 and x_t.shape[1] == c
        if not fits or any(n % times for n in x_t.shape[2:]):
            raise ValueError(
                f"x_t must be (batch, {c}, row, column), rows and columns multiples of "
                f"{times}, got {tuple(x_t.shape)}"
            )
        check_steps(t, x_t, first=1)


class ResBlock(nn.Module):
    r"""Two convolutions around which the image also goes unchanged; then attention.

    .. math::

        h = W_1 * s(n_1(x)) + W_e e, \qquad y = W_s x + W_2 * d(s(n_2(h))),

    where :math:`n` normalises groups of channels, :math:`s` is :math:`z\,\sigma(z)`,
    :math:`d` is dropout, :math:`e` tells the step and is the same at every pixel, and
    :math:`W_s` is there only if the number of channels changes.

    Parameters
    ----------
    n_in, n_out, e
        Channels that come in and go out, and the width of what tells the step.
    shape
        For the groups and the dropout.
    attention
        Whether :class:`AttentionBlock` follows.
    generator
        The source of what is dropped.
    """

    def __init__(
        self,
        n_in: int,
        n_out: int,
        e: int,
        shape: UNetConfig,
        attention: bool,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        self.dropout, self.generator = shape.dropout, generator
        self.norm_1 = nn.GroupNorm(shape.groups, n_in, eps=1e-6)
        self.conv_1 = nn.Conv2d(n_in, n_out, 3, padding=1)
        self.time = nn.Linear(e, n_out)
        self.norm_2 = nn.GroupNorm(shape.groups, n_out, eps=1e-6)
        self.conv_2 = nn.Conv2d(n_out, n_out, 3, padding=1)
        self.shortcut = nn.Conv2d(n_in, n_out, 1) if n_in != n_out else nn.Identity()
        self.attention = (
            AttentionBlock(n_out, shape.groups) if attention else nn.Identity()
        )

    def forward(
        self,
        x: Float[Tensor, "batch c_in row column"],
        e: Float[Tensor, "batch e"],
    ) -> Float[Tensor, "batch c_out row column"]:
        """Return the new features; ``e`` has gone through :math:`s` already."""
        h = self.conv_1(silu(self.norm_1(x))) + self.time(e)[:, :, None, None]
        h = silu(self.norm_2(h))
        if self.dropout and self.training:
            h = dropout(h, self.dropout, self.generator)
        return self.attention(self.shortcut(x) + self.conv_2(h))


class AttentionBlock(nn.Module):
    """Let every pixel attend to all pixels, with a single head as in the paper.

    Parameters
    ----------
    c, groups
        Channels, and groups of them that are normalised together.
    """

    def __init__(self, c: int, groups: int):
        super().__init__()
        self.norm = nn.GroupNorm(groups, c, eps=1e-6)
        self.W_Q, self.W_K, self.W_V, self.W_O = (nn.Linear(c, c) for _ in range(4))

    def forward(
        self, x: Float[Tensor, "batch c row column"]
    ) -> Float[Tensor, "batch c row column"]:
        """Return the features, with what was found elsewhere added."""
        pixels = self.norm(x).flatten(2).transpose(1, 2)
        projected = self.W_Q(pixels), self.W_K(pixels), self.W_V(pixels)
        if x.is_cuda and torch.is_grad_enabled():
            # the gradients of the fused kernels differ there from run to run
            found, _ = scaled_dot_product_attention(*projected)
        else:
            found = fused_attention(*projected)
        return x + self.W_O(found).transpose(1, 2).unflatten(2, x.shape[2:])


class Downsample(nn.Module):
    """Halve rows and columns by a convolution with stride 2.

    It sees one pixel beyond the right and the lower edge, and none beyond the others,
    as TensorFlow pads in the authors' code.
    """

    def __init__(self, c: int):
        super().__init__()
        self.conv = nn.Conv2d(c, c, 3, stride=2)

    def forward(self, x: Float[Tensor, "batch c row column"], e: Tensor) -> Tensor:
        """Return the smaller image; the step is not used."""
        return self.conv(nn.functional.pad(x, [0, 1, 0, 1]))


class Upsample(nn.Module):
    """Double rows and columns by repeating each pixel, and smooth by a convolution."""

    def __init__(self, c: int):
        super().__init__()
        self.conv = nn.Conv2d(c, c, 3, padding=1)

    def forward(self, x: Float[Tensor, "batch c row column"], e: Tensor) -> Tensor:
        """Return the larger image; the step is not used."""
        # By a view, since the backward pass of torch's own is not deterministic.
        larger = x[..., :, None, :, None].expand(-1, -1, -1, 2, -1, 2)
        return self.conv(larger.flatten(4, 5).flatten(2, 3))


def dropout(
    x: Float[Tensor, "*axes"], rate: float, generator: torch.Generator | None = None
) -> Float[Tensor, "*axes"]:
    """Set a share of the features to 0, and enlarge the others: the mean stays.

    The random numbers are drawn on the device of the generator: with a generator of
    one's own a training that was interrupted can go on exactly.

    Examples
    --------
    >>> dropout(torch.ones(6), 0.5, torch.Generator().manual_seed(0))
    tensor([0., 2., 0., 0., 0., 2.])
    """
    where = x.device if generator is None else generator.device
    kept = torch.rand(x.shape, generator=generator, device=where) >= rate
    return x * (kept.to(x) / (1 - rate))


def from_diffusers(
    state: Mapping[str, Tensor], shape: UNetConfig = PRESETS["cifar10"]
) -> dict[str, Tensor]:
    r"""Rename the weights of ``diffusers.UNet2DModel``, for :class:`UNet` to load.

    Parameters
    ----------
    state
        Its ``state_dict()``, or the file of the published checkpoint
        ``google/ddpm-cifar10-32``, in which attention has older names.
    shape
        The same network in our terms. On the other side that is
        ``flip_sin_to_cos=False`` (all sines come before all cosines), ``freq_shift=1``
        (the last frequency is 1/10000), ``downsample_padding=0``,
        ``attention_head_dim=None`` (a single head) and ``norm_eps=1e-6``.

    Returns
    -------
    state
        What :meth:`torch.nn.Module.load_state_dict` takes. Nothing but the names is
        changed, except in the layer that reads the encoded step: sine and cosine of
        one frequency are neighbours here, so its columns change places.

    Raises
    ------
    ValueError
        If the weights are those of something else.

    Notes
    -----
    The same output comes at another step, since theirs counts from 0:
    ``ours(x, t)`` is ``theirs(x, t - 1)``.
    """
    renamed = {_renamed(name, shape): weight for name, weight in state.items()}
    if "time_1.weight" not in renamed:
        raise ValueError(
            "state must hold the weights of a UNet2DModel, such as "
            f"'time_embedding.linear_1.weight', got {len(state)} under other names"
        )
    halves = renamed["time_1.weight"]
    renamed["time_1.weight"] = halves.unflatten(1, (2, -1)).transpose(1, 2).flatten(1)
    return renamed


def _renamed(name: str, shape: UNetConfig) -> str:
    """Return our name of one of their weights."""

    def layer(found: re.Match) -> str:
        way, level, kind, n = found[1], int(found[2]), found[3], int(found[4])
        before = level * (shape.blocks + (1 if way == "down" else 2))
        if kind.endswith("samplers"):
            return f"{way}.{before + shape.blocks + (way == 'up')}"
        return f"{way}.{before + n}" + (".attention" if kind == "attentions" else "")

    name = re.sub(r"(down|up)_blocks\.(\d+)\.(\w+)\.(\d+)", layer, name)
    for pattern, ours in _NAMES.items():
        name = re.sub(pattern, ours, name)
    return name


_NAMES = {
    r"^mid_block\.resnets": "middle",
    r"^mid_block\.attentions\.0": "middle.0.attention",
    r"^conv_in": "first",
    r"^conv_norm_out": "norm",
    r"^conv_out": "last",
    r"^time_embedding\.linear_": "time_",
    r"time_emb_proj": "time",
    r"conv_shortcut": "shortcut",
    r"(norm|conv)(1|2)": r"\1_\2",
    r"group_norm": "norm",
    r"to_q|query": "W_Q",
    r"to_k|key": "W_K",
    r"to_v|value": "W_V",
    r"to_out\.0|proj_attn": "W_O",
}
"""Patterns of their names, and ours."""
