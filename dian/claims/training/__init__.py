"""Claims about :mod:`dian.training`."""
