"""The denoising network, trained and sampled from, with the weights of the peer."""

import statistics
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.cases import Case, Place, Side, Unavailable, against, library
from benchmarks.timing import Against, Result, clock
from dian.diffusion.sampling import ddpm_sample
from dian.diffusion.schedule import linear_schedule
from dian.diffusion.unet import PRESETS, UNet, UNetConfig
from tests.peers import diffusers_unet, from_diffusers

SIZE = 28


def pair(place: Place, config: UNetConfig) -> tuple[UNet, nn.Module | None]:
    """Return ours and theirs with the same weights; without diffusers ours alone."""
    ours = UNet(config, generator=torch.Generator().manual_seed(0))
    try:
        library("diffusers")
    except Unavailable:
        return ours.to(place.device), None
    peer = diffusers_unet(config)
    state = {name: _random(name, value) for name, value in peer.state_dict().items()}
    peer.load_state_dict(state)
    ours.load_state_dict(from_diffusers(state, config))
    return ours.to(place.device), peer.to(place.device)


def training(
    place: Place, *, precision: torch.dtype = torch.float32, compiled: bool = False
) -> Case:
    """Take the loss, and every gradient; in 16 bits with weights in 32."""
    name, batch = place.pick("tiny", "small", "base"), place.pick(2, 32, 128)
    config = PRESETS[name]
    ours, peer = pair(place, config)
    x_t, noise = (place.normal(batch, 1, SIZE, SIZE, seed=s) for s in (0, 1))
    t = torch.linspace(1, 1000, batch, device=place.device).long()
    half = precision != torch.float32
    called = torch.compile(ours) if compiled else ours

    def by(network: nn.Module, predict: Callable[[], Tensor]) -> Tensor:
        network.zero_grad()
        with torch.autocast(place.device.type, precision, enabled=half):
            predicted = predict()
        loss = (predicted.float() - noise).square().mean()
        loss.backward()
        return loss.detach()

    def by_ours() -> Tensor:
        return by(ours, lambda: called(x_t, t))

    def by_theirs() -> Tensor:
        return by(peer, lambda: peer(x_t, t - 1).sample)

    def in_our_layout(loss: Tensor) -> list[Tensor]:
        gradients = {name: p.grad for name, p in peer.named_parameters()}
        renamed = from_diffusers(gradients, config)
        return [loss, *_without_rounding(renamed)]

    def diffusers() -> Side:
        library("diffusers")
        return Side(by_theirs, in_our_layout, goal=None if half else 1.2)

    def with_gradients(loss: Tensor) -> list[Tensor]:
        gradients = {name: p.grad for name, p in ours.named_parameters()}
        return [loss, *_without_rounding(gradients)]

    peers, skipped = against({"diffusers": diffusers})
    with FlopCounterMode(display=False) as counter:
        by(ours, lambda: ours(x_t, t))
    how = ", bfloat16" * half + ", ours compiled" * compiled
    return Case(
        f"U-Net training step, {name}, {batch} images{how}",
        Side(by_ours, with_gradients),
        peers,
        skipped,
        tolerance=0.2 if half else 1e-3,  # of the largest entry of each gradient
        flops=counter.get_total_flops(),
        precision=precision,
        images=batch,
    )


