"""Denoising diffusion: noise schedules, sampling, likelihood and the U-Net."""
