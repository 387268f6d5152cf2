"""The experiments beyond the training length: their tasks, and that they run."""

import math
from dataclasses import asdict, replace

import pytest
import torch

from dian.claims import Mutant
from dian.claims.verify import installed, load_mutant
from dian.experiments.positions import extrapolation
from dian.experiments.positions.extrapolation import (
    FACTORS,
    N_TOKEN,
    Settings,
    make_data,
    make_sequences,
)
from dian.positions.registry import ENCODINGS
from dian.runs.experiment import Job, experiments

EXPERIMENTS = {e.name: e for e in extrapolation.EXPERIMENTS}


def few(settings, n_train=41, n_test=7):
    train, test = make_data(settings, quick=False)
    return train.first(n_train), test.first(n_test)


SMALL = {"length": 11, "d_model": 8, "n_head": 2, "batch_size": 21}


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_it_runs_in_both_types_of_numbers(name):
    settings = replace(EXPERIMENTS[name].settings, **SMALL)
    for dtype in (torch.float32, torch.float64):
        outcome = extrapolation.run(settings, few(settings), Job(dtype=dtype))
        assert len(outcome.losses) == 2
        assert all(w.dtype == dtype for w in outcome.weights.values())
        methods = {"plain"}
        if settings.encoding == "rotary":
            methods |= {"interpolated", "ntk", "yarn"}
        assert set(outcome.arrays) == methods
        for method in methods:
            assert outcome.arrays[method].shape == (8 * 11,)
            assert {f"{method}/accuracy/{f}" for f in FACTORS} <= set(outcome.metrics)


def test_all_encodings_and_both_tasks():
    names = {f"{task}-{way}" for task in ("offset", "latest") for way in ENCODINGS}
    assert set(EXPERIMENTS) == names
    assert names <= set(experiments())
    for name, experiment in EXPERIMENTS.items():
        full, quick = asdict(experiment.settings), asdict(experiment.quick)
        assert {key for key in full if full[key] != quick[key]} == {"length"}
        assert name == f"{full['task']}-{full['encoding']}"


def test_the_tasks_by_loops(generator):
    offset = make_sequences("offset", 3, 17, 2, generator)
    for text, answers, asked in zip(
        offset.tokens, offset.answers, offset.asked, strict=True
    ):
        assert asked.tolist() == [False] * 2 + [True] * 15
        for p in range(2, 17):
            assert answers[p] == text[p - 2]
    latest = make_sequences("latest", 3, 50, 2, generator)
    for text, answers, asked in zip(
        latest.tokens.tolist(), latest.answers, latest.asked, strict=True
    ):
        last = None
        for p, token in enumerate(text):
            last = token - N_TOKEN if token >= N_TOKEN else last
            assert asked[p] == (last is not None)
            if last is not None:
                assert answers[p] == last


@pytest.mark.parametrize("name", ["offset-rotary", "latest-learned"])
def test_a_seed_decides_everything(name):
    settings = replace(EXPERIMENTS[name].settings, **SMALL)
    data = few(settings)
    runs = [extrapolation.run(settings, data, Job(s)).losses for s in (0, 0, 1)]
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]
    assert torch.equal(data[0].tokens, few(settings)[0].tokens)  # of no seed


def test_a_perfect_model_is_right_everywhere_and_ranges_are_kept_apart():
    settings = replace(Settings("offset", "none"), **SMALL)
    _, test = few(settings)

    class Perfect(torch.nn.Module):
        def forward(self, tokens):
            return torch.nn.functional.one_hot(tokens.roll(3, 1), N_TOKEN).float()

    outcome = extrapolation.Outcome()
    extrapolation.evaluate(Perfect(), test, settings, outcome)
    assert [outcome.metrics[f"plain/accuracy/{f}"] for f in FACTORS] == [1, 1, 1, 1]
    wrong = test._replace(answers=test.answers.clone())
    wrong.answers[:, 2 * 11 :] += 1  # from twice the length on
    extrapolation.evaluate(Perfect(), wrong, settings, outcome)
    assert [outcome.metrics[f"plain/accuracy/{f}"] for f in FACTORS] == [1, 1, 0, 0]
    assert outcome.arrays["plain"][3:22].min() == 1
    assert outcome.arrays["plain"][22:].max() == 0


def test_a_rotary_network_is_scaled_only_after_its_weights_are_kept():
    settings = replace(EXPERIMENTS["offset-rotary"].settings, **SMALL)
    outcome = extrapolation.run(settings, few(settings), Job())
    plain, ntk = outcome.arrays["plain"], outcome.arrays["ntk"]
    assert torch.equal(plain[:11], ntk[:11])  # a factor of 1 scales nothing
    again = extrapolation.network(settings, torch.Generator())
    again.load_state_dict(outcome.weights)
    hits, asked = extrapolation.hits_by_position(again, few(settings)[1], 88)
    share = hits.sum(0) / asked.sum(0).clamp(min=1)
    assert torch.equal(share[:22], plain[:22])


