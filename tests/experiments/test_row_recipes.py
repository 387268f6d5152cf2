"""Recipes for recurrent networks: each option by itself, and that a run resumes."""

from dataclasses import asdict, replace

import pytest
import torch

from dian.data import sample
from dian.diffusion.ema import EMA
from dian.experiments import classification
from dian.experiments.rnn import pixels, pixels_full, row_recipes
from dian.experiments.rnn.gated_layers import GatedClassifier
from dian.experiments.rnn.row_recipes import READS, Settings, network, random_erasing
from dian.rnn.gated import gru_forward, lstm_forward
from dian.rnn.networks import RNNClassifier
from dian.runs.checkpoint import Checkpoint
from dian.runs.experiment import Job

SETTINGS = Settings(h=5, batch_size=21, epochs=3)


@pytest.fixture(scope="module")
def few():
    return tuple(sample(split)[:n] for split, n in (("train", 41), ("test", 23)))


def images(n=3):
    return torch.rand(n, 28, 28, generator=torch.Generator().manual_seed(1))


def test_a_step_reads_what_its_name_says():
    x = images()
    for name, (width, arrange) in READS.items():
        assert arrange(x).shape == (3, 28, width), name
    assert torch.equal(READS["row"][1](x), x)
    both = READS["row and column"][1](x)
    assert torch.equal(both[:, 5, :28], x[:, 5])
    assert torch.equal(both[:, 5, 28:], x[:, :, 5])
    with pytest.raises(ValueError, match="reads must be one of"):
        network(replace(SETTINGS, reads="columns"))


def test_a_recipe_without_options_trains_as_every_classifier_does(few):
    """The network that it wraps has the same losses and metrics."""
    found = row_recipes.run(SETTINGS, few, Job())

    def build(settings, generator):
        return row_recipes.network(settings, generator).classifier

    expected = classification.run(build, SETTINGS, few, Job())
    assert found.losses == expected.losses
    assert found.metrics == expected.metrics


def test_the_average_of_the_weights_is_evaluated_and_recorded(few):
    decay, every = 0.75, []
    averaged = replace(SETTINGS, ema=decay)

    class Watching(Job):
        def follow(self, training, **parts):
            named = training.model.named_parameters
            every.append({name: p.detach().clone() for name, p in named()})
            for step in super().follow(training, **parts):
                every.append({name: p.detach().clone() for name, p in named()})
                yield step

    plain = classification.run(network, SETTINGS, few, Watching())
    ema = EMA(every[0].items(), decay)
    for weights in every[1:]:
        ema.update(weights.items())
    found = row_recipes.run(averaged, few, Job())
    assert found.losses == plain.losses  # the training is not disturbed
    for name, weight in ema.average.items():
        torch.testing.assert_close(found.weights[name], weight)
        assert not torch.equal(found.weights[name], plain.weights[name])
    model = network(SETTINGS, None)
    model.load_state_dict(found.weights)
    test = few[1]
    loss, predicted = classification.evaluate(model, test.unit(), test.labels)
    assert found.metrics["test/loss"] == pytest.approx(loss)
    assert found.arrays["predictions"].tolist() == predicted.tolist()
    assert found.series["test/loss"][-1] != plain.series["test/loss"][-1]


class Interruption(Exception):
    """Somebody ends the process."""


@pytest.mark.parametrize("number", [3, 4])
def test_an_interrupted_run_ends_with_the_same_bits(few, tmp_path, number):
    """In the middle of an epoch, and at its end, where the average was evaluated."""
    settings = replace(SETTINGS, ema=0.75, erasing=0.5)
    whole = row_recipes.run(settings, few, Job())
    checkpoint = Checkpoint(tmp_path / "seed-0.checkpoint", {"seed": 0}, interval_s=0.0)

    def stop(seed, step):
        if step.number == number + 1:
            raise Interruption

    with pytest.raises(Interruption):
        row_recipes.run(settings, few, Job(report=stop, checkpoint=checkpoint))
    resumed = row_recipes.run(settings, few, Job(checkpoint=checkpoint))
    assert resumed.losses == whole.losses
    assert resumed.series == whole.series
    for name, weight in whole.weights.items():
        assert torch.equal(resumed.weights[name], weight)