def sampling(place: Place) -> Case:
    """Take the last of 1000 reverse steps: each of them costs the same."""
    name, steps = place.pick("tiny", "small", "base"), place.pick(3, 5, 20)
    batch = place.pick(2, 64, 256)
    ours, peer = pair(place, PRESETS[name])
    schedule = linear_schedule()

    size = batch, 1, SIZE, SIZE
    begin = partial(torch.randn, size, device=place.device)

    def source() -> torch.Generator:
        return torch.Generator(place.device).manual_seed(0)

    def by_ours() -> Tensor:
        generator = source()
        return ddpm_sample(
            schedule,
            ours,
            begin(generator=generator),
            variance="beta_tilde",
            start=steps,
            generator=generator,
        )

    def diffusers() -> Side:
        pipeline = _pipeline(peer, steps)

        def call() -> Tensor:
            return pipeline(batch, source(), 1000, output_type="pt", return_dict=False)[
                0
            ]

        return Side(call, lambda images: [images], goal=1.2)

    def lucidrains() -> Side:
        diffusion = _lucidrains(ours, place)

        def call() -> Tensor:
            with torch.random.fork_rng():
                torch.manual_seed(0)
                x = begin()
                for t in reversed(range(steps)):
                    x, _ = diffusion.p_sample(x, t)
            return x

        return Side(call, lambda x: [_as_image(x)])

    peers, skipped = against(
        {
            "diffusers": diffusers,
            "denoising-diffusion-pytorch": lucidrains,
        }
    )
    with FlopCounterMode(display=False) as counter:
        by_ours()
    return Case(
        f"{steps} of 1000 sampling steps, {name}, {batch} images",
        Side(by_ours, lambda x: [_as_image(x)]),
        peers,
        skipped,
        tolerance=1e-3,
        flops=counter.get_total_flops(),
        images=batch * steps / 1000,
    )


def overhead(place: Place, seconds: float) -> Result:
    """Measure the fraction of sampling time in the network, over many short runs."""
    name, steps = place.pick("tiny", "small", "base"), place.pick(3, 5, 20)
    batch, schedule = place.pick(2, 64, 256), linear_schedule()
    network, inside = UNet(name).to(place.device), []

    def timed(x: Tensor, t: Tensor) -> Tensor:
        inside.append(-clock(place.device))
        found = network(x, t)
        inside[-1] += clock(place.device)
        return found

    def run() -> tuple[float, float]:
        inside.clear()
        begin = clock(place.device)
        x = torch.randn(batch, 1, SIZE, SIZE, device=place.device)
        ddpm_sample(schedule, timed, x, variance="beta_tilde", start=steps)
        return clock(place.device) - begin, sum(inside)

    run()
    end, times = clock(place.device) + seconds, []
    while len(times) < 3 or clock(place.device) < end:
        times.append(run())
    whole, networks = (1000 * statistics.median(x) for x in zip(*times, strict=True))
    ratios = [inner / outer for outer, inner in times]
    return Result(
        f"{steps} of 1000 sampling steps, {name}, {batch} images: share of the network",
        "ms",
        whole,
        {"the-network-alone": Against(networks, ratios, 0.98)},
    )


def _pipeline(peer: nn.Module, steps: int):
    """Return the pipeline of diffusers, for the last steps alone."""
    diffusers = library("diffusers")

    class Last(diffusers.DDPMScheduler):
        def set_timesteps(self, *arguments, **options):
            super().set_timesteps(*arguments, **options)
            self.timesteps = self.timesteps[-steps:]

    pipeline = diffusers.DDPMPipeline(peer, Last(variance_type="fixed_small"))
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _lucidrains(ours: UNet, place: Place):
    """Return the sampler of denoising-diffusion-pytorch with our network."""
    package = library("denoising_diffusion_pytorch")

    class Network(nn.Module):
        channels, out_dim, self_condition = 1, 1, False

        def __init__(self):
            super().__init__()
            self.ours = ours

        def forward(self, x, t, _):
            return self.ours(x, t + 1)  # its steps count from 0

    return package.GaussianDiffusion(
        Network(), image_size=SIZE, objective="pred_noise", beta_schedule="linear"
    ).to(place.device)


def _as_image(x: Tensor) -> Tensor:
    return (x / 2 + 0.5).clamp(0, 1)


def _random(name: str, value: Tensor) -> Tensor:
    """Draw a weight so that every layer matters, and activations keep their size."""
    generator = torch.Generator().manual_seed(len(name))
    if value.ndim > 1:
        spread = value[0].numel() ** -0.5
        return spread * torch.randn(value.shape, generator=generator)
    return value + 0.1 * torch.randn(value.shape, generator=generator)


def _without_rounding(gradients: dict[str, Tensor]) -> list[Tensor]:
    """Leave out the bias of the keys: its gradient is 0 but for rounding."""
    return [gradients[name] for name in sorted(gradients) if "W_K.bias" not in name]
