"""Networks of other libraries with the weights of ours, for tests and benchmarks."""

import re

from torch import Tensor, nn

from dian.diffusion.unet import UNetConfig

# The U-Net of diffusers


def diffusers_unet(config: UNetConfig) -> nn.Module:
    """Build the ``UNet2DModel`` of diffusers with the architecture of ours.

    Its output at timestep t - 1 is ours at t, since it counts timesteps from 0.
    """
    from diffusers import UNet2DModel

    def blocks(way: str) -> tuple[str, ...]:
        return tuple(
            f"{'Attn' if level in config.attention else ''}{way}Block2D"
            for level in range(len(config.multipliers))
        )

    return UNet2DModel(
        sample_size=28,  # of the images that its pipeline samples
        in_channels=config.channels,
        out_channels=config.channels,
        block_out_channels=tuple(config.width * m for m in config.multipliers),
        layers_per_block=config.blocks,
        down_block_types=blocks("Down"),
        up_block_types=blocks("Up")[::-1],
        norm_num_groups=config.groups,
        attention_head_dim=None,  # a single head
        norm_eps=1e-6,
        downsample_padding=0,
        flip_sin_to_cos=False,  # all sines come before all cosines
        freq_shift=1,  # the last frequency is 1/10000
        act_fn="silu",
    )


def from_diffusers(state: dict[str, Tensor], config: UNetConfig) -> dict[str, Tensor]:
    """Rename the weights, or their gradients, to those of :class:`dian`'s U-Net.

    Only the columns of the layer that reads the timestep embedding are permuted: sine
    and cosine of one frequency are neighbors here.
    """
    renamed = {_renamed(name, config): weight for name, weight in state.items()}
    halves = renamed["time_1.weight"]
    renamed["time_1.weight"] = halves.unflatten(1, (2, -1)).transpose(1, 2).flatten(1)
    return renamed


def _renamed(name: str, config: UNetConfig) -> str:
    def layer(found: re.Match) -> str:
        way, level, kind, n = found[1], int(found[2]), found[3], int(found[4])
        before = level * (config.blocks + (1 if way == "down" else 2))
        if kind.endswith("samplers"):
            return f"{way}.{before + config.blocks + (way == 'up')}"
        return f"{way}.{before + n}" + (".attention" if kind == "attentions" else "")

    name = re.sub(r"(down|up)_blocks\.(\d+)\.(\w+)\.(\d+)", layer, name)
    for pattern, ours in _DIFFUSERS_NAMES.items():
        name = re.sub(pattern, ours, name)
    return name


_DIFFUSERS_NAMES = {
    r"^mid_block\.resnets": "middle",
    r"^mid_block\.attentions\.0": "middle.0.attention",
    r"^conv_in": "first",
    r"^conv_norm_out": "norm",
    r"^conv_out": "last",
    r"^time_embedding\.linear_": "time_",
    r"time_emb_proj": "time",
    r"conv_shortcut": "shortcut",
    r"(norm|conv)(1|2)": r"\1_\2",
    r"group_norm": "norm",
    r"to_q": "W_Q",
    r"to_k": "W_K",
    r"to_v": "W_V",
    r"to_out\.0": "W_O",
}