def test_a_run_that_is_complete_resumes_with_its_average(few, tmp_path):
    settings = replace(SETTINGS, ema=0.75)
    checkpoint = Checkpoint(tmp_path / "seed-0.checkpoint", {"seed": 0}, interval_s=1e9)
    whole = row_recipes.run(settings, few, Job(checkpoint=checkpoint))
    resumed = row_recipes.run(settings, few, Job(checkpoint=checkpoint))
    assert resumed.metrics == whole.metrics
    for name, weight in whole.weights.items():
        assert torch.equal(resumed.weights[name], weight)


def test_what_is_erased_is_a_rectangle_somewhere_in_some_images():
    generator = torch.Generator().manual_seed(0)
    erased = random_erasing(torch.ones(2000, 28, 20), 0.25, generator) == 0
    some = erased.flatten(1).any(1)
    assert some.double().mean().item() == pytest.approx(0.25, abs=0.03)
    rows, columns = erased.any(2), erased.any(1)
    assert torch.equal(rows[:, :, None] & columns[:, None], erased)
    for covered, low, high in ((rows[some], 7, 14), (columns[some], 5, 10)):
        sides = covered.sum(1)
        assert sides.min() == low
        assert sides.max() == high
        # contiguous: it begins once, and ends once
        changes = covered.int().diff(dim=1, prepend=covered[:, :1].int() * 0)
        assert ((changes == 1).sum(1) == 1).all()
        assert covered[:, 0].any()
        assert covered[:, -1].any()
    x = images()
    assert torch.equal(random_erasing(x, 0.0, generator), x)
    kept = random_erasing(x, 1.0, generator)
    assert torch.equal(kept[kept != 0], x[kept != 0])
    with pytest.raises(ValueError, match="rate must be in"):
        random_erasing(x, 1.5, generator)


def test_erasing_is_a_part_of_training_alone(few):
    plain = row_recipes.run(SETTINGS, few, Job())
    erased = row_recipes.run(replace(SETTINGS, erasing=1.0), few, Job())
    assert erased.losses[0] != plain.losses[0]
    before = "predictions_before"
    assert torch.equal(erased.arrays[before], plain.arrays[before])


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_a_gated_layer_computes_what_ours_does(cell):
    generator = torch.Generator().manual_seed(0)
    model = GatedClassifier(cell, 7, 5, 3, generator=generator).double()
    layer = model.layers[0]
    with torch.no_grad():
        for bias in (layer.bias_ih_l0, layer.bias_hh_l0):
            bias += torch.randn(bias.shape, generator=generator, dtype=torch.float64)
    x = torch.randn(2, 11, 7, generator=generator, dtype=torch.float64)
    X, zero = x.transpose(0, 1), torch.zeros(2, 5, dtype=torch.float64)
    W = layer.weight_ih_l0.T, layer.weight_hh_l0.T
    if cell == "lstm":
        bias = layer.bias_ih_l0 + layer.bias_hh_l0
        states = lstm_forward(X, *W, bias, zero, zero).H
    else:
        states = gru_forward(X, *W, layer.bias_ih_l0, layer.bias_hh_l0, zero)
    torch.testing.assert_close(model(x), states[-1] @ model.W_hq + model.b_q)
    model.readout = "mean"
    expected = states[1:].mean(0) @ model.W_hq + model.b_q
    torch.testing.assert_close(model(x), expected)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_each_gate_is_initialized_by_itself(cell):
    generator = torch.Generator().manual_seed(0)
    model = GatedClassifier(
        cell, 7, 5, 3, num_layers=2, bidirectional=True, generator=generator
    )
    n_gate = 4 if cell == "lstm" else 3
    assert [layer.input_size for layer in model.layers] == [7, 10]
    for name, parameter in model.layers.named_parameters():
        for gate, part in enumerate(parameter.detach().chunk(n_gate)):
            if "weight_hh" in name:
                torch.testing.assert_close(part @ part.T, torch.eye(5))
            elif "weight_ih" in name:
                assert part.abs().max() <= (6 / (5 + part.shape[1])) ** 0.5
                assert part.any()
            else:
                forget = (cell, gate) == ("lstm", 1) and "bias_ih" in name
                assert part.tolist() == 5 * [1.0 if forget else 0.0]


