"""The recurrent layers of PyTorch as classifiers, for comparison."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dian.errors import require_one_of
from dian.rnn.initialization import xavier_
from dian.rnn.networks import time_first
from dian.rnn.recurrence import output_forward

CELLS = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}
"""The recurrent layers of PyTorch by name."""


class TorchClassifier(nn.Module):
    r"""Classify sequences by a recurrent layer of PyTorch, for comparison.

    Parameters
    ----------
    cell
        ``"rnn"`` (tanh), ``"lstm"`` or ``"gru"``.
    input_size, hidden_size, num_classes
        As in :class:`dian.rnn.networks.RNNClassifier`.
    generator
        The random-number generator of the initialization. The recurrent layer is
        initialized as in PyTorch, :math:`U(\pm 1/\sqrt h)`, and the output layer as in
        :class:`dian.rnn.networks.RNNClassifier`.

    Examples
    --------
    >>> model = TorchClassifier("lstm", 28, 128, 10)
    >>> model(torch.zeros(3, 28, 28)).shape
    torch.Size([3, 10])
    """

    def __init__(
        self,
        cell: str,
        input_size: int,
        hidden_size: int,
        num_classes: int,
        *,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        require_one_of("cell", cell, CELLS)
        self.input_size = input_size
        # Without values: torch would draw them from the global generator.
        layer = CELLS[cell](input_size, hidden_size, device="meta")
        self.rnn = layer.to_empty(device="cpu")
        self.W_hq = nn.Parameter(torch.empty(hidden_size, num_classes))
        self.b_q = nn.Parameter(torch.zeros(num_classes))
        bound = hidden_size**-0.5
        for parameter in self.rnn.parameters():
            nn.init.uniform_(parameter, -bound, bound, generator=generator)
        xavier_(self.W_hq, generator=generator)

    def forward(
        self, x: Float[Tensor, "batch time feature"]
    ) -> Float[Tensor, "batch q"]:
        """Return the logits of each sequence."""
        states, _ = self.rnn(time_first(x, self.input_size))
        return output_forward(states[-1], self.W_hq, self.b_q)
