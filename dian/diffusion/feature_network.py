"""A small convolutional classifier; sets of images are compared by its features.

Axis names: ``batch`` images of ``row`` by ``column`` pixels, ``d`` features of one.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import relu

CHANNELS = (16, 32, 32, 64)
"""Output channels of each convolution; where they double, its stride is 2."""


class ConvNet(nn.Module):
    r"""Classify gray-scale images by 3x3 convolutions, each with GroupNorm and ReLU.

    A linear layer with a ReLU returns the features, and another linear layer the
    logits. There is no batch normalization, so that the features of an image do not
    depend on the other images of the batch.

    Parameters
    ----------
    q, d
        Number of classes, and of features.
    size
        Rows of an image, and columns.
    generator
        The source of the initial weights: normal with variance 2 / fan-in (He et al.,
        *Delving deep into rectifiers*, 2015, arXiv:1502.01852).

    Examples
    --------
    >>> network = ConvNet()
    >>> network(torch.zeros(3, 28, 28)).shape
    torch.Size([3, 10])
    >>> network.features(torch.zeros(3, 28, 28)).shape
    torch.Size([3, 64])
    """

    def __init__(
        self,
        q: int = 10,
        d: int = 64,
        size: int = 28,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        n_in = (1, *CHANNELS)
        left = size // 4  # rows and columns after two convolutions of stride 2
        # On "meta": torch would draw initial weights from the global generator.
        with torch.device("meta"):
            self.convolutions = nn.ModuleList(
                nn.Conv2d(a, b, 3, padding=1, stride=2 if 1 < a < b else 1)
                for a, b in zip(n_in, CHANNELS, strict=False)
            )
            self.norms = nn.ModuleList(nn.GroupNorm(8, c) for c in CHANNELS)
            self.gather = nn.Linear(CHANNELS[-1] * left**2, d)
            self.read = nn.Linear(d, q)
        self.to_empty(device="cpu")
        for norm in self.norms:
            nn.init.ones_(norm.weight)
            nn.init.zeros_(norm.bias)
        for layer in (*self.convolutions, self.gather, self.read):
            nn.init.kaiming_normal_(
                layer.weight, nonlinearity="relu", generator=generator
            )
            nn.init.zeros_(layer.bias)

    def features(
        self, images: Float[Tensor, "batch row column"]
    ) -> Float[Tensor, "batch d"]:
        """Return the features before the last layer, for images in [0, 1]."""
        x = images.unsqueeze(1)
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = relu(norm(convolution(x)))
        return relu(self.gather(x.flatten(1)))

    def forward(
        self, images: Float[Tensor, "batch row column"]
    ) -> Float[Tensor, "batch q"]:
        """Return the logits of each image."""
        return self.read(self.features(images))
