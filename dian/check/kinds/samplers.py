"""Contracts of chapter 4: ancestral sampling and DDIM."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from dian.check.contract import (
    Argument,
    Case,
    Contract,
    Convention,
    Function,
    Mistake,
    Option,
    Outputs,
    Property,
    converting,
    returning,
)
from dian.check.kinds.noising import (
    BETAS,
    IMAGE_AXES,
    TABLES_NOTE,
    betas,
    tables_adapted,
)
from dian.claims.compare import normal, relative
from dian.diffusion.sampling import Denoiser, evenly_spaced_timesteps
from dian.diffusion.sampling import ddim_sample as ddim
from dian.diffusion.sampling import ddpm_sample as ddpm
from dian.diffusion.schedule import make_schedule

MODEL = Argument("model", "model(x_t, t)", "predicts the noise",
                 ("network", "net", "eps_model", "eps_theta"))  # fmt: skip
START = Argument("x_T", "batch ...", "noise at the last timestep",
                 ("x", "xT", "x_t", "start", "z"))  # fmt: skip
NOISE = Argument("noise", "T batch ...", "z of every step, of t = 1 first",
                 ("z", "noises", "eps", "zs"))  # fmt: skip


def predicts(x_t: Tensor, t: Any) -> Tensor:
    """Predict something smooth that depends on the timestep and the place."""
    t = torch.as_tensor(t, dtype=x_t.dtype).reshape(-1, *[1] * (x_t.ndim - 1))
    ramp = torch.linspace(0.5, 1.5, x_t[0].numel(), dtype=x_t.dtype)
    return 0.8 * torch.tanh(x_t - 0.2 * t + 0.5) * ramp.view(x_t.shape[1:])


def _sample(clip: float | None = None, variance: str = "beta"):
    def sample(model, x_T, betas, noise) -> Outputs:
        schedule = make_schedule(betas)
        denoiser = Denoiser(model, clip=clip)
        options = {"variance": variance, "noise": lambda t: noise[t - 1]}
        return (ddpm(schedule, denoiser, x_T, **options),)

    return sample


def _from_zero(function: Function) -> Function:
    def wrapped(model, **rest) -> Outputs:
        return function(model=lambda x, t: model(x, torch.as_tensor(t) + 1), **rest)

    return wrapped


def _in_order(function: Function) -> Function:
    """Hand out the noise in the order in which a sampler needs it."""
    return converting(noise=lambda z: z.flip(0))(function)


def _like(other: Callable):
    """Wrap a function that computes another variant: translate the result.

    The two variants are computed by our own function; if the reader's agrees with the
    other one, ours under the report's convention is returned.
    """
    ours = _sample()

    def wrap(function: Function) -> Function:
        def wrapped(**given) -> Outputs:
            (found, *_) = function(**given)
            (right,), (theirs,) = ours(**given), other(**given)
            found = found if found.shape == theirs.shape else found.reshape(right.shape)
            return (found - theirs + right,)

        return wrapped

    return wrap


def _last(found: Outputs, arguments: Any) -> Outputs:
    """Take the end of a trajectory."""
    x, like = found[0], arguments["x_T"]
    if x.ndim == like.ndim:
        raise ValueError("no trajectory")
    return (x[-1],)


def _draw(seed: int, T: int, batch: int, shape: tuple) -> dict[str, Any]:
    x_T, noise = normal(seed, (batch, *shape), (T, batch, *shape))
    return {"model": predicts, "x_T": x_T, "betas": betas(T), "noise": noise}


def _case(words: str, T: int, batch: int, shape: tuple) -> Case:
    return Case(words, _draw(T + batch, T, batch, shape))


def _independent(f: Function) -> float:
    given = _draw(1, 6, 3, (1, 2, 1))
    one = {**given, "x_T": given["x_T"][1:2], "noise": given["noise"][:, 1:2]}
    return relative(f(**one)[0], f(**given)[0][1:2])


def _last_is_quiet(f: Function) -> float:
    """The noise of the last step, t = 1, is not used."""
    given = _draw(2, 5, 2, (1, 3, 1))
    noise = given["noise"].clone()
    noise[0] += 10
    return relative(f(**{**given, "noise": noise})[0], f(**given)[0])


def _steps(change: Callable):
    """Run the reverse process with ``change``, which returns the next image."""

    def function(model, x_T, betas, noise) -> Outputs:
        bar = torch.cat([torch.ones(1), (1 - betas).cumprod(0)]).double()
        x = x_T
        for t in range(len(betas), 0, -1):
            steps = torch.full((len(x),), t)
            z = noise[t - 1] if t > 1 else torch.zeros_like(x)
            b, now, before = betas[t - 1], bar[t], bar[t - 1]
            x = change(model, x, steps, z, b, now, before, noise[t - 1])
        return (x,)

    return function


def _mean(x, eps, b, now):
    return (x - b / (1 - now).sqrt() * eps) / (1 - b).sqrt()


def _variance_for_deviation(m, x, t, z, b, now, before, w):
    return _mean(x, m(x, t), b, now) + b * z


def _no_noise(m, x, t, z, b, now, before, w):
    return _mean(x, m(x, t), b, now)


def _noise_at_the_end(m, x, t, z, b, now, before, w):
    return _mean(x, m(x, t), b, now) + b.sqrt() * w


def _no_root_of_alpha(m, x, t, z, b, now, before, w):
    return x - b / (1 - now).sqrt() * m(x, t) + b.sqrt() * z


def _alpha_not_its_root(m, x, t, z, b, now, before, w):
    return (x - b / (1 - now).sqrt() * m(x, t)) / (1 - b) + b.sqrt() * z


def _root_of_beta(m, x, t, z, b, now, before, w):
    return (x - b.sqrt() / (1 - now).sqrt() * m(x, t)) / (1 - b).sqrt() + b.sqrt() * z


def _same_timestep(m, x, t, z, b, now, before, w):
    return _mean(x, m(x, torch.ones_like(t)), b, now) + b.sqrt() * z


def _step_before(m, x, t, z, b, now, before, w):
    return _mean(x, m(x, t - 1), b, now) + b.sqrt() * z


def _alpha_for_beta(m, x, t, z, b, now, before, w):
    return (x - (1 - b) / (1 - now).sqrt() * m(x, t)) / (1 - b).sqrt() + b.sqrt() * z


def _added(m, x, t, z, b, now, before, w):
    return (x + b / (1 - now).sqrt() * m(x, t)) / (1 - b).sqrt() + b.sqrt() * z


def _whole_jump(m, x, t, z, b, now, before, w):
    """Predict the clean image at each step, and add the noise of the same step."""
    x_0 = (x - (1 - now).sqrt() * m(x, t)) / now.sqrt()
    return before.sqrt() * x_0 + (1 - before).sqrt() * z


def _not_from_T(model, x_T, betas, noise) -> Outputs:
    """Leave out the first step, t = T."""
    given = {"model": model, "x_T": x_T, "betas": betas[:-1], "noise": noise[:-1]}
    return _sample()(**given)


def _upwards(model, x_T, betas, noise) -> Outputs:
    """Visit the timesteps from t = 1 to T."""
    schedule, x = betas, x_T
    bar = (1 - betas).cumprod(0)
    for t in range(1, len(betas) + 1):
        z = noise[t - 1] if t > 1 else 0
        b, now = schedule[t - 1], bar[t - 1]
        x = _mean(x, model(x, torch.full((len(x),), t)), b, now) + b.sqrt() * z
    return (x,)


def ddpm_sample() -> Contract:
    """Return the contract of Algorithm 2."""
    return Contract(
        kind="ddpm-sample",
        title="Algorithm 2: sampling with DDPM",
        arguments=(MODEL, START, BETAS, NOISE),
        returns=(("x_0", "batch ...", "the samples"),),
        ours=(_sample(),),
        adapt=tables_adapted,
        notes=(TABLES_NOTE,),
        conventions=(
            IMAGE_AXES,
            Convention("returns", (
                Option("the samples"), Option("all steps", returning(_last)))),
            Convention("timesteps", (
                Option("model takes t from 1"),
                Option("model takes t from 0", _from_zero))),
            Convention("noise", (
                Option("noise[t - 1] is that of timestep t"),
                Option("noise in the order of use", _in_order))),
            Convention("variance", (
                Option("variance beta, no clipping"),
                Option("variance beta-tilde, no clipping",
                       _like(_sample(variance="beta_tilde"))),
                Option("variance beta, x_0 clipped to [-1, 1]", _like(_sample(1.0))),
                Option("variance beta-tilde, x_0 clipped to [-1, 1]",
                       _like(_sample(1.0, "beta_tilde"))),
            )),
        ),
        properties=(
            Property("D8b", "runs all steps from x_T to the image", (
                _case("T = 2, 1 image of 1 pixel", 2, 1, (1, 1, 1)),
                _case("T = 3, 2 images of 3 pixels", 3, 2, (1, 3, 1)),
                _case("T = 8, 3 images", 8, 3, (1, 2, 2)),
            )),
            Property("D8b", "adds no noise at the last step", law=_last_is_quiet),
            Property("D14a", "does not mix the images of a batch", law=_independent),
        ),
        chapter="diffusion",
        pitfalls="gallery/4_diffusion/plot_9_how_it_breaks",
        ledger=(
            "diffusion.sampling",
            "diffusion.process",
            "diffusion.posterior",
            "diffusion.schedule",
            "diffusion.score",
            "diffusion.guidance",
        ),
        mistakes=(
            Mistake("the variance in place of the standard deviation",
                    _steps(_variance_for_deviation)),
            Mistake("no noise is added", _steps(_no_noise)),
            Mistake("noise is added at the last step, too", _steps(_noise_at_the_end)),
            Mistake("the mean is not divided by the root of alpha",
                    _steps(_no_root_of_alpha)),
            Mistake("divided by alpha, not by its root", _steps(_alpha_not_its_root)),
            Mistake("the root of beta in front of the noise", _steps(_root_of_beta)),
            Mistake("alpha in place of beta in front of the noise",
                    _steps(_alpha_for_beta)),
            Mistake("the predicted noise is added, not removed", _steps(_added)),
            Mistake("the model is always given the same timestep",
                    _steps(_same_timestep)),
            Mistake("the model is called with the timestep before",
                    _steps(_step_before)),
            Mistake("the predicted image is noised again with new noise",
                    _steps(_whole_jump)),
            Mistake("the first step, t = T, is left out", _not_from_T),
            Mistake("runs from t = 1 to T", _upwards),
        ),
    )  # fmt: skip


# DDIM


def _ddim(model, x_T, betas, steps, eta=0.0, noise=None, clip=None) -> Outputs:
    schedule = make_schedule(betas)
    z = None if noise is None else (lambda t: noise[t - 1])
    denoiser = Denoiser(model, clip=clip)
    return (ddim(schedule, denoiser, x_T, steps=steps, eta=eta, noise=z),)


def _unused(given: Any) -> Tensor | None:
    """Without eta, no noise is used."""
    return None if given.get("eta") else given["noise"]


def _spaced(model, x_T, betas, steps, eta=0.0, noise=None) -> Outputs:
    """Let our own code choose the timesteps, where they are those it would choose."""
    even = evenly_spaced_timesteps(len(betas), len(steps))
    steps = len(steps) if even == list(steps) else steps
    return _ddim(model, x_T, betas, steps, eta, noise)


def _steps_from_zero(function: Function) -> Function:
    def wrapped(model, steps, **rest) -> Outputs:
        earlier = [t - 1 for t in steps]
        return function(
            model=lambda x, t: model(x, torch.as_tensor(t) + 1), steps=earlier, **rest
        )

    return wrapped


def _falling(function: Function) -> Function:
    return converting(steps=lambda steps: list(reversed(steps)))(function)


def _clipped(function: Function) -> Function:
    def wrapped(**given) -> Outputs:
        (found, *_) = function(**given)
        return (found - _ddim(**given, clip=1.0)[0] + _ddim(**given)[0],)

    return wrapped


def _ddim_case(words: str, T: int, steps: list[int], eta: float = 0.0) -> Case:
    given = _draw(T, T, 3, (1, 2, 2))
    return Case(words, {**given, "steps": steps, "eta": eta})


def _all_steps(f: Function) -> float:
    """With a model that knows the one image there is, it comes back."""
    T, given = 9, _draw(4, 9, 3, (1, 2, 1))
    bar = (1 - betas(T)).cumprod(0)
    clean = 0.4

    def model(x: Tensor, t: Any) -> Tensor:
        a = bar[torch.as_tensor(t).long().reshape(-1) - 1].to(x.dtype)
        a = a.reshape(-1, *[1] * (x.ndim - 1))
        return (x - a.sqrt() * clean) / (1 - a).sqrt()

    found = f(**{**given, "model": model}, steps=[2, 5, 9], eta=0.0)[0]
    return relative(found, torch.full_like(found, clean))


def _walk(change: Callable):
    def function(model, x_T, betas, steps, eta=0.0, noise=None) -> Outputs:
        bar = torch.cat([torch.ones(1), (1 - betas).cumprod(0)]).double()
        x = x_T
        for s, t in reversed(list(zip([0, *steps], steps, strict=False))):
            eps = model(x, torch.full((len(x),), t))
            x_0 = (x - (1 - bar[t]).sqrt() * eps) / bar[t].sqrt()
            variance = (1 - bar[s]) / (1 - bar[t]) * (1 - bar[t] / bar[s])
            z = 0 if noise is None else noise[t - 1]
            x = change(x, x_0, eps, bar[s], bar[t], eta, variance, z)
        return (x,)

    return function


def _not_taken(x, x_0, eps, s, t, eta, v, z):
    return s.sqrt() * x_0 + (1 - s).sqrt() * eps + eta * v.sqrt() * z


def _eta_once(x, x_0, eps, s, t, eta, v, z):
    return s.sqrt() * x_0 + (1 - s - eta * v).sqrt() * eps + (eta * v) ** 0.5 * z


def _same_bar(x, x_0, eps, s, t, eta, v, z):
    return s.sqrt() * x_0 + (1 - t).sqrt() * eps


def _no_image_scale(x, x_0, eps, s, t, eta, v, z):
    return x_0 + (1 - s - eta**2 * v).sqrt() * eps + eta * v.sqrt() * z


def _no_direction(x, x_0, eps, s, t, eta, v, z):
    return s.sqrt() * x_0 + eta * v.sqrt() * z


def _no_clean_end(model, x_T, betas, steps, eta=0.0, noise=None) -> Outputs:
    """End at alpha-bar of the first timestep, as diffusers with another setting."""
    bar, x = (1 - betas).cumprod(0), x_T
    for s, t in reversed(list(zip([1, *steps], steps, strict=False))):
        eps = model(x, torch.full((len(x),), t))
        x_0 = (x - (1 - bar[t - 1]).sqrt() * eps) / bar[t - 1].sqrt()
        now, before = bar[t - 1], bar[s - 1]
        v = eta**2 * (1 - before) / (1 - now) * (1 - now / before)
        z = 0 if noise is None else noise[t - 1]
        x = before.sqrt() * x_0 + (1 - before - v).sqrt() * eps + v.sqrt() * z
    return (x,)


def ddim_sample() -> Contract:
    """Return the contract of DDIM."""
    return Contract(
        kind="ddim-sample",
        title="Sampling with DDIM",
        arguments=(
            MODEL, START, BETAS,
            Argument("steps", "list of int", "the timesteps, rising; the last is that "
                     "of x_T", ("timesteps", "seq", "tau", "taus")),
            Argument("eta", "float", "how much new noise", (), 0.0),
            Argument("noise", "T batch ...", "z of every timestep, of t = 1 first",
                     ("z", "noises"), _unused),
        ),
        returns=(("x_0", "batch ...", "the samples"),),
        ours=(_ddim, _spaced),
        adapt=tables_adapted,
        notes=(TABLES_NOTE,),
        conventions=(
            IMAGE_AXES,
            Convention("returns", (
                Option("the samples"), Option("all steps", returning(_last)))),
            Convention("timesteps", (
                Option("t from 1"), Option("t from 0", _steps_from_zero))),
            Convention("order", (
                Option("rising timesteps"), Option("falling timesteps", _falling))),
            Convention("clipping", (
                Option("no clipping"),
                Option("x_0 clipped to [-1, 1]", _clipped))),
        ),
        properties=(
            Property("D12a", "follows the deterministic path", (
                _ddim_case("T = 3, one step", 3, [3]),
                _ddim_case("T = 9, steps 2, 5, 9", 9, [2, 5, 9]),
                _ddim_case("T = 12, steps 3, 6, 9, 12", 12, [3, 6, 9, 12]),
            )),
            Property("D12a", "adds noise for eta above 0", (
                _ddim_case("T = 9, eta = 0.6", 9, [2, 5, 9], 0.6),
                _ddim_case("T = 4, all steps, eta = 1", 4, [1, 2, 3, 4], 1.0),
            ), needs=("eta", "noise")),
            Property("D12b", "finds the image that a perfect model knows",
                     law=_all_steps),
        ),
        chapter="diffusion",
        pitfalls="gallery/4_diffusion/plot_7_fast_sampling",
        ledger=(
            "diffusion.sampling",
            "diffusion.process",
            "diffusion.posterior",
            "diffusion.schedule",
            "diffusion.score",
            "diffusion.guidance",
        ),
        mistakes=(
            Mistake("the old noise is not reduced by the new one", _walk(_not_taken)),
            Mistake("eta is not squared", _walk(_eta_once)),
            Mistake("alpha-bar of this step in front of the noise", _walk(_same_bar)),
            Mistake("the image is not scaled", _walk(_no_image_scale)),
            Mistake("the predicted noise is not added back", _walk(_no_direction)),
            Mistake("does not end at the clean image", _no_clean_end),
        ),
    )  # fmt: skip
