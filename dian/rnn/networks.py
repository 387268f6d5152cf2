r"""Recurrent networks: stacked and bidirectional layers, and sequence classifiers.

Axis names: ``time``, ``batch``, ``d``, ``h`` and ``q`` as in
:mod:`dian.rnn.recurrence`; ``width`` is the size of the concatenated states of all
directions. Classifiers take ``(batch, time, feature)``, like a batch of images; layers
take ``(time, batch, d)``, as :class:`torch.nn.RNN` does.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from dian.errors import require, require_one_of, require_whole
from dian.numerics import all_finite
from dian.rnn.initialization import xavier_
from dian.rnn.recurrence import RNN, output_forward
from dian.training.dropout import dropout_mask

Lengths = Int[Tensor, "batch"] | None
"""Steps of each sequence before its padding."""


class StackedRNN(nn.Module):
    r"""Several recurrent layers, each of which reads the states of the one below.

    Parameters
    ----------
    input_size, hidden_size
        Features of an input, and of a hidden state of one direction.
    num_layers
        Number of layers.
    bidirectional
        Whether a second recurrence reads each sequence from its end to its beginning:
        Schuster and Paliwal, *Bidirectional recurrent neural networks*, 1997. The
        states of both directions are concatenated.
    dropout
        Dropout rate between the layers, in training.
    generator
        The random-number generator of the initialization and of dropout.
    options
        ``activation``, ``init`` and ``learnable_h0`` of
        :class:`dian.rnn.recurrence.RNN`.

    Notes
    -----
    It equals :class:`torch.nn.RNN` except for dropout. Here all time steps of a
    sequence share one dropout mask: Gal and Ghahramani, *A theoretically grounded
    application of dropout in recurrent neural networks*, 2016, arXiv:1512.05287.

    Examples
    --------
    >>> network = StackedRNN(28, 64, num_layers=2, bidirectional=True)
    >>> states, last = network(torch.zeros(5, 2, 28))
    >>> states.shape, last.shape
    (torch.Size([5, 2, 128]), torch.Size([2, 128]))
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        num_layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
        generator: torch.Generator | None = None,
        **options,
    ):
        super().__init__()
        _check(num_layers, dropout)
        directions = 2 if bidirectional else 1
        self.dropout, self.generator = dropout, generator
        self.layers = nn.ModuleList(
            nn.ModuleList(
                RNN(n_in, hidden_size, generator=generator, **options)
                for _ in range(directions)
            )
            for n_in in [input_size] + (num_layers - 1) * [directions * hidden_size]
        )

    def forward(
        self, X: Float[Tensor, "time batch d"], lengths: Lengths = None
    ) -> tuple[Float[Tensor, "time batch width"], Float[Tensor, "batch width"]]:
        """Return all states of the top layer, and the last one of each direction."""
        for n, (forwards, *backwards) in enumerate(self.layers):
            if n and self.dropout and self.training:
                # One mask for all time steps
                X = X * dropout_mask(X[0], self.dropout, self.generator)
            states, last = forwards(X, lengths=lengths)
            for layer in backwards:  # one or none
                others, first = layer(_reversed(X, lengths), lengths=lengths)
                states = torch.cat([states, _reversed(others, lengths)], -1)
                last = torch.cat([last, first], -1)
            X = states
        return states, last


