"""Recorded experiments of the chapter on diffusion."""