def test_hits_are_those_of_single_sequences_whatever_the_batch():
    settings = replace(EXPERIMENTS["latest-rotary"].settings, **SMALL)
    _, test = few(settings, n_test=7)
    model = extrapolation.network(settings, torch.Generator().manual_seed(0))
    one_by_one = torch.stack(
        [model(tokens[None, :50])[0].argmax(1) for tokens in test.tokens]
    )
    expected = (one_by_one == test.answers[:, :50]) & test.asked[:, :50]
    assert 0 < expected.sum() < test.asked[:, :50].sum()
    for batch_size in (1, 3, 10):  # several batches, the last one smaller; and one
        hits, asked = extrapolation.hits_by_position(model, test, 50, batch_size)
        assert torch.equal(hits, expected)
        assert torch.equal(asked, test.asked[:, :50])


def used_frequencies(settings):
    """Return by what each method rotates the heads, and scales them, at each length."""
    model, used = extrapolation.network(settings, torch.Generator()), []

    def hits_by_position(model, test, length):
        rotaries = [layer.attention.rotate.__self__ for layer in model.encoder.layers]
        used.append([(r.omega.tolist(), r.attention_factor) for r in rotaries])
        return torch.ones(2, 1, length)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(extrapolation, "hits_by_position", hits_by_position)
        _, test = few(settings)
        extrapolation.evaluate(model, test, settings, extrapolation.Outcome())
    return used


def wanted_frequencies(settings):
    """The same from the formulas, with the settings of the run."""
    d, L, fast = settings.d_model // settings.n_head, settings.length, settings.fast
    wanted = []
    for method in ("plain", "interpolated", "ntk", "yarn"):
        for s in FACTORS:
            frequencies, scale = [], 1.0
            for i in range(d // 2):
                omega = 10_000 ** (-2 * i / d)
                turns = L * omega / (2 * math.pi)
                kept = min(max((turns - 1) / (fast - 1), 0), 1)
                frequencies.append(
                    {
                        "plain": omega,
                        "interpolated": omega / s,
                        "ntk": (10_000 * s ** (d / (d - 2))) ** (-2 * i / d),
                        "yarn": omega * (kept + (1 - kept) / s),
                    }[method]
                )
            if method == "yarn":
                scale = 0.1 * math.log(s) + 1
            wanted.append([(frequencies, scale)] * settings.n_layer)
    return wanted


def apart(settings):
    """How far the frequencies and scales are from those of the formulas, relatively."""
    found, wanted = used_frequencies(settings), wanted_frequencies(settings)
    largest = 0.0
    for of_length, expected in zip(found, wanted, strict=True):
        for (a, scale), (b, right) in zip(of_length, expected, strict=True):
            ratios = [x / y for x, y in zip(a, b, strict=True)] + [scale / right]
            largest = max(largest, *(abs(ratio - 1) for ratio in ratios))
    return largest


@pytest.mark.parametrize("task", ["offset", "latest"])
def test_each_method_rotates_by_its_frequencies_with_the_settings_of_the_run(task):
    settings = EXPERIMENTS[f"{task}-rotary"].settings
    assert settings.fast == 8
    assert apart(settings) < 1e-12


@pytest.mark.parametrize(
    ("at", "old", "new"),
    [
        ("evaluate", "settings.fast", "32.0"),
        ("evaluate", "frequencies(settings.d_model // settings.n_head)",
         "frequencies(settings.d_model)[: settings.d_model // settings.n_head // 2]"),
        ("evaluate", "yarn_attention_factor(float(factor)) if name == 'yarn' else 1.0",
         "1.0"),
        ("evaluate", "method(omega, float(factor))", "method(omega, 2.0)"),
        ("evaluate", "original_max_positions=settings.length",
         "original_max_positions=8 * settings.length"),
        ("set_rope_frequencies", "omega=omega", "base=10_000.0"),
        ("set_rope_frequencies", "model.encoder.layers", "model.encoder.layers[:1]"),
    ],
)  # fmt: skip
def test_a_mutant_of_the_methods_is_seen(at, old, new):
    # a keyword is matched with its call
    calls = {
        "original_max_positions=settings.length": (
            "partial(yarn, original_max_positions=settings.length, "
            "beta_fast=settings.fast)"
        ),
        "omega=omega": (
            "RotaryEmbedding(2 * len(omega), omega=omega, attention_factor=factor)"
        ),
    }
    whole = calls.get(old, old)
    mutant = Mutant("a mutant", at, whole, whole.replace(old, new))
    with installed(load_mutant(extrapolation.__name__, mutant)):
        assert apart(EXPERIMENTS["offset-rotary"].settings) > 1e-3
