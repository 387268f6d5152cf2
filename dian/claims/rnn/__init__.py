"""Claims about :mod:`dian.rnn`."""
