"""The networks that the report trains, made of its concepts."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dian.rnn import RNN, output_forward


class RNNClassifier(nn.Module):
    r"""Read an image row by row, and classify it from the last state (many-to-one).

    :math:`X_t` is row :math:`t` of the image, and the logits are
    :math:`O_T = H_T W_{hq} + b_q`.

    Parameters
    ----------
    d, h, q
        Pixels of a row, width of the state, number of classes.
    generator
        The source of the random start weights (Xavier-uniform; biases are zero).

    Examples
    --------
    >>> model = RNNClassifier(generator=torch.Generator().manual_seed(0))
    >>> model(torch.zeros(3, 28, 28)).shape
    torch.Size([3, 10])
    >>> sum(p.numel() for p in model.parameters())  # h (d + h + 1) + q (h + 1)
    21386
    """

    def __init__(
        self,
        d: int = 28,
        h: int = 128,
        q: int = 10,
        *,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        self.rnn = RNN(d, h, generator=generator)
        self.W_hq = nn.Parameter(torch.empty(h, q))
        self.b_q = nn.Parameter(torch.zeros(q))
        nn.init.xavier_uniform_(self.W_hq, generator=generator)

    def forward(
        self, images: Float[Tensor, "batch row column"]
    ) -> Float[Tensor, "batch q"]:
        """Return the logits of each image."""
        _, H_T = self.rnn(images.transpose(0, 1))
        return output_forward(H_T, self.W_hq, self.b_q)
