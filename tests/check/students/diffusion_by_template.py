"""A student's solution of task 4 in NumPy, with the signatures of the templates."""

import numpy as np


def noise_schedule(T, beta_start, beta_end):
    betas = np.linspace(beta_start, beta_end, T)
    alphas = 1 - betas
    return betas, np.cumprod(alphas), alphas


def q_sample(x_0, t, noise, betas):
    alpha_bar = np.cumprod(1 - betas)[t - 1]  # t = 1 is the first entry
    alpha_bar = alpha_bar.reshape(-1, *[1] * (x_0.ndim - 1))
    return np.sqrt(alpha_bar) * x_0 + np.sqrt(1 - alpha_bar) * noise


def posterior(x_0, x_t, t, betas):
    alphas = np.concatenate([[1.0], 1 - betas])
    alpha_bars = np.cumprod(alphas)
    shape = (-1, *[1] * (x_0.ndim - 1))
    now, before = alpha_bars[t].reshape(shape), alpha_bars[t - 1].reshape(shape)
    alpha = alphas[t].reshape(shape)
    beta = 1 - alpha
    mean = (
        np.sqrt(before) * beta / (1 - now) * x_0
        + np.sqrt(alpha) * (1 - before) / (1 - now) * x_t
    )
    return mean, (1 - before) / (1 - now) * beta


def ddpm_loss(model, x_0, t, noise, betas):
    x_t = q_sample(x_0, t, noise, betas)
    return np.mean((noise - model(x_t, t)) ** 2)


def ddpm_sample(model, x_T, betas, noise):
    alphas = 1 - betas
    alpha_bars = np.cumprod(alphas)
    x = x_T
    for t in range(len(betas), 0, -1):
        eps = model(x, np.full(len(x), t))
        mean = (x - betas[t - 1] / np.sqrt(1 - alpha_bars[t - 1]) * eps) / np.sqrt(
            alphas[t - 1]
        )
        z = noise[t - 1] if t > 1 else 0
        x = mean + np.sqrt(betas[t - 1]) * z
    return x
