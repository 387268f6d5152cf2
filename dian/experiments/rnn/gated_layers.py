"""Classifiers with gated layers of PyTorch, built like our plain networks."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dian.errors import require_one_of
from dian.rnn.initialization import orthogonal_, xavier_
from dian.rnn.networks import time_first
from dian.rnn.recurrence import output_forward
from dian.training.dropout import dropout_mask

CELLS = {"lstm": (nn.LSTM, 4), "gru": (nn.GRU, 3)}
"""The gated layers of PyTorch by name, and the number of their gates."""


class GatedClassifier(nn.Module):
    r"""Classify sequences by LSTM or GRU layers of PyTorch.

    All but the layers is as in :class:`dian.rnn.networks.RNNClassifier`: the readout,
    dropout with a mask that all time steps share, and the initialization, which treats
    the matrix of each gate by itself.

    Parameters
    ----------
    cell
        ``"lstm"`` or ``"gru"``.
    input_size, hidden_size, num_classes
        Features of an input and of a hidden state, and number of classes.
    num_layers, bidirectional, readout, dropout, init, generator
        As in :class:`dian.rnn.networks.RNNClassifier`.

    Notes
    -----
    Biases are initially zero, but that of the forget gate of an LSTM is 1: Jozefowicz,
    Zaremba and Sutskever, *An empirical exploration of recurrent network
    architectures*, 2015.

    Examples
    --------
    >>> network = GatedClassifier("lstm", 28, 16, 10, num_layers=2, bidirectional=True)
    >>> network(torch.zeros(3, 28, 28)).shape
    torch.Size([3, 10])
    """

    def __init__(
        self,
        cell: str,
        input_size: int,
        hidden_size: int,
        num_classes: int,
        *,
        num_layers: int = 1,
        bidirectional: bool = False,
        readout: str = "last",
        dropout: float = 0.0,
        init: Callable[..., object] = orthogonal_,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        require_one_of("cell", cell, CELLS)
        require_one_of("readout", readout, ("last", "mean"))
        self.input_size, self.readout = input_size, readout
        self.dropout, self.generator = dropout, generator
        layer, n_gate = CELLS[cell]
        width = 2 * hidden_size if bidirectional else hidden_size
        self.layers = nn.ModuleList(
            # Without values: torch would draw them from the global generator.
            layer(n_in, hidden_size, bidirectional=bidirectional, device="meta")
            for n_in in [input_size] + (num_layers - 1) * [width]
        )
        self.layers.to_empty(device="cpu")
        self.W_hq = nn.Parameter(torch.empty(width, num_classes))
        self.b_q = nn.Parameter(torch.zeros(num_classes))
        for name, parameter in self.layers.named_parameters():
            _initialize(name, parameter, n_gate, init, generator)
        xavier_(self.W_hq, generator=generator)

    def forward(
        self, x: Float[Tensor, "batch time feature"]
    ) -> Float[Tensor, "batch q"]:
        """Return the logits of each sequence."""
        states = time_first(x, self.input_size)
        for n, layer in enumerate(self.layers):
            if n:
                states = self._drop(states, states[0])
            states, last = layer(states)
        if self.readout == "mean":
            read = states.mean(0)
        else:
            last = last[0] if isinstance(last, tuple) else last  # not the cell state
            read = torch.cat([*last], -1)  # of both directions
        return output_forward(self._drop(read, read), self.W_hq, self.b_q)

    def _drop(self, x: Tensor, like: Tensor) -> Tensor:
        if not (self.dropout and self.training):
            return x
        return x * dropout_mask(like, self.dropout, self.generator)


@torch.no_grad()
def _initialize(
    name: str,
    parameter: nn.Parameter,
    n_gate: int,
    init: Callable[..., object],
    generator: torch.Generator | None,
) -> None:
    """Initialize a parameter of a layer, each gate by itself."""
    for gate, part in enumerate(parameter.chunk(n_gate)):
        if "weight_hh" in name:
            init(part, generator=generator)
        elif "weight_ih" in name:
            xavier_(part, generator=generator)
        else:
            # The gates of an LSTM are input, forget, cell and output, each with two
            # biases that are added.
            forget = n_gate == 4 and gate == 1 and "bias_ih" in name
            part.fill_(1.0 if forget else 0.0)
