"""Make the files for the browser: ``python -m dian_sphinx.live.make``.

This is a process of its own, because that of Sphinx must not import torch.
"""

import json
from importlib import import_module

import torch

from dian_sphinx.live import kept


def made(piece: kept.Piece) -> bytes:
    """Make one file."""
    module = import_module(f"{__package__}.{piece.module}")
    content = getattr(module, piece.function)(*piece.arguments)
    if isinstance(content, dict):
        content = json.dumps(content)
    return content.encode() if isinstance(content, str) else content


def main() -> None:
    """Make the files that are missing or out of date, and remove those of no use."""
    torch.set_num_threads(1)
    folder, store = kept.KEPT, kept.KEPT / kept.KEYS
    folder.mkdir(parents=True, exist_ok=True)
    wanted, there = kept.keys(), kept.kept_keys()
    for name, piece in kept.pieces().items():
        if there.get(name) != wanted[name]:
            (folder / name).write_bytes(made(piece))
            # After each file, so that an interrupted build loses one file at most.
            there[name] = wanted[name]
            store.write_text(json.dumps(there, indent=1, sort_keys=True), "utf-8")
    for path in folder.iterdir():
        if path.name not in wanted and path != store:
            path.unlink()


if __name__ == "__main__":
    main()
