"""What an outsider handed in, and the check got wrong."""

import math

import pytest
import torch
from torch import nn

from dian.__main__ import main
from dian.check import check, diagnosis, parametrize_with_checks
from dian.check.folder import check_folder, print_table
from dian.check.runner import check_in_process


@pytest.fixture(autouse=True)
def without_pairs(monkeypatch):
    monkeypatch.setattr(diagnosis, "PAIRS_SECONDS", 0)


def clip(gradients, max_norm):
    norm = torch.sqrt(sum(g.square().sum() for g in gradients))
    return [g * min(1.0, max_norm / norm) if norm else g for g in gradients]


def clip_and_norm(gradients, max_norm):
    return clip(gradients, max_norm), torch.tensor(1.0)


def clip_generator(gradients, max_norm):
    return (g for g in clip(gradients, max_norm))


def rotary(x, positions, base):
    angles = positions[:, None] / base ** (
        torch.arange(0, x.shape[-1], 2) / x.shape[-1]
    )
    a, b, c, s = *x.chunk(2, -1), angles.cos(), angles.sin()
    return torch.cat((a * c - b * s, b * c + a * s), -1)


def causal_mask(n, m):
    return torch.ones(n, m).tril(m - n).bool()


def keras_loss(y_true, y_pred):
    return -(y_true * y_pred.log_softmax(-1)).sum(-1).mean()


def biases(n, n_head):
    slopes = 2.0 ** (-8 * torch.arange(1, n_head + 1) / n_head)
    i = torch.arange(n)
    return (-(i[:, None] - i).abs() * slopes[:, None, None])[None]


def additive(Q, K, V, attention_mask):
    scores = Q @ K.mT / math.sqrt(Q.shape[-1]) + attention_mask
    return scores.softmax(-1) @ V


def lists(Q, K, V):
    return torch.nn.functional.scaled_dot_product_attention(Q, K, V).tolist()


class Heads(nn.Module):
    """The order of the arguments of the Annotated Transformer, and its mask."""

    def __init__(self, h, d_model):
        super().__init__()
        self.h = h
        self.linears = nn.ModuleList(nn.Linear(d_model, d_model) for _ in range(4))

    def forward(self, query, key, value, mask=None):
        q, k, v = (
            layer(x).unflatten(-1, (self.h, -1)).transpose(1, 2)
            for layer, x in zip(self.linears, (query, key, value), strict=False)
        )
        scores = q @ k.mT / math.sqrt(q.shape[-1])
        if mask is not None:
            scores = scores.masked_fill(mask.unsqueeze(1) == 0, -1e9)
        return self.linears[3]((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))


class Rotary(nn.Module):
    def forward(self, x, positions):
        return rotary(x, positions, 10_000)


@pytest.mark.parametrize(
    ("kind", "function"),
    [
        ("clip", clip_and_norm),
        ("clip", clip_generator),
        ("rotary", rotary),
        ("rotary", Rotary()),
        ("causal-mask", causal_mask),
        ("cross-entropy", keras_loss),
        ("alibi", biases),
        ("attention", additive),
        ("attention", lists),
        ("multi-head", Heads),
    ],
)
def test_right(kind, function):
    report = check(kind, function)
    assert report.passed, report


def test_method_of_a_class():
    class Mine:
        def rotary(self, x, positions):
            return x

    report = check("rotary", Mine.rotary)
    assert report.status == 2
    assert report.fault.startswith("is a method without its object")


def test_wrong_in_single_precision():
    def function(x, positions):
        found = rotary(x, positions, 10_000)
        return found if x.dtype == torch.float64 else found.roll(1, -1)

    (note,) = check("rotary", function).notes
    assert "not in float32" in note


def test_weights_that_cannot_be_mapped():
    class Joint(nn.Module):
        def __init__(self, d, h):
            super().__init__()
            self.both = nn.Linear(d + h, h)

        def forward(self, X, h0):
            raise NotImplementedError

    assert check("rnn", Joint).fault.startswith("cannot map its parameter both.weight")


def test_callable_that_has_no_hash():
    class Clip:
        __hash__ = None

        def __call__(self, gradients, max_norm):
            return clip(gradients, max_norm)

    mark = parametrize_with_checks("clip", Clip())
    for case in mark.args[1]:
        case()


PATCHES = "import dian.check.checker as c\nc.residual = lambda *a: 0.0\n"
WRONG = "def clip(gradients, max_norm):\n    return gradients\n"


def test_replaces_a_part_of_the_check(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(PATCHES + WRONG)
    report = check_in_process("clip", f"{file}:clip")
    assert report.status == 2
    assert "replaces dian.check.checker.residual" in report.fault


def test_another_device_by_default(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("import torch\ntorch.set_default_device('meta')\n" + WRONG)
    assert check_in_process("clip", f"{file}:clip").mistakes == ["nothing is clipped"]


@pytest.mark.parametrize(
    "wrong", [["clipp", "a:b"], ["clip", "a"], ["clip", "a:b", "x"]]
)
def test_status_of_a_wrong_command(wrong, monkeypatch, capsys):
    kind, target, *arrays = wrong
    options = [f"--arrays={arrays[0]}"] if arrays else []
    monkeypatch.setattr("sys.argv", ["dian", "check", kind, target, *options])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2


def test_names_that_are_assigned(tmp_path, capsys):
    (tmp_path / "a.py").write_text(WRONG.replace("clip", "cut") + "clip = cut\n")
    (tmp_path / "b.py").write_text("def clip(g, m): raise ValueError('[/a] [mask]')\n")
    rows = list(check_folder(tmp_path))
    assert [row.kind for row in rows] == ["clip", "clip"]
    print_table(iter(rows))
    assert "[/a]" in capsys.readouterr().out
