"""Recorded experiments of the chapter on rnn."""
