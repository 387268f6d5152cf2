"""Recurrent networks, positional encodings, attention and diffusion, each verified.

Import the module you need: ``from dian import rnn``. The package itself imports
nothing, so that reading a record does not wait for torch.
"""
