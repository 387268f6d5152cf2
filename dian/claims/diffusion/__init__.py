"""Claims about :mod:`dian.diffusion`."""
