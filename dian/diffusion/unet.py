r"""The U-Net that predicts the noise, conditioned on the timestep and on a class.

It is the network of Ho et al., *Denoising Diffusion Probabilistic Models*, 2020,
arXiv:2006.11239, appendix B: residual blocks with GroupNorm and SiLU at decreasing and
then at increasing resolution, a skip connection from each block of the downsampling
path to one of the upsampling path, self-attention at one resolution and at the lowest
one, and a timestep embedding that is added in every block.

It has two options that the paper does not have. With ``num_classes``, an embedding of
the class is added to that of the timestep; one more class, the *null class*, means that
the class is not given (Ho and Salimans, *Classifier-Free Diffusion Guidance*, 2022,
arXiv:2207.12598; see :mod:`dian.diffusion.guidance`). With ``patch_size`` above 1, the
network computes on blocks of pixels (space-to-depth): each block becomes one pixel with
more channels, which makes the expensive first level smaller.

Axis names: ``batch``, ``row`` and ``column`` as everywhere; ``c`` and the like are
numbers of channels, and ``e`` is the width of the timestep embedding.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle, pixel_unshuffle, silu

from dian.attention.dot_product import fused_attention, scaled_dot_product_attention
from dian.diffusion.schedule import Steps, as_steps, check_steps
from dian.errors import kind, require, require_one_of, require_whole
from dian.positions.sinusoidal import sinusoidal_encoding
from dian.training.dropout import dropout_mask


@dataclass(frozen=True)
class UNetConfig:
    """The architecture of a :class:`UNet`."""

    channels: int = 1
    """Channels of an image: 1 for gray-scale, 3 for color."""
    width: int = 128
    """Channels of the first resolution level, even."""
    multipliers: tuple[int, ...] = (1, 2, 2, 2)
    """Channels of each resolution level, in units of ``width``; each level has half
    the rows and columns of the one before."""
    blocks: int = 2
    """Residual blocks of a level on the downsampling path; the upsampling path has one
    more."""
    attention: tuple[int, ...] = (1,)
    """Levels with attention, counted from 0; the lowest resolution always has it."""
    groups: int = 32
    """Number of groups of GroupNorm."""
    dropout: float = 0.0
    """Dropout rate in each residual block."""
    num_classes: int | None = None
    """Number of classes; None for a network that is not conditioned on a class."""
    patch_size: int = 1
    """Rows and columns of a block of pixels that becomes one pixel."""


PRESETS = {
    "cifar10": UNetConfig(channels=3, dropout=0.1),
    "base": UNetConfig(width=48, multipliers=(1, 2, 3), groups=16),
    "small": UNetConfig(width=16, multipliers=(1, 2, 4), blocks=1, groups=8),
    "wide": UNetConfig(width=32, multipliers=(1, 2, 2), blocks=1, groups=8),
    "patches": UNetConfig(
        width=64, multipliers=(1, 2), blocks=2, groups=16, patch_size=2
    ),
    "tiny": UNetConfig(width=8, multipliers=(1, 2), blocks=1, groups=4),
}
"""Configurations by name, as in the settings of the recorded runs.

