"""Recurrent networks, with backpropagation through time derived by hand."""
