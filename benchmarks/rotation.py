"""Rotary embedding of queries and keys; the tables are computed in each call."""

import torch
from torch import Tensor

from benchmarks.cases import Case, Place, Side, against, library
from dian.positions.rotary import RotaryEmbedding, half_split_order, rotate
from dian.positions.sinusoidal import frequencies


def queries_and_keys(place: Place, layout: str = "interleaved") -> Case:
    """Ours in one of its layouts; the others in the layout that they have."""
    shape = place.pick((2, 3, 5, 14), (4, 8, 1024, 64), (16, 16, 4096, 128))
    d, n = shape[-1], shape[-2]
    q, k = place.normal(*shape), place.normal(*shape, seed=1)
    omega = frequencies(d)
    order = half_split_order(d).to(place.device)
    of_halves = (q, k) if layout == "half" else (q[..., order], k[..., order])
    of_pairs = (q[..., order.argsort()], k[..., order.argsort()])
    of_pairs = (q, k) if layout == "interleaved" else of_pairs
    positions = torch.arange(n, device=place.device).expand(shape[0], -1)

    def from_halves(found: tuple[Tensor, Tensor]) -> list[Tensor]:
        back = slice(None) if layout == "half" else order.argsort()
        return [x[..., back] for x in found]

    def llama(tables_given: bool) -> Side:
        transformers = library("transformers")
        llama = library("transformers.models.llama.modeling_llama")
        heads = shape[1]
        config = transformers.LlamaConfig(
            hidden_size=heads * d, num_attention_heads=heads, head_dim=d
        )
        tables = llama.LlamaRotaryEmbedding(config).to(place.device)
        kept = tables(q, positions)

        def call():
            cos, sin = kept if tables_given else tables(q, positions)
            return llama.apply_rotary_pos_emb(*of_halves, cos, sin)

        return Side(call, from_halves, None if tables_given else GOALS[layout])

    def lucidrains() -> Side:
        module = library("rotary_embedding_torch").RotaryEmbedding(d)
        module = module.to(place.device)
        turn = module.rotate_queries_or_keys
        back = slice(None) if layout == "interleaved" else order
        return Side(
            lambda: [turn(x) for x in of_pairs],
            lambda found: [x.detach()[..., back] for x in found],
            14.0 if layout == "interleaved" else None,
        )

    peers, skipped = against(
        {
            "transformers": lambda: llama(tables_given=False),
            "transformers-tables-given": lambda: llama(tables_given=True),
            "rotary-embedding-torch": lucidrains,
        }
    )
    return Case(
        f"rotary encoding of queries and keys {shape}, layout of {layout}",
        Side(lambda: [rotate(x, omega, layout=layout) for x in (q, k)]),
        peers,
        skipped,
        tolerance=1e-3,  # the angles of the peers are float32
        moved=2 * 2 * q.nbytes,
    )


def in_place(place: Place) -> Case:
    """Without new memory, beside a copy into memory that is there already."""
    shape = place.pick((2, 3, 5, 14), (4, 8, 1024, 64), (16, 16, 4096, 128))
    q, k = place.normal(*shape), place.normal(*shape, seed=1)
    copies = torch.empty_like(q), torch.empty_like(k)
    rotary = RotaryEmbedding(shape[-1], inplace=True)

    def copy() -> list[Tensor]:
        return [to.copy_(x) for to, x in zip(copies, (q, k), strict=True)]

    return Case(
        f"rotary encoding of queries and keys {shape}, in place",
        Side(lambda: rotary(q, k)),
        {"a-copy": Side(copy, view=None, goal=1 / 1.3)},
        moved=2 * 2 * q.nbytes,
    )


GOALS = {"interleaved": 12.0, "half": None}
