"""The networks that the report trains, made of its concepts.

Axis names: ``time``, ``batch``, ``d``, ``h`` and ``q`` as in
:mod:`dian.rnn.recurrence`; ``width`` is one state of each direction, side by side.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dian.rnn.recurrence import RNN, output_forward
from dian.training.dropout import dropout


class StackedRNN(nn.Module):
    r"""Several recurrent layers, each reading the states of the one below.

    With ``bidirectional``, each layer is two: one reads from the first step to the
    last, one from the last to the first, and their states stand side by side.

    Parameters
    ----------
    d, h
        Features of one input, and of one state of one direction.
    layers
        How many, one above the other.
    bidirectional
        Whether to read in both directions: Schuster and Paliwal, *Bidirectional
        recurrent neural networks*, 1997.
    dropout
        The rate of :func:`~dian.training.dropout.dropout` between the layers, in
        training.
    generator
        The source of the random start weights, and of what is dropped.
    options
        For each :class:`dian.rnn.recurrence.RNN`: ``activation``, ``init``,
        ``learnable_h0``.

    Notes
    -----
    It is :class:`torch.nn.RNN` with ``num_layers`` and ``bidirectional``, but for the
    dropout, which there is drawn anew at each step.

    Examples
    --------
    >>> network = StackedRNN(28, 64, layers=2, bidirectional=True)
    >>> states, last = network(torch.zeros(5, 2, 28))
    >>> states.shape, last.shape
    (torch.Size([5, 2, 128]), torch.Size([2, 128]))
    """

    def __init__(
        self,
        d: int,
        h: int,
        *,
        layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
        generator: torch.Generator | None = None,
        **options,
    ):
        super().__init__()
        directions = 2 if bidirectional else 1
        self.dropout, self.generator = dropout, generator
        self.layers = nn.ModuleList(
            nn.ModuleList(
                RNN(n_in, h, generator=generator, **options) for _ in range(directions)
            )
            for n_in in [d] + (layers - 1) * [directions * h]
        )

    def forward(
        self, X: Float[Tensor, "time batch d"]
    ) -> tuple[Float[Tensor, "time batch width"], Float[Tensor, "batch width"]]:
        """Return all states of the top layer, and the last that each direction has."""
        for n, (ahead, *back) in enumerate(self.layers):
            if n and self.dropout and self.training:
                X = dropout(X, self.dropout, self.generator)
            states, last = ahead(X)
            for layer in back:  # one or none
                reverse, first = layer(X.flip(0))
                states = torch.cat([states, reverse.flip(0)], -1)
                last = torch.cat([last, first], -1)
            X = states
        return states, last


class RNNClassifier(nn.Module):
    r"""Read an image in pieces, and classify it from the states (many-to-one).

    :math:`X_t` is row :math:`t` of the image, or any other number of pixels in the
    order in which one reads, and the logits are :math:`O_T = H_T W_{hq} + b_q`.

    Parameters
    ----------
    d, h, q
        Pixels that are read at a step, width of the state, number of classes.
    layers, bidirectional, dropout
        As in :class:`StackedRNN`; what is read out goes through the dropout, too.
    readout
        ``"last"`` reads :math:`H_T`, ``"mean"`` the mean of all states.
    generator
        The source of the random start weights (Xavier-uniform; biases are zero).
    options
        For :class:`dian.rnn.recurrence.RNN`: ``activation``, ``init``,
        ``learnable_h0``.

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
        layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
        readout: str = "last",
        generator: torch.Generator | None = None,
        **options,
    ):
        super().__init__()
        if readout not in ("last", "mean"):
            raise ValueError(f"readout must be 'last' or 'mean', got {readout!r}")
        self.d, self.readout = d, readout
        self.dropout, self.generator = dropout, generator
        if layers == 1 and not bidirectional:
            self.rnn = RNN(d, h, generator=generator, **options)
        else:
            shape = {"layers": layers, "bidirectional": bidirectional}
            shape |= {"dropout": dropout, "generator": generator}
            self.rnn = StackedRNN(d, h, **shape, **options)
        width = 2 * h if bidirectional else h
        self.W_hq = nn.Parameter(torch.empty(width, q))
        self.b_q = nn.Parameter(torch.zeros(q))
        nn.init.xavier_uniform_(self.W_hq, generator=generator)

    def forward(
        self, images: Float[Tensor, "batch row column"]
    ) -> Float[Tensor, "batch q"]:
        """Return the logits of each image."""
        states, last = self.rnn(as_sequence(images, self.d))
        read = states.mean(0) if self.readout == "mean" else last
        if self.dropout and self.training:
            read = dropout(read, self.dropout, self.generator)
        return output_forward(read, self.W_hq, self.b_q)