def test_the_last_states_of_both_directions_are_read():
    model = GatedClassifier("gru", 7, 5, 3, bidirectional=True)
    x = torch.randn(2, 11, 7, generator=torch.Generator().manual_seed(0))
    states, _ = model.layers[0](x.transpose(0, 1))
    read = torch.cat([states[-1, :, :5], states[0, :, 5:]], -1)
    torch.testing.assert_close(model(x), read @ model.W_hq + model.b_q)


def test_all_time_steps_share_a_mask_of_dropout_in_training_alone():
    options = {"num_layers": 2, "readout": "mean", "dropout": 0.5}
    model = GatedClassifier(
        "gru", 7, 64, 3, **options, generator=torch.Generator().manual_seed(0)
    )
    seen = []
    model.layers[1].register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    x = torch.randn(2, 11, 7, generator=torch.Generator().manual_seed(0))
    trained = model(x)
    zero = seen[0] == 0
    assert torch.equal(zero.any(0), zero.all(0))
    assert 0.3 < zero.double().mean() < 0.7
    assert not torch.equal(model(x), trained)
    model.eval()
    assert torch.equal(model(x), model(x))
    assert not (seen[-1] == 0).any()


def test_the_pixels_are_read_in_the_same_way_by_each_network():
    names = {e.name.removeprefix("rnn-pixels-full-") for e in pixels_full.EXPERIMENTS}
    assert names == {"orthogonal", "identity", "lstm"}
    for experiment in pixels_full.EXPERIMENTS:
        settings = replace(experiment.settings, h=5)
        model = experiment.build(settings, torch.Generator().manual_seed(0))
        logits = model(images())
        flat = images().view(3, 784, 1)
        base = GatedClassifier if settings.cell == "lstm" else RNNClassifier
        torch.testing.assert_close(base.forward(model, flat), logits)
        if settings.cell == "rnn":
            full = pixels.FULL[experiment.name.replace("-full", "")]
            for key in ("activation", "init", "input_scale", "learning_rate"):
                assert getattr(settings, key) == getattr(full, key)


def test_the_best_recipe_is_a_candidate_and_gated_layers_are_as_large():
    chosen = row_recipes.CHOSEN
    assert chosen in row_recipes.CANDIDATES.values()
    reference = asdict(row_recipes.CANDIDATE)
    for name, candidate in row_recipes.CANDIDATES.items():
        settings = asdict(candidate)
        changed = {key for key in settings if settings[key] != reference[key]}
        assert len(changed - {"epochs"}) == (name != "rnn-recipe"), name
        assert candidate.held_out == 10_000
    experiments = {e.name: e for e in row_recipes.EXPERIMENTS}
    sizes = {}
    for cell in ("rnn", "gru", "lstm"):
        settings = experiments[f"{cell}-recipe-best"].settings
        assert settings.held_out == 0
        same = {"held_out": 10_000, "cell": "rnn", "layers": 2}
        assert replace(settings, **same) == chosen
        sizes[cell] = sum(p.numel() for p in network(settings).parameters())
    for cell in ("gru", "lstm"):
        assert 0.7 < sizes[cell] / sizes["rnn"] < 1.4