``cifar10`` is the network of the paper for 32 by 32 pixels, with attention at 16 by 16;
the others are for 28 by 28, with attention at 14 by 14. All have attention at the
lowest resolution, too: 4 by 4, 7 by 7, or 14 by 14 in ``tiny``. The paper uses dropout
against overfitting in 2,000 epochs; the other networks are trained for far fewer.
"""


class UNet(nn.Module):
    r"""Predict an image from a noisy one and its timestep :math:`t`.

    Parameters
    ----------
    config
        A name in :data:`PRESETS`, or a :class:`UNetConfig`.
    generator
        The source of the initial weights, and of dropout.
    **changes
        Fields of the configuration to replace.

    Attributes
    ----------
    null_class
        The label that means "no class", ``num_classes``; None without classes.

    Notes
    -----
    Initialization as in the authors' code: Xavier-uniform, but 0 in the last layer of
    each residual branch and of the network. So the initial prediction is 0, with a loss
    of 1 per dimension if the target is standard normal noise. The class embedding is
    drawn from a normal distribution with standard deviation 0.02.

    Timesteps count from 1 here and from 0 in that code, so :math:`t - 1` is embedded.
    The frequencies of the embedding decrease from 1 to 1/10000 inclusive. Those of
    :func:`dian.positions.sinusoidal.sinusoidal_encoding` end before 1/10000. With the
    base :math:`10000^{w / (w - 2)}` in place of 10000, both are equal for a width of
    :math:`w`.

    Examples
    --------
    >>> network = UNet("tiny")
    >>> network(torch.ones(3, 1, 28, 28), 500).abs().max().item()
    0.0
    >>> UNet("small", channels=3)(torch.ones(1, 3, 28, 28), torch.tensor([1])).shape
    torch.Size([1, 3, 28, 28])

    The network of the paper:

    >>> f"{sum(p.numel() for p in UNet('cifar10').parameters()):,}"
    '35,746,307'

    One network with ten classes, called with and without a class:

    >>> network, x_t = UNet("tiny", num_classes=10), torch.ones(3, 1, 28, 28)
    >>> network(x_t, 500, torch.tensor([0, 9, network.null_class])).shape
    torch.Size([3, 1, 28, 28])
    >>> network(x_t, 500).shape
    torch.Size([3, 1, 28, 28])
    """

    def __init__(
        self,
        config: str | UNetConfig = "small",
        *,
        generator: torch.Generator | None = None,
        **changes,
    ):
        if isinstance(config, str):
            require_one_of("config", config, PRESETS)
            config = PRESETS[config]
        config = replace(config, **changes)
        fits = config.width >= 4 and config.width % 2 == 0
        require(fits, f"width must be even and 4 or more, got {config.width}")
        require_whole("patch_size", config.patch_size, 1)
        if config.num_classes is not None:
            require_whole("num_classes", config.num_classes, 1)
        super().__init__()
        self.config, self.null_class = config, config.num_classes
        # On "meta": torch would draw initial weights from the global generator.
        with torch.device("meta"):
            self._build(generator)
        self.to_empty(device="cpu")
        self.reset_parameters(generator)

    def _build(self, generator: torch.Generator | None) -> None:
        config, e = self.config, 4 * self.config.width
        widths = [config.width * m for m in config.multipliers]
        c_image = config.channels * config.patch_size**2

        def block(c_in: int, c_out: int, attention: bool) -> ResBlock:
            return ResBlock(c_in, c_out, e, config, attention, generator)

        self.time_1 = nn.Linear(config.width, e)
        self.time_2 = nn.Linear(e, e)
        if config.num_classes is not None:
            self.label = nn.Embedding(config.num_classes + 1, e)
        self.first = nn.Conv2d(c_image, widths[0], 3, padding=1)
        skips = [widths[0]]  # channels of each skip connection
        self.down = nn.ModuleList()
        for level, c in enumerate(widths):
            for _ in range(config.blocks):
                self.down.append(block(skips[-1], c, level in config.attention))
                skips.append(c)
            if level < len(widths) - 1:
                self.down.append(Downsample(c))
                skips.append(c)
        self.middle = nn.ModuleList(block(c, c, a) for a in (True, False))
        self.up = nn.ModuleList()
        for level, c_up in reversed([*enumerate(widths)]):
            for _ in range(config.blocks + 1):
                self.up.append(block(c + skips.pop(), c_up, level in config.attention))
                c = c_up
            if level > 0:
                self.up.append(Upsample(c))
        self.norm = nn.GroupNorm(config.groups, c, eps=1e-6)
        self.last = nn.Conv2d(c, c_image, 3, padding=1)

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Initialize all weights, as described in the notes above."""
        for module in self.modules():
            if isinstance(module, nn.GroupNorm):
                module.reset_parameters()
            elif isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.xavier_uniform_(module.weight, generator=generator)
                nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=0.02, generator=generator)
        last = [self.last]
        last += [m.conv_2 for m in self.modules() if isinstance(m, ResBlock)]
        last += [m.W_O for m in self.modules() if isinstance(m, AttentionBlock)]
        for layer in last:
            nn.init.zeros_(layer.weight)

    def forward(
        self,
        x_t: Float[Tensor, "batch c row column"],
        t: Steps,
        y: Int[Tensor, "batch"] | None = None,
    ) -> Float[Tensor, "batch c row column"]:
        """Return the prediction for images at timestep ``t``, from 1 on.

        ``y`` holds the class of each image, or :attr:`null_class`; without it no class
        is given.
        """
        self._check_images(x_t)
        check_steps(t, x_t, first=1)
        t, w = as_steps(t, x_t), self.config.width
        e = sinusoidal_encoding(t - 1, w, 10_000 ** (w / (w - 2)), x_t.dtype)
        e = silu(self._add_class(self.time_2(silu(self.time_1(e))), y))
        skips = [self.first(pixel_unshuffle(x_t, self.config.patch_size))]
        for layer in self.down:
            skips.append(layer(skips[-1], e))
        h = skips[-1]
        for layer in self.middle:
            h = layer(h, e)
        for layer in self.up:
            if isinstance(layer, ResBlock):
                h = torch.cat([h, skips.pop()], 1)
            h = layer(h, e)
        h = self.last(silu(self.norm(h)))
        return pixel_shuffle(h, self.config.patch_size)

    def _add_class(
        self, e: Float[Tensor, "batch e"], y: Int[Tensor, "batch"] | None
    ) -> Float[Tensor, "batch e"]:
        if self.null_class is None:
            require(y is None, "y must be None: the network was built without classes")
            return e
        if y is None:
            y = torch.full(e.shape[:1], self.null_class, device=e.device)
        check_labels(y, len(e), self.null_class)
        return e + self.label(y.long())

    def _check_images(self, x_t: Tensor) -> None:
        c, p = self.config.channels, self.config.patch_size
        n = p * 2 ** (len(self.config.multipliers) - 1)
        fits = x_t.ndim == 4 and x_t.shape[1] == c
        require(
            fits and not any(size % n for size in x_t.shape[2:]),
            f"x_t must be (batch, {c}, row, column), rows and columns multiples of "
            f"{n}, got {tuple(x_t.shape)}",
        )