class TorchClassifier(nn.Module):
    r"""The same with a recurrent layer of torch and its autograd, for comparison.

    Parameters
    ----------
    cell
        ``"rnn"`` (tanh), ``"lstm"`` or ``"gru"``.
    d, h, q
        As in :class:`RNNClassifier`.
    generator
        The source of the random start weights. The recurrent layer starts as torch
        starts it, all of it :math:`U(\pm 1/\sqrt h)`; the output as in ours.

    Examples
    --------
    >>> model = TorchClassifier("lstm", generator=torch.Generator().manual_seed(0))
    >>> model(torch.zeros(3, 28, 28)).shape
    torch.Size([3, 10])
    """

    def __init__(
        self,
        cell: str,
        d: int = 28,
        h: int = 128,
        q: int = 10,
        *,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        if cell not in CELLS:
            raise ValueError(f"cell must be one of {', '.join(CELLS)}, got {cell!r}")
        self.d = d
        # Made without values: torch would draw them from the global generator.
        self.rnn = CELLS[cell](d, h, device="meta").to_empty(device="cpu")
        self.W_hq = nn.Parameter(torch.empty(h, q))
        self.b_q = nn.Parameter(torch.zeros(q))
        for parameter in self.rnn.parameters():
            nn.init.uniform_(parameter, -(h**-0.5), h**-0.5, generator=generator)
        nn.init.xavier_uniform_(self.W_hq, generator=generator)

    def forward(
        self, images: Float[Tensor, "batch row column"]
    ) -> Float[Tensor, "batch q"]:
        """Return the logits of each image."""
        states, _ = self.rnn(as_sequence(images, self.d))
        return output_forward(states[-1], self.W_hq, self.b_q)


CELLS: dict[str, Callable[..., nn.Module]] = {
    "rnn": nn.RNN,
    "lstm": nn.LSTM,
    "gru": nn.GRU,
}
"""The recurrent layers of torch by their names.

:meta hide-value:
"""


def as_sequence(
    images: Float[Tensor, "batch row column"], d: int
) -> Float[Tensor, "time batch d"]:
    """Cut each image into steps of ``d`` pixels, in the order in which one reads.

    Raises
    ------
    ValueError
        If there is no image, if a step would hold parts of two rows, or if
        one is not a finite number.

    Examples
    --------
    >>> as_sequence(torch.zeros(3, 28, 28), d=28).shape  # row by row
    torch.Size([28, 3, 28])
    >>> as_sequence(torch.zeros(3, 28, 28), d=1).shape  # pixel by pixel
    torch.Size([784, 3, 1])
    """
    fits = images.ndim == 3 and images.numel() and not images[0].numel() % d
    # A step is a part of a row, or some whole rows: never the end of one and the
    # beginning of the next.
    if not fits or (images.shape[2] % d and d % images.shape[2]):
        raise ValueError(
            f"images must be (batch, row, column), none empty, and fall into steps of "
            f"{d} pixels with whole rows or parts of one, got {tuple(images.shape)}"
        )
    # A sum that is finite has no part that is not, and costs one pass.
    if not images.sum().isfinite():
        bad = int((~images.isfinite()).flatten(1).any(1).nonzero()[0])
        raise ValueError(f"images must be finite, got NaN or infinity in image {bad}")
    return images.reshape(len(images), -1, d).transpose(0, 1)
