"""Claims about :mod:`dian.positions`."""
