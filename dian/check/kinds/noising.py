"""Contracts of chapter 4: noise schedules, the forward process and the loss."""

import inspect
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
from dian.claims.compare import normal, relative
from dian.diffusion.posterior import posterior as posterior_coefficients
from dian.diffusion.process import q_sample as noised
from dian.diffusion.process import training_loss
from dian.diffusion.sampling import reverse_mean
from dian.diffusion.schedule import at_step, linear_schedule, make_schedule

BETAS = Argument("betas", "T", "the variance added at each timestep, of t = 1 first",
                 ("beta",))  # fmt: skip
X_0 = Argument("x_0", "batch ...", "clean images", ("x0", "x_start", "x", "images"))
X_T = Argument("x_t", "batch ...", "noisy images", ("xt", "x"))
T_ = Argument("t", "batch", "timestep of each image, integers", ("timesteps", "steps"))
NOISE = Argument("noise", "batch ...", "standard normal", ("epsilon", "eps"))


def betas(T: int) -> Tensor:
    """Return a schedule that is neither linear nor small."""
    return 0.02 + 0.3 * (torch.arange(1, T + 1, dtype=torch.float64) / T) ** 2


def _from_zero(function: Function) -> Function:
    return converting(t=lambda t: t - 1)(function)


TIMESTEPS = Convention(
    "timesteps", (Option("t from 1"), Option("t from 0", _from_zero))
)


def _one_t(function: Function) -> Function:
    """Wrap a function that takes one timestep for all images."""

    def wrapped(t, **given) -> Outputs:
        rows = []
        for i, step in enumerate(t.tolist()):
            one = {
                n: x[i : i + 1] if n in ("x_0", "x_t", "noise") else x
                for n, x in given.items()
            }
            rows.append(function(t=step, **one))
        outputs = zip(*rows, strict=True)
        return tuple(_joined(x, given) for x in outputs)

    return wrapped


def _joined(parts: tuple[Tensor, ...], given: dict) -> Tensor:
    like = given.get("x_0", given.get("x_t"))[:1]
    return torch.cat([x.expand_as(like) if x.ndim <= 1 else x for x in parts])


SINGLE_T = Convention("t", (
    Option("a timestep for each image"), Option("one timestep for all", _one_t),
), layout=True)  # fmt: skip


def flattened(function: Function) -> Function:
    """Wrap a function of images that are vectors, ``(batch, d)``."""

    def wrapped(**given) -> Outputs:
        names = [n for n in ("x_0", "x_t", "x_T") if n in given]
        like = given[names[0]]
        for name in names:
            given[name] = given[name].flatten(1)
        if given.get("noise") is not None:
            noise = given["noise"]
            given["noise"] = noise.flatten(noise.ndim - like.ndim + 1)
        found = function(**given)
        return tuple(_unflattened(x, like) for x in found)

    return wrapped


def _unflattened(x: Tensor, like: Tensor) -> Tensor:
    d = like[0].numel()
    return x.unflatten(-1, like.shape[1:]) if x.ndim > 1 and x.shape[-1] == d else x


IMAGE_AXES = Convention("axes", (
    Option("images (batch, ...)"), Option("vectors (batch, d)", flattened),
), layout=True)  # fmt: skip

TABLES = {
    "alpha_bars": ("alpha_bar", "alphas_bar", "alpha_bars", "alphabar",
                   "alphas_cumprod", "alpha_cumprod", "a_bar", "ab", "abar"),
    "alphas": ("alpha", "alphas"),
}  # fmt: skip
"""Tables that a function may take in place of beta, or as well, and their names."""
TABLES_NOTE = (
    "`alphas` and `alpha_bars` are accepted in place of `betas`, or as further "
    "arguments."
)