def check_labels(y: Tensor, n: int, null_class: int) -> None:
    """Check that there is one class for each image, or the null class.

    The range is checked as in :func:`dian.diffusion.schedule.check_steps`.
    """
    require(
        y.dtype in (torch.int64, torch.int32) and y.shape == (n,),
        f"y must be {n} integers in a row, one for each image, got {kind(y)}",
    )
    if not y.is_cpu or not n or torch.compiler.is_compiling():
        return
    low, high = (label.item() for label in y.aminmax())
    require(
        low >= 0 and high <= null_class,
        f"y must be from 0 to {null_class}, the null class, got {low} to {high}",
    )


class ResBlock(nn.Module):
    r"""A residual block that is conditioned on the timestep; then attention.

    .. math::

        h = W_1 * s(n_1(x)) + W_e e, \qquad y = W_s x + W_2 * d(s(n_2(h))),

    where :math:`n` is GroupNorm, :math:`s` is SiLU, :math:`z\,\sigma(z)`, :math:`d` is
    dropout, and :math:`e` is the timestep embedding, added at every pixel alike. The
    1x1 convolution :math:`W_s` is the identity unless the number of channels changes.

    Parameters
    ----------
    c_in, c_out, e
        Input and output channels, and the width of the timestep embedding.
    config
        For the groups and the dropout rate.
    attention
        Whether an :class:`AttentionBlock` follows.
    generator
        The source of dropout.
    """

    def __init__(
        self,
        c_in: int,
        c_out: int,
        e: int,
        config: UNetConfig,
        attention: bool,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        self.dropout, self.generator = config.dropout, generator
        self.norm_1 = nn.GroupNorm(config.groups, c_in, eps=1e-6)
        self.conv_1 = nn.Conv2d(c_in, c_out, 3, padding=1)
        self.time = nn.Linear(e, c_out)
        self.norm_2 = nn.GroupNorm(config.groups, c_out, eps=1e-6)
        self.conv_2 = nn.Conv2d(c_out, c_out, 3, padding=1)
        self.shortcut = nn.Conv2d(c_in, c_out, 1) if c_in != c_out else nn.Identity()
        self.attention = (
            AttentionBlock(c_out, config.groups) if attention else nn.Identity()
        )

    def forward(
        self,
        x: Float[Tensor, "batch c_in row column"],
        e: Float[Tensor, "batch e"],
    ) -> Float[Tensor, "batch c_out row column"]:
        """Return the new features; SiLU is already applied to ``e``."""
        h = self.conv_1(silu(self.norm_1(x))) + self.time(e)[:, :, None, None]
        h = silu(self.norm_2(h))
        if self.dropout and self.training:
            h = h * dropout_mask(h, self.dropout, self.generator)
        return self.attention(self.shortcut(x) + self.conv_2(h))


class AttentionBlock(nn.Module):
    """Self-attention between all pixels, with a single head, and a skip connection."""

    def __init__(self, c: int, groups: int):
        super().__init__()
        self.norm = nn.GroupNorm(groups, c, eps=1e-6)
        self.W_Q, self.W_K, self.W_V, self.W_O = (nn.Linear(c, c) for _ in range(4))

    def forward(
        self, x: Float[Tensor, "batch c row column"]
    ) -> Float[Tensor, "batch c row column"]:
        """Return the new features."""
        pixels = self.norm(x).flatten(2).transpose(1, 2)
        projected = self.W_Q(pixels), self.W_K(pixels), self.W_V(pixels)
        if x.is_cuda and torch.is_grad_enabled():
            # the gradients of the fused kernels are not deterministic there
            attended, _ = scaled_dot_product_attention(*projected)
        else:
            attended = fused_attention(*projected)
        return x + self.W_O(attended).transpose(1, 2).unflatten(2, x.shape[2:])


class Downsample(nn.Module):
    """Halve rows and columns by a convolution of stride 2.

    Zeros are padded on the right and at the bottom alone, as TensorFlow does in the
    authors' code.
    """

    def __init__(self, c: int):
        super().__init__()
        self.conv = nn.Conv2d(c, c, 3, stride=2)

    def forward(self, x: Float[Tensor, "batch c row column"], e: Tensor) -> Tensor:
        """Return the smaller image; the embedding is not used."""
        return self.conv(nn.functional.pad(x, [0, 1, 0, 1]))


class Upsample(nn.Module):
    """Double rows and columns by nearest-neighbor upsampling and a convolution."""

    def __init__(self, c: int):
        super().__init__()
        self.conv = nn.Conv2d(c, c, 3, padding=1)

    def forward(self, x: Float[Tensor, "batch c row column"], e: Tensor) -> Tensor:
        """Return the larger image; the embedding is not used."""
        # By a view, since the backward pass of torch's own is not deterministic.
        larger = x[..., :, None, :, None].expand(-1, -1, -1, 2, -1, 2)
        return self.conv(larger.flatten(4, 5).flatten(2, 3))
