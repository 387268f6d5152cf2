"""Claims about :mod:`dian.attention`."""
