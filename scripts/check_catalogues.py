#!/usr/bin/env python3
"""Check that each translated message says the same as the English one.

``python scripts/check_catalogues.py locale/zh_CN`` parses every message and its
translation with the parsers that Sphinx uses, and compares what no translation may
change: roles with their targets, formulas, code, links, numbers, emphasis and
placeholders. It also names what looks like mark-up but is not read as such, of which
Sphinx says nothing, and a translation in which nothing is Chinese. Names of catalogues,
such as ``rnn gallery/1_rnn/plot_1_forward``, restrict the check to these.

It prints one line for each problem, and for each catalogue how many messages are
translated, fuzzy or missing. The status is 1 if there is a problem, or if a catalogue
is not complete. ``whole.txt`` must list every catalogue, and those of the extensions,
the scripts and the claims must have an entry for each message that
:mod:`own_messages` finds: no page would miss it.
"""

import argparse
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from babel.messages.catalog import Message
from babel.messages.pofile import read_po

import own_messages
from catalogue_readers import HAN, Content, in_myst, in_program, in_rest

ROOT = Path(__file__).parents[1]
Reader = Callable[[str, bool], Content]
"""A function of a message, and of whether it is a translation."""
PLAIN = {"dian", "scripts", "sphinx"}
"""Catalogues of programs, whose messages are text with placeholders."""
IN_MYST = {"claims"}
"""Catalogues in MyST that are not those of a page in docs/."""
WORD = re.compile(r"[A-Za-z][A-Za-z-]+")
NAME = re.compile(
    "Adam|AdamW|ALiBi|BPTT|DDIM|DDPM|ELBO|FID|FlashAttention|GQA|GroupNorm|GRU|KID|"
    "LayerNorm|LSTM|MLP|MQA|NLL|NoPE|RNN|RoPE|SGD|SiLU|SNR|SVM|Swish|Transformer|U-Net|"
    "Xavier|YaRN|log-sum-exp|logits|softmax|tanh"
)
"""The words of a translation without Chinese: these have no Chinese name."""
SHAPE = re.compile(r"(?:(?:, |、|^)\([\w…]+(?:, [\w…]+)*\))+")
"""Shapes of tensors, such as ``(batch, q)、(batch, h)``."""

# --- What is compared -----------------------------------------------------------------


def reader(catalogue: str, docs: Path) -> Reader:
    """Return the parser for a catalogue."""
    if catalogue in PLAIN:
        return in_program
    is_myst = catalogue in IN_MYST or (docs / f"{catalogue}.md").is_file()
    return in_myst if is_myst else in_rest


def differences(message: str, translation: str, read: Reader) -> Iterator[str]:
    """Name the parts in which a translation differs from its message.

    >>> list(differences("See {eq}`a`, 2 %.", "见 {eq}`b`。", in_myst))
    ["role {eq} lost: 'a'", "number lost: '2%'", "role {eq} added: 'b'"]
    """
    if not translation.strip():
        yield "the translation is blank"
        return
    english, chinese = read(message, False), read(translation, True)
    is_chinese = re.search(HAN, chinese.words) or is_kept(translation, chinese)
    if WORD.search(english.words) and not is_chinese:
        yield "nothing of it is in Chinese"
    ours, theirs = english.parts, chinese.parts
    for verb, parts in (("lost", ours - theirs), ("added", theirs - ours)):
        for (kind, what), n in parts.items():
            yield f"{kind} {verb}: {what!r}" + (f" ({n} times)" if n > 1 else "")


def is_kept(translation: str, read: Content) -> bool:
    """Tell whether a translation without Chinese is right, as a name is.

    >>> is_kept("The LSTM", in_myst("The LSTM", True)), is_kept("(batch, q)", Content())
    (False, True)
    """
    words = WORD.findall(read.words)
    has_value = any(kind == "placeholder" for kind, _ in read.parts)
    are_names = all(map(NAME.fullmatch, words)) and bool(words or has_value)
    return are_names or bool(SHAPE.fullmatch(translation))


def state(message: Message) -> str:
    """Tell how far a message is translated."""
    return "fuzzy" if message.fuzzy else "done" if message.string else "missing"


def check(file: Path, catalogue: str, docs: Path) -> tuple[Counter[str], list[str]]:
    """Count the states of the messages of a catalogue, and list its problems."""
    read, count, problems = reader(catalogue, docs), Counter(), []
    with file.open("rb") as source:
        found = read_po(source)
    for message in filter(lambda one: one.id, found):
        count[state(message)] += 1
        if state(message) == "done":
            line = f"{file}:{message.lineno}"
            for problem in differences(message.id, message.string, read):
                problems.append(f"{line}: {problem}\n    {message.string[:70]}")
    return count, problems


def without_entry(file: Path, messages: Iterable[str]) -> Iterator[str]:
    """Name the messages of programs and claims that a catalogue does not have yet."""
    with file.open("rb") as source:
        entries = {message.id for message in read_po(source)}
    for message in sorted(set(messages) - entries):
        yield f"{file}: no entry for {message[:70]!r}; run make translate"


def main() -> int:
    """Check the catalogues of a language."""
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("language", type=Path, help="a folder such as locale/zh_CN")
    options.add_argument("names", nargs="*", help="catalogues; without one, all")
    options.add_argument("--docs", type=Path, default=ROOT / "docs")
    options.add_argument("--quiet", action="store_true", help="only sums and problems")
    given = options.parse_args()
    root = given.language / "LC_MESSAGES"
    whole = set((given.language / "whole.txt").read_text("utf-8").split())
    own = own_messages.collected()
    total, problems, incomplete = Counter(), [], []
    for file in sorted(root.rglob("*.po")):
        name = file.relative_to(root).with_suffix("").as_posix()
        if given.names and name not in given.names:
            continue
        count, found = check(file, name, given.docs)
        total, problems = total + count, problems + found
        if name in own:
            problems += without_entry(file, own[name])
        if name not in whole:
            problems.append(f"{file}: not listed in whole.txt")
        elif count["done"] < count.total():
            incomplete.append(name)
        if not given.quiet:
            rest = f"{count['fuzzy']} fuzzy" + ", whole" * (name in whole)
            print(f"{name:48} {count['done']:4} of {count.total():4}, {rest}")
    print("\n".join(problems + [f"{name} is listed as whole" for name in incomplete]))
    print(
        f"{total['done']} of {total.total()} messages translated, "
        f"{total['fuzzy']} fuzzy; {len(problems)} problems"
    )
    return 1 if problems or incomplete or not total else 0


if __name__ == "__main__":
    sys.exit(main())
