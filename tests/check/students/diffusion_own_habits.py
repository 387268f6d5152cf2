"""A student's solution of task 4 in NumPy, with signatures of their own."""

import numpy as np


def noise_schedule(T=1000, beta_1=1e-4, beta_T=0.02):
    """Arrays of length T + 1, so that the index is the timestep."""
    beta = np.concatenate([[0.0], np.linspace(beta_1, beta_T, T)])
    alpha = 1.0 - beta
    alpha_bar = np.cumprod(alpha)
    return {"beta": beta, "alpha": alpha, "alpha_bar": alpha_bar}


def q_sample(x0, t, alpha_bar, eps):
    a = alpha_bar[t][:, None, None, None]
    return np.sqrt(a) * x0 + np.sqrt(1 - a) * eps


def posterior(x_t, x_0, t, beta):
    """One timestep for the whole batch; returns mean and standard deviation."""
    alpha = 1 - beta
    ab = np.cumprod(alpha)
    ab_prev = ab[t - 1] if t > 0 else 1.0
    c0 = np.sqrt(ab_prev) * beta[t] / (1 - ab[t])
    ct = np.sqrt(alpha[t]) * (1 - ab_prev) / (1 - ab[t])
    return c0 * x_0 + ct * x_t, np.sqrt((1 - ab_prev) / (1 - ab[t]) * beta[t])


def ddpm_loss(eps_model, x0, t, eps, beta):
    ab = np.cumprod(1 - beta)[t].reshape(-1, 1, 1, 1)
    predicted = eps_model(np.sqrt(ab) * x0 + np.sqrt(1 - ab) * eps, t)
    return ((eps - predicted) ** 2).sum() / len(x0)


def ddpm_sample(eps_model, x_T, beta, z):
    """The variant of the authors' code, with the list of all images as result."""
    ab = np.concatenate([[1.0], np.cumprod(1 - beta)])
    images = [x_T]
    for t in range(len(beta), 0, -1):
        x, b = images[-1], beta[t - 1]
        eps = eps_model(x, t * np.ones(len(x), dtype=int))
        x0 = np.clip((x - np.sqrt(1 - ab[t]) * eps) / np.sqrt(ab[t]), -1, 1)
        mean = np.sqrt(ab[t - 1]) * b / (1 - ab[t]) * x0
        mean = mean + np.sqrt(1 - b) * (1 - ab[t - 1]) / (1 - ab[t]) * x
        images.append(mean + np.sqrt(b) * z[t - 1] if t > 1 else mean)
    return images


def ddpm_sample_random(eps_model, shape, beta, seed=0):
    """Draws its own noise."""
    rng = np.random.default_rng(seed)
    ab = np.cumprod(1 - beta)
    x = rng.standard_normal(shape)
    for t in reversed(range(len(beta))):
        eps = eps_model(x, np.full(shape[0], t))
        x = (x - beta[t] / np.sqrt(1 - ab[t]) * eps) / np.sqrt(1 - beta[t])
        if t > 0:
            x = x + np.sqrt(beta[t]) * rng.standard_normal(shape)
    return x
