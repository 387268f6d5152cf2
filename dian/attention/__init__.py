"""Attention: dot-product, block-wise and multi-head, and a transformer encoder."""