class RNNClassifier(nn.Module):
    r"""Classify sequences by a recurrent network (many-to-one).

    The logits are :math:`O_T = H_T W_{hq} + b_q`. A batch of images ``(batch, row,
    column)`` is a batch of sequences of rows; :func:`as_sequence` cuts images into
    other steps.

    Parameters
    ----------
    input_size, hidden_size, num_classes
        Features of an input, features of a hidden state, and number of classes.
    num_layers, bidirectional, dropout
        As in :class:`StackedRNN`. Dropout is also applied before the output layer.
    readout
        ``"last"`` classifies by :math:`H_T`, ``"mean"`` by the mean of all states.
    generator
        The random-number generator of the initialization (Xavier-uniform; biases are
        zero) and of dropout.
    options
        ``activation``, ``init`` and ``learnable_h0`` of
        :class:`dian.rnn.recurrence.RNN`.

    Examples
    --------
    >>> model = RNNClassifier(28, 128, 10, generator=torch.Generator().manual_seed(0))
    >>> model(torch.zeros(3, 28, 28)).shape
    torch.Size([3, 10])
    >>> sum(p.numel() for p in model.parameters())  # h (d + h + 1) + q (h + 1)
    21386

    Padded sequences of 5 and 2 steps with one feature:

    >>> model = RNNClassifier(1, 16, 2)
    >>> model(torch.zeros(2, 5, 1), lengths=torch.tensor([5, 2])).shape
    torch.Size([2, 2])
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_classes: int,
        *,
        num_layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
        readout: str = "last",
        generator: torch.Generator | None = None,
        **options,
    ):
        super().__init__()
        require_one_of("readout", readout, ("last", "mean"))
        _check(num_layers, dropout)
        self.input_size, self.readout = input_size, readout
        self.dropout, self.generator = dropout, generator
        if num_layers == 1 and not bidirectional:
            self.rnn = RNN(input_size, hidden_size, generator=generator, **options)
        else:
            options |= {"num_layers": num_layers, "bidirectional": bidirectional}
            options |= {"dropout": dropout, "generator": generator}
            self.rnn = StackedRNN(input_size, hidden_size, **options)
        width = 2 * hidden_size if bidirectional else hidden_size
        self.W_hq = nn.Parameter(torch.empty(width, num_classes))
        self.b_q = nn.Parameter(torch.zeros(num_classes))
        xavier_(self.W_hq, generator=generator)

    def forward(
        self, x: Float[Tensor, "batch time feature"], lengths: Lengths = None
    ) -> Float[Tensor, "batch q"]:
        """Return the logits of each sequence.

        Parameters
        ----------
        x
            The sequences. The batch is the first axis, as in the labels: logits of
            transposed sequences have the wrong length, which the loss rejects.
        lengths
            Steps of each sequence before its padding. Default: all steps.
        """
        states, last = self.rnn(time_first(x, self.input_size), lengths=lengths)
        read = last if self.readout == "last" else _mean(states, lengths)
        if self.dropout and self.training:
            read = read * dropout_mask(read, self.dropout, self.generator)
        return output_forward(read, self.W_hq, self.b_q)


def as_sequence(
    images: Float[Tensor, "batch row column"], d: int
) -> Float[Tensor, "batch time d"]:
    """Cut each image into steps of ``d`` pixels, in reading order.

    Examples
    --------
    >>> as_sequence(torch.zeros(3, 28, 28), d=1).shape  # pixel by pixel
    torch.Size([3, 784, 1])
    >>> as_sequence(torch.zeros(3, 28, 28), d=56).shape  # two rows at a time
    torch.Size([3, 14, 56])
    """
    require_whole("d", d, 1)
    fits = images.ndim == 3 and images.numel() and not images[0].numel() % d
    # A step is a part of a row, or some whole rows: never the end of one row and the
    # beginning of the next.
    require(
        fits and (not images.shape[2] % d or not d % images.shape[2]),
        f"images must be (batch, row, column), none empty, and fall into steps of "
        f"{d} pixels with whole rows or parts of one, got {tuple(images.shape)}",
    )
    return images.reshape(len(images), -1, d)


def time_first(x: Tensor, input_size: int) -> Tensor:
    """Check sequences, and bring the time to the front."""
    require(
        x.ndim == 3 and x.shape[-1] == input_size and x.numel(),
        f"x must be (batch, time, {input_size}), none empty, got {tuple(x.shape)}",
    )
    require(x.is_floating_point(), f"x must be floating-point numbers, got {x.dtype}")
    if not all_finite(x):
        bad = int((~x.isfinite()).flatten(1).any(1).nonzero()[0])
        raise ValueError(f"x must be finite, got NaN or infinity in x[{bad}]")
    return x.transpose(0, 1)


def _check(num_layers: int, dropout: float) -> None:
    require_whole("num_layers", num_layers, 1)
    require(0 <= dropout < 1, f"dropout must be in [0, 1), got {dropout}")


def _reversed(X: Tensor, lengths: Tensor | None) -> Tensor:
    """Reverse each sequence in time, and leave its padding behind its end."""
    if lengths is None:
        return X.flip(0)
    t = torch.arange(len(X), device=X.device)[:, None]
    source = torch.where(t < lengths, lengths - 1 - t, t)
    return X.gather(0, source[..., None].expand_as(X))


def _mean(states: Tensor, lengths: Tensor | None) -> Tensor:
    """Average the states of each sequence before its padding."""
    if lengths is None:
        return states.mean(0)
    inside = torch.arange(len(states), device=states.device)[:, None] < lengths
    return (states * inside[..., None]).sum(0) / lengths[:, None]