def tables_adapted(function: Callable) -> tuple[Callable, str]:
    """Accept a function of the products of 1 - beta, or of 1 - beta."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return function, ""
    known = {name: kind for kind, names in TABLES.items() for name in names}
    taken = {p.name: known[p.name.lower()] for p in parameters
             if p.name.lower() in known}  # fmt: skip
    if not taken:
        return function, ""
    own = next(
        (p.name for p in parameters if p.name.lower() in ("beta", "betas")), None
    )

    def with_betas(*, betas, **given):
        alphas = 1 - betas
        made = {"alphas": alphas, "alpha_bars": alphas.cumprod(0)}
        tables = {name: made[kind] for name, kind in taken.items()}
        return function(**given, **tables, **({own: betas} if own else {}))

    named = inspect.Parameter.KEYWORD_ONLY
    rest = [p.replace(kind=named) for p in parameters if p.name not in (*taken, own)]
    betas = inspect.Parameter("betas", named)
    with_betas.__signature__ = inspect.Signature([*rest, betas])
    return with_betas, f"takes {', '.join(dict.fromkeys(taken.values()))}"


# q(x_t | x_0)


def _q_sample(x_0, t, noise, betas) -> Outputs:
    return (noised(make_schedule(betas), x_0, t, noise),)


def _images(seed: int, batch: int, T: int, shape: tuple) -> dict[str, Any]:
    x_0, noise = normal(seed, (batch, *shape), (batch, *shape))
    generator = torch.Generator().manual_seed(seed)
    t = torch.randint(1, T + 1, (batch,), generator=generator)
    t[0], t[-1] = 1, T
    return {"x_0": x_0.clamp(-1, 1), "t": t, "noise": noise, "betas": betas(T)}


def _image_case(words: str, batch: int, T: int, shape: tuple) -> Case:
    return Case(words, _images(batch + T, batch, T, shape))


IMAGE_CASES = (
    _image_case("2 images of 1 pixel, T = 2", 2, 2, (1, 1, 1)),
    _image_case("4 images, T = 9", 4, 9, (1, 2, 3)),
    _image_case("5 images, T = 30", 5, 30, (3, 2, 2)),
)


def _variances(f: Function) -> float:
    """The squares of the factors of image and noise add up to 1."""
    given = _images(1, 6, 20, (1, 1, 2))
    zero = torch.zeros_like(given["x_0"])
    one = zero + 1
    signal = f(**{**given, "x_0": one, "noise": zero})[0]
    noise = f(**{**given, "x_0": zero, "noise": one})[0]
    return relative(signal**2 + noise**2, one)


def _mixed(signal: Callable, noise: Callable):
    """Mix image and noise with other factors."""

    def function(x_0, t, noise, betas) -> Outputs:
        a_bar = (1 - betas).cumprod(0)[t - 1].view(-1, *[1] * (x_0.ndim - 1))
        return (signal(a_bar) * x_0 + factor(a_bar) * noise,)

    factor = noise
    return function


def _at(change: Callable[[Tensor, Tensor], Tensor]):
    """Look up another table in place of alpha-bar."""

    def function(x_0, t, noise, betas) -> Outputs:
        a = change(betas, t).view(-1, *[1] * (x_0.ndim - 1))
        return (a.sqrt() * x_0 + (1 - a).sqrt() * noise,)

    return function


def _before(betas: Tensor, t: Tensor) -> Tensor:
    return torch.cat([torch.ones(1), (1 - betas).cumprod(0)]).double()[t - 1]


def _after(betas: Tensor, t: Tensor) -> Tensor:
    a = (1 - betas).cumprod(0)
    return a[t.clamp(max=len(a) - 1)]


def q_sample() -> Contract:
    """Return the contract of q(x_t | x_0)."""
    return Contract(
        kind="q-sample",
        title="Forward process: sample q(x_t | x_0)",
        arguments=(X_0, T_, NOISE, BETAS),
        returns=(("x_t", "batch ...", "the noisy images"),),
        ours=(_q_sample,),
        conventions=(IMAGE_AXES, SINGLE_T, TIMESTEPS),
        adapt=tables_adapted,
        notes=(TABLES_NOTE,),
        properties=(
            Property("D1", "is sqrt(abar) x_0 + sqrt(1 - abar) noise", IMAGE_CASES),
            Property("D1", "squares of the factors add up to 1", law=_variances),
        ),
        chapter="diffusion",
        pitfalls="gallery/4_diffusion/plot_9_how_it_breaks",
        ledger=(
            "diffusion.process",
            "diffusion.posterior",
            "diffusion.schedule",
            "diffusion.score",
        ),
        mistakes=(
            Mistake("the image is not under the root",
                    _mixed(lambda a: a, lambda a: (1 - a).sqrt())),
            Mistake("no roots at all", _mixed(lambda a: a, lambda a: 1 - a)),
            Mistake("signal and noise are exchanged",
                    _mixed(lambda a: (1 - a).sqrt(), lambda a: a.sqrt())),
            Mistake("the noise is multiplied by 1 - the root", _mixed(
                lambda a: a.sqrt(), lambda a: 1 - a.sqrt())),
            Mistake("the noise is not scaled", _mixed(
                lambda a: a.sqrt(), torch.ones_like)),
            Mistake("alpha in place of alpha-bar", _at(lambda b, t: (1 - b)[t - 1])),
            Mistake("beta in place of alpha-bar", _at(lambda b, t: b[t - 1])),
            Mistake("the product of the betas", _at(lambda b, t: b.cumprod(0)[t - 1])),
            Mistake("the step before", _at(_before)),
            Mistake("the step after", _at(_after)),
        ),
    )  # fmt: skip


# q(x_{t-1} | x_t, x_0)


def _posterior(x_0, x_t, t, betas) -> Outputs:
    c_0, c_1, variance = posterior_coefficients(make_schedule(betas))
    mean = at_step(c_0, t, x_0) * x_0 + at_step(c_1, t, x_0) * x_t
    return mean, at_step(variance, t, x_0).expand_as(x_0)


def _by_noise(x_0, x_t, t, betas) -> Outputs:
    """Go through the noise, as the sampler does."""
    schedule = make_schedule(betas)
    a_bar = at_step(schedule.alpha_bar, t, x_t)
    epsilon = (x_t - a_bar.sqrt() * x_0) / (1 - a_bar).sqrt()
    variance = _posterior(x_0, x_t, t, betas)[1]
    return reverse_mean(schedule, x_t, t, epsilon), variance


def _as_images(found: Outputs, arguments: Any) -> Outputs:
    """Let a variance for each image, or for all, have the shape of images."""
    like, (mean, *rest) = arguments["x_0"], found
    shaped = []
    for x in rest:
        x = x.view(-1, *[1] * (like.ndim - 1)) if x.ndim == 1 else x
        shaped.append(x.expand_as(like))
    return (mean, *shaped)


def _logarithm(found: Outputs, arguments: Any) -> Outputs:
    return (found[0], *(x.exp() for x in _as_images(found, arguments)[1:]))


def _deviation(found: Outputs, arguments: Any) -> Outputs:
    return (found[0], *(x**2 for x in _as_images(found, arguments)[1:]))


def _posterior_case(words: str, batch: int, T: int, shape: tuple) -> Case:
    given = _images(batch + T, batch, T, shape)
    x_t = _q_sample(**given)[0]
    names = ("x_0", "t", "betas")
    return Case(words, {**{n: given[n] for n in names}, "x_t": x_t})


def _first_step(f: Function) -> float:
    """At t = 1 the posterior is the clean image itself."""
    given = _posterior_case("", 3, 7, (1, 2, 1)).arguments
    ones = torch.ones_like(given["t"])
    (mean, *_) = f(**{**given, "t": ones})
    return relative(mean, given["x_0"])


def _marginal(f: Function) -> float:
    """Of noise-free x_t the mean is the noise-free x_{t-1}."""
    given = _posterior_case("", 5, 11, (1, 1, 2)).arguments
    a = torch.cat([torch.ones(1), (1 - given["betas"]).cumprod(0)]).double().sqrt()
    t, x_0 = given["t"], given["x_0"]
    now, before = (a[s].view(-1, 1, 1, 1) for s in (t, t - 1))
    (mean, *_) = f(**{**given, "x_t": now * x_0})
    return relative(mean, before * x_0)


def _coefficients(change: Callable):
    """Compute mean and variance from changed coefficients."""

    def function(x_0, x_t, t, betas) -> Outputs:
        b, a = betas[t - 1], (1 - betas)[t - 1]
        bar = torch.cat([torch.ones(1), (1 - betas).cumprod(0)]).double()
        c_0, c_1, v = change(b, a, bar[t], bar[t - 1])
        shape = (-1, *[1] * (x_0.ndim - 1))
        mean = c_0.view(shape) * x_0 + c_1.view(shape) * x_t
        return mean, v.view(shape).expand_as(x_0)

    return function


def _swapped(b, a, now, before):
    c_0, c_1 = before.sqrt() * b / (1 - now), a.sqrt() * (1 - before) / (1 - now)
    return c_1, c_0, (1 - before) / (1 - now) * b


def _roots(b, a, now, before):
    """Take the root of alpha for the image, and of alpha-bar for x_t."""
    n = 1 - now
    return a.sqrt() * b / n, before.sqrt() * (1 - before) / n, (1 - before) / n * b


def _upside_down(b, a, now, before):
    n = 1 - now
    variance = n / (1 - before).clamp(min=1e-20) * b
    return before.sqrt() * b / n, a.sqrt() * (1 - before) / n, variance


def _standard(b, a, now, before):
    n = 1 - now
    variance = ((1 - before) / n * b).sqrt()
    return before.sqrt() * b / n, a.sqrt() * (1 - before) / n, variance


def posterior() -> Contract:
    """Return the contract of q(x_{t-1} | x_t, x_0)."""
    return Contract(
        kind="posterior",
        title="Posterior q(x_{t-1} | x_t, x_0)",
        arguments=(X_0, X_T, T_, BETAS),
        returns=(("mean", "batch ...", "the mean"),
                 ("variance", "batch ...", "the variance, also one for each image")),
        ours=(_posterior, _by_noise),
        adapt=tables_adapted,
        notes=(TABLES_NOTE,),
        conventions=(
            IMAGE_AXES, SINGLE_T, TIMESTEPS,
            Convention("spread", (
                Option("variance", returning(_as_images)),
                Option("log-variance", returning(_logarithm)),
                Option("standard deviation", returning(_deviation)),
            )),
        ),
        properties=(
            Property("D3", "has the mean and variance of Bayes' rule", (
                _posterior_case("2 images of 1 pixel, T = 2", 2, 2, (1, 1, 1)),
                _posterior_case("4 images, T = 9", 4, 9, (1, 2, 3)),
                _posterior_case("5 images, T = 30", 5, 30, (3, 2, 2)),
            )),
            Property("D3", "is the clean image at t = 1", law=_first_step),
            Property("D3", "takes noise-free x_t to noise-free x_{t-1}", law=_marginal),
        ),
        chapter="diffusion",
        pitfalls="gallery/4_diffusion/plot_9_how_it_breaks",
        ledger=(
            "diffusion.process",
            "diffusion.posterior",
            "diffusion.schedule",
            "diffusion.sampling",
            "diffusion.gaussian_mixture",
            "diffusion.score",
            "diffusion.likelihood",
        ),
        mistakes=(
            Mistake("the coefficients of image and x_t are exchanged",
                    _coefficients(_swapped)),
            Mistake("alpha and alpha-bar are exchanged in the roots",
                    _coefficients(_roots)),
            Mistake("the fraction of the variance is inverted",
                    _coefficients(_upside_down)),
        ),
    )  # fmt: skip


# The loss


def _model(x_t: Tensor, t: Any) -> Tensor:
    """Predict something that depends on the image, the timestep and the place."""
    t = torch.as_tensor(t, dtype=x_t.dtype).reshape(-1, *[1] * (x_t.ndim - 1))
    ramp = torch.linspace(0.5, 1.5, x_t[0].numel(), dtype=x_t.dtype)
    return 0.7 * torch.sin(x_t + 0.3 * t) * ramp.view(x_t.shape[1:])


def _loss(model, x_0, t, noise, betas) -> Outputs:
    schedule = make_schedule(betas)
    return (training_loss(schedule, model, x_0, draws=(t, noise)).mean(),)


def _model_from_zero(function: Function) -> Function:
    """Wrap a function that counts timesteps from 0, and asks the model so, too."""

    def wrapped(t, model, **rest) -> Outputs:
        return function(t=t - 1, model=lambda x, s: model(x, s + 1), **rest)

    return wrapped


def _times(count: Callable[[Any], float]):
    def convert(found: Outputs, arguments: Any) -> Outputs:
        return (found[0].mean() / count(arguments["x_0"]),)

    return returning(convert)


def _loss_case(words: str, batch: int, T: int, shape: tuple) -> Case:
    return Case(words, {"model": _model, **_images(batch + T, batch, T, shape)})


def _perfect(f: Function) -> float:
    """A model that knows the noise has no loss."""
    given = _images(3, 4, 12, (1, 2, 3))

    def model(x, t):
        return given["noise"].reshape(x.shape).to(x.dtype)

    return f(model=model, **given)[0].abs().item()


def _zero_model(f: Function) -> float:
    """A model that predicts 0 loses the mean square of the noise."""
    given = _images(4, 4, 12, (1, 2, 3))
    found = f(model=lambda x, t: torch.zeros_like(x), **given)[0]
    return relative(found, given["noise"].square().mean())


def _asked(change: Callable):
    """Compute the loss of a changed target, input or error."""

    def function(model, x_0, t, noise, betas) -> Outputs:
        x_t = _q_sample(x_0, t, noise, betas)[0]
        return (change(model, x_0, x_t, t, noise, betas),)

    return function


def _square(a: Tensor, b: Tensor) -> Tensor:
    return (a - b).square().mean()


def ddpm_loss() -> Contract:
    """Return the contract of Algorithm 1."""

    def entries(x: Tensor) -> float:
        return x[0].numel()

    return Contract(
        kind="ddpm-loss",
        title="Algorithm 1: the training loss of DDPM",
        arguments=(
            Argument("model", "model(x_t, t)", "predicts the noise",
                     ("network", "net", "eps_model", "denoise_fn", "eps_theta")),
            X_0, T_, NOISE, BETAS,
        ),
        returns=(("loss", "", "mean squared error over all entries"),),
        ours=(_loss,),
        adapt=tables_adapted,
        notes=(TABLES_NOTE,),
        conventions=(
            IMAGE_AXES,
            Convention("timesteps", (
                Option("t from 1"), Option("t from 0", _model_from_zero))),
            Convention("reduction", (
                Option("mean", _times(lambda x: 1.0)),
                Option("sum over an image, mean over the batch", _times(entries)),
                Option("sum", _times(lambda x: float(x.numel()))),
            )),
        ),
        properties=(
            Property("D8a", "is the mean squared error of the noise", (
                _loss_case("2 images of 1 pixel, T = 2", 2, 2, (1, 1, 1)),
                _loss_case("4 images, T = 9", 4, 9, (1, 2, 3)),
                _loss_case("5 images, T = 30", 5, 30, (3, 2, 2)),
            )),
            Property("D8a", "is 0 for a model that knows the noise", law=_perfect),
            Property("D8a", "is the mean square of the noise if the model predicts 0",
                     law=_zero_model),
        ),
        chapter="diffusion",
        pitfalls="gallery/4_diffusion/plot_9_how_it_breaks",
        ledger=(
            "diffusion.process",
            "diffusion.posterior",
            "diffusion.schedule",
            "diffusion.score",
            "diffusion.likelihood",
        ),
        mistakes=(
            Mistake("the target is the image", _asked(
                lambda m, x, x_t, t, e, b: _square(m(x_t, t), x))),
            Mistake("the target is x_t", _asked(
                lambda m, x, x_t, t, e, b: _square(m(x_t, t), x_t))),
            Mistake("the absolute error", _asked(
                lambda m, x, x_t, t, e, b: (m(x_t, t) - e).abs().mean())),
            Mistake("the root of the mean squared error", _asked(
                lambda m, x, x_t, t, e, b: _square(m(x_t, t), e).sqrt())),
            Mistake("the model is called with the clean image", _asked(
                lambda m, x, x_t, t, e, b: _square(m(x, t), e))),
            Mistake("the model is always given timestep 0", _asked(
                lambda m, x, x_t, t, e, b: _square(m(x_t, 0 * t), e))),
            Mistake("the model is given t / T", _asked(
                lambda m, x, x_t, t, e, b: _square(m(x_t, t / len(b)), e))),
            Mistake("the sign of the noise is missing", _asked(
                lambda m, x, x_t, t, e, b: _square(m(x_t, t), -e))),
            Mistake("half of the squared error", _asked(
                lambda m, x, x_t, t, e, b: _square(m(x_t, t), e) / 2)),
        ),
    )  # fmt: skip


# Noise schedules


def _schedule(T, beta_start, beta_end) -> Outputs:
    schedule = linear_schedule(T, beta_start, beta_end)
    return schedule.beta[1:], schedule.alpha_bar[1:], schedule.alpha[1:]


def _from_index_one(found: Outputs, arguments: Any) -> Outputs:
    if any(len(x) != arguments["T"] + 1 for x in found):
        return (torch.full((arguments["T"],), torch.nan),)
    return tuple(x[1:] for x in found)


def _alphas_second(found: Outputs, arguments: Any) -> Outputs:
    return found[0], found[2], found[1]


def _decreases(f: Function) -> float:
    found = f(T=50, beta_start=1e-4, beta_end=0.02)
    if len(found) < 2:
        return 0.0
    fits = (found[1].diff() < 0).all() and (found[1] > 0).all() and found[1][0] < 1
    return 0.0 if fits else torch.inf


def _tables(change: Callable[[Tensor], Tensor], bar: Callable | None = None):
    def function(T, beta_start, beta_end) -> Outputs:
        line = torch.linspace(0, 1, T, dtype=torch.float64)
        beta = change(line, T, beta_start, beta_end)
        alpha_bar = (1 - beta).cumprod(0) if bar is None else bar(beta)
        return beta, alpha_bar, 1 - beta

    return function


def noise_schedule() -> Contract:
    """Return the contract of the linear schedule."""

    def case(words: str, T: int, low: float, high: float) -> Case:
        return Case(words, {"T": T, "beta_start": low, "beta_end": high})

    def line(u, T, low, high):
        return low + (high - low) * u

    return Contract(
        kind="noise-schedule",
        title="Linear noise schedule",
        arguments=(
            Argument("T", "int", "number of timesteps",
                     ("timesteps", "n_steps", "steps", "num_timesteps")),
            Argument("beta_start", "float", "beta of the first timestep",
                     ("start", "beta_1", "beta_min")),
            Argument("beta_end", "float", "beta of the last timestep",
                     ("end", "beta_T", "beta_max")),
        ),
        returns=(("betas", "T", "variances"),
                 ("alpha_bars", "T", "cumulative products of 1 - beta"),
                 ("alphas", "T", "1 - beta")),
        ours=(_schedule,),
        conventions=(
            Convention("index", (
                Option("T entries, of t = 1 first"),
                Option("T + 1 entries, index t is timestep t",
                       returning(_from_index_one)))),
            Convention("order", (
                Option("betas, alpha_bars, alphas"),
                Option("betas, alphas, alpha_bars", returning(_alphas_second)))),
        ),
        properties=(
            Property("D1", "is linear, with the product of 1 - beta", (
                case("T = 3", 3, 0.1, 0.5), case("T = 40", 40, 1e-3, 0.2),
                case("T = 1000", 1000, 1e-4, 0.02),
            )),
            Property("D2", "alpha-bar falls from below 1 and stays positive",
                     law=_decreases),
        ),
        chapter="diffusion",
        pitfalls="gallery/4_diffusion/plot_1_noising",
        ledger=(
            "diffusion.schedule",
            "diffusion.process",
            "diffusion.posterior",
            "diffusion.score",
        ),
        mistakes=(
            Mistake("the roots are linear (Stable Diffusion's schedule)", _tables(
                lambda u, T, a, b: (a**0.5 + (b**0.5 - a**0.5) * u) ** 2)),
            Mistake("the schedule does not reach its end", _tables(
                lambda u, T, a, b: a + (b - a) * u * (T - 1) / T)),
            Mistake("the product of the betas", _tables(line, lambda b: b.cumprod(0))),
            Mistake("1 - the product of the betas", _tables(
                line, lambda b: 1 - b.cumprod(0))),
            Mistake("1 - the sum of the betas", _tables(
                line, lambda b: 1 - b.cumsum(0))),
            Mistake("alpha-bar is its root", _tables(
                line, lambda b: (1 - b).cumprod(0).sqrt())),
            Mistake("alpha-bar one step late", _tables(
                line, lambda b: (1 - b).cumprod(0).roll(1).index_fill(
                    0, torch.tensor([0]), 1.0))),
            Mistake("beta rises from its end to its start", _tables(
                lambda u, T, a, b: b + (a - b) * u)),
        ),
    )  # fmt: skip
