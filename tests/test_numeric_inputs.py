"""Every function of the library on every kind of number: it works, or it says no.

The functions are found in the modules: a new one without an example fails the test.
``python -m tests.test_numeric_inputs`` prints the table.
"""

import functools
import importlib
import inspect
import itertools
import linecache
import math
import pkgutil
import types
from dataclasses import is_dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import dian
from dian.attention import (
    blockwise,
    dot_product,
    encoder_layer,
    layer_norm,
    multi_head,
    transformer,
)
from dian.diffusion import (
    ema,
    feature_network,
    gaussian_mixture,
    guidance,
    learned_variance,
    likelihood,
    process,
    sample_metrics,
    sampling,
    unet,
)
from dian.diffusion.posterior import optimal_variance
from dian.diffusion.schedule import NoiseSchedule, linear_schedule
from dian.positions import alibi, learned, rotary, sinusoidal
from dian.rnn import gated, networks, recurrence
from dian.training import clipping, metrics, optimizers, schedules

PACKAGES = ("rnn", "positions", "attention", "diffusion", "training")
SMALL = {"float16": torch.float16, "bfloat16": torch.bfloat16}
KINDS = (*SMALL, "float64", "non-contiguous", "zero-size", "NaN", "infinity", "2.5")
SCHEDULE = linear_schedule(10, 0.01, 0.5)


class Draw:
    """Float64 examples from a seed of their own, and a batch of ``n`` items."""

    def __init__(self, n: int):
        self.n, self.generator = n, torch.Generator().manual_seed(0)

    def __call__(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.generator, dtype=torch.float64)

    def fraction(self, *shape: int) -> Tensor:
        draws = torch.rand(*shape, generator=self.generator, dtype=torch.float64)
        return 0.1 + 0.8 * draws

    def classes(self, n_class: int) -> Tensor:
        return torch.arange(self.n) % n_class

    def steps(self) -> Tensor:
        return 1 + 3 * torch.arange(self.n)

    def layer(self, make, *args, **kwargs) -> nn.Module:
        return make(*args, generator=self.generator, **kwargs).double().eval()


def heads(r):
    return r(r.n, 2, 5, 4), r(r.n, 2, 7, 4), r(r.n, 2, 7, 6)


def unrolled(r):
    H = 5
    return r(4, r.n, 3), r(3, H), r(H, H) / 3, r(H), r(r.n, H)


def lstm(r):
    return r(4, r.n, 3), r(3, 20), r(5, 20) / 3, r(20), r(r.n, 5), r(r.n, 5)


def projections(r):
    W, b = (r(8, 8) / 3 for _ in range(4)), (r(8) for _ in range(4))
    return multi_head.Projections(*W, *b)


def normalized(r):
    return layer_norm.Normalized(r(r.n, 5, 8), r.fraction(r.n, 5, 1))


def attended(r):
    of_heads = (r(r.n, 2, 5, 4) for _ in range(3))
    return multi_head.Intermediates(
        *of_heads, r(r.n, 2, 5, 5).softmax(-1), r(r.n, 5, 8)
    )


def encoder_weights(r):
    feed_forward = r(8, 6) / 3, r(6), r(6, 8) / 3, r(8)
    norms = (r(8) for _ in range(4))
    return encoder_layer.EncoderLayerWeights(projections(r), *norms, *feed_forward)


def mixture_at(r):
    return gaussian_mixture.ring(4), r(r.n, 2), r.fraction(r.n)


def images(r):
    return r.fraction(r.n, 2, 3), r.steps(), r(r.n, 2, 3)


def bound(r):
    nats = [r.fraction(r.n)] + [r.fraction(4, r.n) for _ in range(2)]
    return likelihood.Bound(*nats)


def probabilities(r):
    return r(r.n, 4).softmax(-1), r.classes(4)


def zeros(x, t):
    return torch.zeros_like(x)


def zeros_with_variance(x, t):
    return torch.zeros_like(x), 0.5 * torch.ones_like(x)


def negative_without_class(x, t, y):
    return torch.where((y == 4)[:, None], -x, x)


def clipped(*gradients):
    parameters = [nn.Parameter(torch.zeros_like(g)) for g in gradients]
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient.clone()
    return clipping.clip_by_norm(parameters, 0.5), [p.grad for p in parameters]


def averaged(*values):
    average = ema.EMA([("w", values[0])], 0.9)
    for value in values[1:]:
        average.update([("w", value)])
    return average.average["w"]


def counted(*labels):
    total = metrics.ConfusionMatrix(4)
    for each in labels:
        total.update(target=each, preds=each)
    return total.counts


def attention_with_gradients(function, r):
    def call(Q, K, V, bias):
        inputs = [x.detach().clone().requires_grad_() for x in (Q, K, V, bias)]
        output = function(*inputs[:3], bias=inputs[3])
        # Of a loss that is not linear, so that the gradient depends on the output.
        return output, torch.autograd.grad(output.sum(), inputs)

    return call, (*heads(r), r(r.n, 2, 5, 7))


def rnn_with_gradients(*inputs):
    inputs = [x.detach().clone().requires_grad_() for x in inputs]
    outputs = recurrence.rnn(*inputs)
    return outputs, torch.autograd.grad(sum(x.sum() for x in outputs), inputs)


# Each example gives the arguments, or a call of the function and the arguments.
EXAMPLES = {
    "rnn.initialization.uniform_": lambda r: (r(3, 4), r.generator),
    "rnn.initialization.xavier_": lambda r: (r(3, 4), 1.5, r.generator),
    "rnn.initialization.gaussian_": lambda r: (r(3, 4), 1.5, r.generator),
    "rnn.initialization.orthogonal_": lambda r: (r(3, 4), 1.5, r.generator),
    "rnn.initialization.identity_": lambda r: (r(3, 4), 1.5),
    "rnn.gated.lstm_forward": lstm,
    "rnn.gated.lstm_backward": lambda r: (
        r(4, r.n, 5),
        lstm(r)[0],
        gated.LSTMStates(r(5, r.n, 5), r(5, r.n, 5), r.fraction(4, r.n, 20)),
        *lstm(r)[1:3],
    ),
    "rnn.gated.cell_jacobian": lambda r: (
        gated.LSTMStates(r(5, r.n, 5), r(5, r.n, 5), r.fraction(4, r.n, 20)),
        r(5, 20),
    ),
    "rnn.gated.gru_forward": lambda r: (
        r(4, r.n, 3),
        r(3, 15),
        r(5, 15) / 3,
        r(15),
        r(15),
        r(r.n, 5),
    ),
    "rnn.networks.as_sequence": lambda r: (r(r.n, 4, 6), 3),
    "rnn.networks.time_first": lambda r: (r(r.n, 4, 6), 6),
    "rnn.recurrence.rnn_forward": unrolled,
    "rnn.recurrence.rnn_backward": lambda r: (
        r(4, r.n, 5),
        None,
        r(4, r.n, 3),
        r(5, r.n, 5),
        r(3, 5),
        r(5, 5),
    ),
    "rnn.recurrence.output_forward": lambda r: (r(r.n, 5), r(5, 2), r(2)),
    "rnn.recurrence.output_backward": lambda r: (r(r.n, 2), r(r.n, 5), r(5, 2)),
    "rnn.recurrence.rnn": lambda r: (rnn_with_gradients, unrolled(r)),
    "rnn.recurrence.state_at_end": lambda r: (r(9, r.n, 5), r.steps()),
    "rnn.vanishing.jacobian": lambda r: (r.fraction(r.n, 5), r(5, 5)),
    "rnn.vanishing.gradient_by_lag": lambda r: (
        r(r.n, 5),
        r.fraction(4, r.n, 5),
        r(5, 5),
    ),
    "rnn.truncated.gradient_terms": lambda r: (
        r(r.n, 5),
        r.fraction(4, r.n, 5),
        r(5, r.n, 5),
        r(5, 5),
    ),
    "rnn.vanishing.lag_bounds": lambda r: (r.fraction(r.n, 5), r(5, 5), 1.0),
    "rnn.truncated.truncation_bound": lambda r: (
        r(r.n, 5),
        r(6, r.n, 5),
        r(5, 5),
        2,
        1.0,
    ),
    "rnn.vanishing.gradient_variance_factor": lambda r: (r.fraction(r.n, 5), r(5, 5)),
    "rnn.vanishing.sigmoid_as_tanh": lambda r: (r(3, 5), r(5, 5), r(5)),
    "positions.alibi.alibi_slopes": lambda r: (4,),
    "positions.alibi.alibi_bias": lambda r: (
        250 + torch.arange(r.n, dtype=torch.float64),
        torch.arange(5, dtype=torch.float64),
        4,
    ),
    "positions.registry.encoding": lambda r: ("learned", 8, 2),
    "positions.rotary.rotation_factors": lambda r: (r(r.n), torch.ones(2)),
    "positions.rotary.consecutive_rotation_factors": lambda r: (7, torch.ones(2), 3),
    "positions.rotary.rotate": lambda r: (
        r(r.n, 5, 4),
        torch.ones(2),
        r(r.n, 5),
        1000,
    ),
    "positions.rotary.rotate_half_split": lambda r: (
        r(r.n, 5, 4),
        torch.ones(2),
        r(r.n, 5),
        1000,
    ),
    "positions.rotary.rotation_matrix": lambda r: (r(r.n), torch.ones(2)),
    "positions.rotary.half_split_order": lambda r: (6,),
    "positions.rotary.decay_bound": lambda r: (r(r.n), torch.ones(2)),
    "positions.rotary_scaling.position_interpolation": lambda r: (r.fraction(4), 4.0),
    "positions.rotary_scaling.ntk_aware": lambda r: (r.fraction(4), 4.0),
    "positions.rotary_scaling.yarn": lambda r: (r.fraction(4), 4.0, 256),
    "positions.rotary_scaling.yarn_attention_factor": lambda r: (4.0,),
    "positions.sinusoidal.frequencies": lambda r: (6,),
    "positions.sinusoidal.sinusoidal_encoding": lambda r: (r(r.n), 6),
    "positions.sinusoidal.offset_product": lambda r: (r(r.n), 6),
    "attention.blockwise.empty_state": lambda r: (r(r.n, 5, 4), r(r.n, 7, 6)),
    "attention.blockwise.block_state": lambda r: (r(r.n, 5, 7), r(r.n, 7, 6)),
    "attention.blockwise.merge_states": lambda r: tuple(
        blockwise.block_state(r(r.n, 5, 7), r(r.n, 7, 6)) for _ in range(2)
    ),
    "attention.blockwise.blockwise_attention": heads,
    "attention.blockwise.blockwise_backward": lambda r: (
        r(r.n, 2, 5, 6),
        *heads(r),
        blockwise.BlockwiseOutput(r(r.n, 2, 5, 6), 2 + r.fraction(r.n, 2, 5)),
    ),
    "attention.blockwise.online_attention": functools.partial(
        attention_with_gradients, blockwise.online_attention
    ),
    "attention.dot_product.scaled_dot_product_attention": heads,
    "attention.dot_product.attention_backward": lambda r: (
        r(r.n, 2, 5, 6),
        *heads(r),
        r(r.n, 2, 5, 7).softmax(-1),
    ),
    "attention.dot_product.attention": functools.partial(
        attention_with_gradients, dot_product.attention
    ),
    "attention.dot_product.fused_attention": heads,
    "attention.dot_product.share_axes": heads,
    "attention.encoder_layer.encoder_layer": lambda r: (
        r(r.n, 5, 8),
        encoder_weights(r),
        2,
    ),
    "attention.encoder_layer.encoder_layer_backward": lambda r: (
        r(r.n, 5, 8),
        encoder_weights(r),
        encoder_layer.EncoderIntermediates(
            normalized(r),
            r(r.n, 5, 8),
            attended(r),
            normalized(r),
            r(r.n, 5, 8),
            r(r.n, 5, 6),
        ),
    ),
    "attention.language_model.next_token_pairs": lambda r: (
        torch.arange(4 * r.n).view(r.n, 4),
    ),
    "attention.language_model.token_nll": lambda r: (
        r(r.n, 3, 4),
        r.classes(4)[:, None].expand(-1, 3),
    ),
    "attention.language_model.perplexity": lambda r: (r.fraction(r.n, 4),),
    "attention.layer_norm.layer_norm": lambda r: (r(r.n, 5, 8), r(8), r(8)),
    "attention.layer_norm.layer_norm_backward": lambda r: (
        r(r.n, 5, 8),
        r(8),
        normalized(r),
    ),
    "attention.masks.causal_mask": lambda r: (3, 5),
    "attention.masks.padding_mask": lambda r: (r.steps(), 9),
    "attention.multi_head.split_heads": lambda r: (r(r.n, 5, 8), 2),
    "attention.multi_head.merge_heads": lambda r: (r(r.n, 2, 5, 4),),
    "attention.multi_head.repeat_kv": lambda r: (r(r.n, 2, 5, 4), 4),
    "attention.multi_head.multi_head_attention": lambda r: (
        r(r.n, 5, 8),
        r(r.n, 7, 8),
        projections(r),
        2,
    ),
    "attention.multi_head.multi_head_backward": lambda r: (
        r(r.n, 5, 8),
        r(r.n, 5, 8),
        r(r.n, 7, 8),
        projections(r),
        multi_head.Intermediates(
            r(r.n, 2, 5, 4),
            r(r.n, 2, 7, 4),
            r(r.n, 2, 7, 4),
            r(r.n, 2, 5, 7).softmax(-1),
            r(r.n, 5, 8),
        ),
    ),
    "attention.score_statistics.score_moments": lambda r: (
        r(4),
        r(4),
        r(4, 4),
        r(4, 4),
    ),
    "attention.score_statistics.entropy": lambda r: (r(r.n, 4).softmax(-1),),
    "attention.softmax.softmax_jacobian": lambda r: (r(r.n, 4).softmax(-1),),
    "attention.softmax.softmax_backward": lambda r: (
        r(r.n, 4).softmax(-1),
        r(r.n, 4),
    ),
    "attention.transformer.linear": lambda r: (4, 3, r.generator),
    "diffusion.ema.ema_update": lambda r: (
        lambda *x: ema.ema_update([x[0]], [x[1]], 0.9),
        (r(r.n), r(r.n)),
    ),
    "diffusion.gaussian_mixture.ring": lambda r: (4,),
    "diffusion.gaussian_mixture.gaussian": lambda r: (0.5, 2.0, 3),
    "diffusion.gaussian_mixture.draw": lambda r: (
        gaussian_mixture.ring(4),
        r.n,
        r.generator,
    ),
    "diffusion.gaussian_mixture.moments": lambda r: (gaussian_mixture.ring(4),),
    "diffusion.gaussian_mixture.noised": lambda r: mixture_at(r)[::2],
    "diffusion.gaussian_mixture.log_parts": mixture_at,
    "diffusion.gaussian_mixture.score": mixture_at,
    "diffusion.gaussian_mixture.optimal_epsilon": mixture_at,
    "diffusion.gaussian_mixture.optimal_denoiser": lambda r: (
        lambda x, table, t: gaussian_mixture.optimal_denoiser(
            gaussian_mixture.ring(4), table
        )(x, t),
        (r(r.n, 2), r.fraction(10), r.steps()),
    ),
    "diffusion.gaussian_mixture.posterior_x0": mixture_at,
    "diffusion.guidance.drop_labels": lambda r: (r.classes(4), 0.5, 4, r.generator),
    "diffusion.guidance.condition": lambda r: (
        guidance.condition(negative_without_class, r.classes(4)),
        (r(r.n, 3), r.steps()),
    ),
    "diffusion.guidance.guide": lambda r: (
        guidance.guide(negative_without_class, r.classes(4), 4, 1.5),
        (r(r.n, 3), r.steps()),
    ),
    "diffusion.learned_variance.interpolate_variance": lambda r: (
        SCHEDULE,
        r.steps(),
        r(r.n, 3),
    ),
    "diffusion.learned_variance.hybrid_loss": lambda r: (
        lambda x_0, t, epsilon: learned_variance.hybrid_loss(
            SCHEDULE, zeros_with_variance, x_0, draws=(t, epsilon)
        ),
        images(r),
    ),
    "diffusion.likelihood.gaussian_kl": lambda r: (
        r(r.n),
        r.fraction(r.n),
        r(r.n),
        r.fraction(r.n),
    ),
    "diffusion.likelihood.discrete_log_probability": lambda r: (
        r.fraction(r.n),
        r(r.n),
        r.fraction(r.n),
    ),
    "diffusion.likelihood.log_density": lambda r: (r(r.n), r(r.n), r.fraction(r.n)),
    "diffusion.likelihood.bits_per_dimension": lambda r: (r(r.n), 7),
    "diffusion.likelihood.prior_term": lambda r: (SCHEDULE, r(r.n, 3)),
    "diffusion.likelihood.bound_term": lambda r: (SCHEDULE, zeros, *images(r)),
    "diffusion.likelihood.variational_bound": lambda r: (
        lambda x: likelihood.variational_bound(
            SCHEDULE, zeros, x, generator=torch.Generator().manual_seed(0)
        ),
        images(r)[:1],
    ),
    "diffusion.likelihood.total_bits": lambda r: (bound(r), 7),
    "diffusion.likelihood.rate_distortion": lambda r: (bound(r), 7),
    "diffusion.likelihood.bound_weight": lambda r: (SCHEDULE,),
    "diffusion.pixels.unit": lambda r: (r.classes(4).byte(),),
    "diffusion.pixels.signed": lambda r: (r.classes(4).byte(),),
    "diffusion.pixels.to_bytes": lambda r: (r.fraction(r.n, 50),),
    "diffusion.posterior.posterior": lambda r: (SCHEDULE,),
    "diffusion.posterior.optimal_variance": lambda r: (
        lambda mmse: optimal_variance(SCHEDULE, mmse.expand(11))[1:],
        (r.fraction(1),),
    ),
    "diffusion.process.q_sample": lambda r: (SCHEDULE, *images(r)),
    "diffusion.process.training_target": lambda r: (SCHEDULE, *images(r), "mu"),
    "diffusion.process.predict_x0": lambda r: (SCHEDULE, *images(r), "mu"),
    "diffusion.process.predict_epsilon": lambda r: (SCHEDULE, *images(r)),
    "diffusion.process.draw_training_noise": lambda r: (
        SCHEDULE,
        r(r.n, 3),
        r.generator,
    ),
    "diffusion.process.training_loss": lambda r: (
        lambda x_0, t, epsilon: process.training_loss(
            SCHEDULE, zeros, x_0, prediction_type="v", draws=(t, epsilon)
        ),
        images(r),
    ),
    "diffusion.process.signal_and_noise": lambda r: (SCHEDULE, r.steps(), r(r.n, 3)),
    "diffusion.process.standard_normal": lambda r: (r(r.n, 3), r.generator),
    "diffusion.sample_metrics.frechet_distance": lambda r: (r(4 * r.n, 2), r(9, 2)),
    "diffusion.sample_metrics.mmd2_unbiased": lambda r: (r(r.n, 2), r(9, 2)),
    "diffusion.sample_metrics.kernel_mean": lambda r: (r(r.n, 2), r(9, 2)),
    "diffusion.sample_metrics.nearest": lambda r: (r(r.n, 2), r(9, 2), 2),
    "diffusion.sample_metrics.in_manifold": lambda r: (r(r.n, 2), r(9, 2), 2),
    "diffusion.sample_metrics.precision_recall": lambda r: (
        r(3 * r.n, 2),
        r(3 * r.n, 2),
        2,
    ),
    "diffusion.sample_metrics.half_sample_errors": lambda r: (
        lambda x: sample_metrics.half_sample_errors(
            lambda half: x[half].square(), len(x), generator=r.generator
        ),
        (r(4 * r.n),),
    ),
    "diffusion.sampling.as_denoiser": lambda r: (
        lambda x, t: sampling.as_denoiser(zeros)(SCHEDULE, x, t),
        (r(r.n, 3), r.steps()),
    ),
    "diffusion.sampling.in_float32": lambda r: (
        lambda x: sampling.in_float32(zeros, x)[1],
        (r(r.n, 3),),
    ),
    "diffusion.sampling.reverse_mean": lambda r: (SCHEDULE, *images(r)),
    "diffusion.sampling.reverse_variance": lambda r: (SCHEDULE, r.fraction(11)),
    "diffusion.sampling.ddpm_sample": lambda r: (
        lambda x: sampling.ddpm_sample(
            SCHEDULE, zeros, x, generator=torch.Generator().manual_seed(0)
        ),
        (r(r.n, 3),),
    ),
    "diffusion.sampling.ddim_sample": lambda r: (
        lambda x: sampling.ddim_sample(SCHEDULE, zeros, x, steps=5),
        (r(r.n, 3),),
    ),
    "diffusion.sampling.interpolate": lambda r: (
        lambda x, y: sampling.interpolate(
            SCHEDULE, zeros, x, y, t=3, generator=torch.Generator().manual_seed(0)
        ),
        (r(r.n, 3), r(r.n, 3)),
    ),
    "diffusion.sampling.evenly_spaced_timesteps": lambda r: (1000, 4),
    "diffusion.score.beta_at": lambda r: (r.fraction(r.n),),
    "diffusion.score.alpha_bar_at": lambda r: (r.fraction(r.n),),
    "diffusion.score.flow_velocity": lambda r: (
        r.fraction(r.n, 1),
        r(r.n, 3),
        r(r.n, 3),
    ),
    "diffusion.score.ode_sample": lambda r: (SCHEDULE, zeros, r(r.n, 3)),
    "diffusion.schedule.make_schedule": lambda r: (r.fraction(10),),
    "diffusion.schedule.linear_schedule": lambda r: (10,),
    "diffusion.schedule.cosine_schedule": lambda r: (10,),
    "diffusion.schedule.signal_to_noise": lambda r: (SCHEDULE,),
    "diffusion.schedule.at_step": lambda r: (r.fraction(10), r.steps(), r(r.n, 3)),
    "diffusion.schedule.as_steps": lambda r: (7, r(r.n, 3)),
    "training.augmentation.random_horizontal_flip": lambda r: (
        r(r.n, 4, 5),
        r.generator,
    ),
    "training.augmentation.random_shift": lambda r: (r(r.n, 4, 5), 2, r.generator),
    "training.clipping.clip_by_norm": lambda r: (clipped, (r(r.n), r(r.n, 3))),
    "training.dropout.dropout_mask": lambda r: (r(r.n, 3), 0.3, r.generator),
    "training.loss.softmax": lambda r: (r(r.n, 4),),
    "training.loss.cross_entropy": lambda r: (r(r.n, 4), r.classes(4)),
    "training.loss.cross_entropy_backward": lambda r: (r(r.n, 4), r.classes(4)),
    "training.metrics.confusion_matrix": lambda r: (
        lambda *x: metrics.confusion_matrix(target=x[0], preds=x[1]),
        (r.classes(4), r.classes(3)),
    ),
    "training.metrics.accuracy": lambda r: (torch.full((3, 3), 100).to(torch.int8),),
    "training.metrics.precision": lambda r: (torch.full((3, 3), 100).to(torch.int8),),
    "training.metrics.recall": lambda r: (torch.full((3, 3), 100).to(torch.int8),),
    "training.metrics.f1": lambda r: (torch.full((3, 3), 100).to(torch.int8),),
    "training.metrics.balanced_accuracy": lambda r: (
        torch.full((3, 3), 100).to(torch.int8),
    ),
    "training.metrics.summary": lambda r: (torch.full((3, 3), 100).to(torch.int8),),
    "training.metrics.top_k_accuracy": lambda r: (*probabilities(r), 2),
    "training.metrics.negative_log_likelihood": probabilities,
    "training.metrics.calibration_error": lambda r: (*probabilities(r), 7),
    "training.optimizers.sgd_step": lambda r: (
        lambda *x: optimizers.sgd_step(*x, lr=0.1, momentum=0.9),
        (r(r.n, 3), r(r.n, 3), r(r.n, 3)),
    ),
    "training.optimizers.adam_step": lambda r: (
        lambda theta, grad, m, v: optimizers.adam_step(
            theta, grad, optimizers.AdamState(m, v, 3), lr=0.1, weight_decay=0.01
        ),
        (r(r.n, 3), r(r.n, 3), r(r.n, 3), r.fraction(r.n, 3)),
    ),
    "training.schedules.linear_warm_up": lambda r: (
        lambda progress: schedules.linear_warm_up(schedules.cosine, 4, 9)(progress),
        (0.2,),
    ),
    "training.schedules.cosine": lambda r: (0.3,),
    "training.schedules.one_cycle": lambda r: (0.2,),
    # Classes
    "rnn.networks.StackedRNN": lambda r: (
        r.layer(networks.StackedRNN, 3, 5, num_layers=2, bidirectional=True),
        (r(4, r.n, 3),),
    ),
    "rnn.networks.RNNClassifier": lambda r: (
        r.layer(networks.RNNClassifier, 3, 5, 2),
        (r(r.n, 4, 3),),
    ),
    "rnn.recurrence.RNN": lambda r: (r.layer(recurrence.RNN, 3, 5), (r(4, r.n, 3),)),
    "positions.alibi.AlibiBias": lambda r: (alibi.AlibiBias(4), (3, 5)),
    "positions.learned.LearnedPositions": lambda r: (
        r.layer(learned.LearnedPositions, 9, 4),
        (r.steps(),),
    ),
    "positions.learned.AddLearned": lambda r: (
        learned.AddLearned(r.layer(learned.LearnedPositions, 9, 4)),
        (r(r.n, 5, 4),),
    ),
    "positions.rotary.RotaryEmbedding": lambda r: (
        rotary.RotaryEmbedding(4),
        (r(r.n, 2, 5, 4), r(r.n, 2, 5, 4)),
    ),
    "positions.sinusoidal.AddSinusoidal": lambda r: (
        sinusoidal.AddSinusoidal(),
        (r(r.n, 5, 4),),
    ),
    "attention.multi_head.MultiHeadAttention": lambda r: (
        r.layer(multi_head.MultiHeadAttention, 8, 2),
        (r(r.n, 5, 8),),
    ),
    "attention.transformer.EncoderLayer": lambda r: (
        r.layer(transformer.EncoderLayer, 8, 2, 16),
        (r(r.n, 5, 8),),
    ),
    "attention.transformer.Encoder": lambda r: (
        r.layer(transformer.Encoder, 8, 2, 1, bias=alibi.AlibiBias(2)),
        (r(r.n, 5, 8),),
    ),
    "attention.transformer.RowTransformer": lambda r: (
        r.layer(transformer.RowTransformer, 4, 3, d_model=8, n_head=2),
        (r(r.n, 5, 4),),
    ),
    "attention.transformer.TokenTransformer": lambda r: (
        r.layer(transformer.TokenTransformer, 9, 3, d_model=8, n_head=2),
        (r.steps()[:, None],),
    ),
    "diffusion.ema.EMA": lambda r: (averaged, (r(r.n), r(r.n), r(r.n))),
    "diffusion.feature_network.ConvNet": lambda r: (
        r.layer(feature_network.ConvNet, size=8),
        (r.fraction(r.n, 8, 8),),
    ),
    "diffusion.unet.UNet": lambda r: (
        r.layer(unet.UNet, "tiny"),
        (r(r.n, 1, 4, 4), r.steps()),
    ),
    "training.metrics.ConfusionMatrix": lambda r: (counted, (r.classes(4),) * 2),
}
LAYERS = {
    name
    for name in EXAMPLES
    if name.startswith(("attention.transformer.", "rnn.networks."))
} | {
    "attention.multi_head.MultiHeadAttention",
    "diffusion.feature_network.ConvNet",
    "diffusion.unet.UNet",
    # the kernels of torch round the weights
    "attention.dot_product.fused_attention",
}
"""They round between operations, as layers of torch do."""
NOT_NUMERIC = {
    "check_data": "a check",
    "check_even": "a check",
    "check_frequencies": "a check",
    "check_inputs": "a check",
    "check_images": "a check",
    "check_shape": "a check",
    "check_prediction_type": "a check",
    "check_steps": "a check",
    "check_labels": "a check",
    "rank": "processes",
    "world_size": "processes",
    "process_group": "processes",
    "broadcast_from_rank0": "processes",
    "shard_indices": "processes",
    "data_parallel": "processes",
    "count_flops": "a measurement",
    "saved_bytes": "a measurement",
    "depends_on": "a measurement",
    "sample_tokens": "draws from a network",
    "fit": "the loop has tests of its own",
    "Training": "the loop has tests of its own",
    "ResBlock": "a part of the U-Net",
    "AttentionBlock": "a part of the U-Net",
    "Downsample": "a part of the U-Net",
    "Upsample": "a part of the U-Net",
}
RANDOM = {
    *(name for name in EXAMPLES if name.startswith("rnn.initialization.")),
    "diffusion.process.standard_normal",
    "diffusion.likelihood.variational_bound",
    "diffusion.sampling.interpolate",
    "diffusion.sampling.ddpm_sample",
}
"""Other types draw other numbers."""
UNREAD = {
    *(name for name in EXAMPLES if name.startswith("rnn.initialization.")),
    "attention.blockwise.empty_state",
    "attention.encoder_layer.encoder_layer_backward",  # of the forward biases
    "attention.multi_head.multi_head_backward",  # of the forward biases
    "diffusion.gaussian_mixture.noised",  # of the weights
    "diffusion.gaussian_mixture.optimal_denoiser",  # of the other timesteps
    "diffusion.likelihood.total_bits",  # of the squared errors
    "diffusion.process.draw_training_noise",
    "diffusion.process.signal_and_noise",
    "diffusion.process.standard_normal",
    "diffusion.schedule.as_steps",
    "diffusion.schedule.at_step",
    "rnn.gated.cell_jacobian",  # of the hidden states
    "training.augmentation.random_shift",  # of the pixels that are shifted out
    "training.dropout.dropout_mask",
}
"""The values of an input may not matter, but only its shape."""
FRACTIONAL = {
    "offset": "positions may be fractional",
    "original_max_positions": "a ratio",
    "ignore_index": "a class that does not occur",
}


def public() -> dict[str, object]:
    """The functions and classes of the chapters and of training, but no records."""
    found = {}
    for package in PACKAGES:
        path = importlib.import_module(f"dian.{package}").__path__
        for module in pkgutil.iter_modules(path, f"dian.{package}."):
            for name, value in vars(importlib.import_module(module.name)).items():
                own = getattr(value, "__module__", None) == module.name
                plain = isinstance(value, types.FunctionType) or (
                    inspect.isclass(value)
                    and not issubclass(value, tuple)
                    and (not is_dataclass(value) or name == "Training")
                )
                if own and plain and not name.startswith("_"):
                    found[f"{module.name.removeprefix('dian.')}.{name}"] = value
    return found


def example(name: str, n: int = 3) -> tuple[object, tuple]:
    arguments = EXAMPLES[name](Draw(n))
    if len(arguments) == 2 and callable(arguments[0]):
        return arguments
    return public()[name], arguments


def changed(value, change):
    """Apply a change to the floating-point tensors, but not to a noise schedule."""
    if isinstance(value, Tensor):
        return change(value) if value.is_floating_point() else value
    if isinstance(value, NoiseSchedule) or not isinstance(value, tuple | list):
        return value
    parts = [changed(part, change) for part in value]
    return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)


def tensors(value) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, float | int) and not isinstance(value, bool):
        return [torch.tensor(value, dtype=torch.float64)]
    if isinstance(value, nn.Module):
        return list(value.parameters())
    if isinstance(value, dict):
        value = tuple(value.values())
    parts = value if isinstance(value, tuple | list) else ()
    return [tensor for part in parts for tensor in tensors(part)]


def computed(name: str, n: int = 3, dtype=torch.float32, change=None, by=None):
    """Return the tensors of the result, with inputs rounded ``by`` another type."""
    call, arguments = example(name, n)
    # omega and the like are float32, and stay so
    by, change = by or dtype, change or (lambda x: x)
    arguments = changed(
        arguments,
        lambda x: change(x.to(by).to(dtype) if x.dtype == torch.float64 else x),
    )
    if isinstance(call, nn.Module):
        call = call.to(by).to(dtype)
    with torch.no_grad() if name in LAYERS else torch.enable_grad():
        return tensors(call(*arguments))


def equal(found, expected, relative: float, absolute: float = 1e-30, worst=False):
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        assert a.shape == b.shape
        a, b = (
            x.detach().to(torch.promote_types(x.dtype, torch.float64)) for x in (a, b)
        )
        scale = b.abs().amax() if worst and b.numel() else b.abs()
        close = (a - b).abs() <= relative * scale + absolute
        assert (close | (a == b) | (a.isnan() & b.isnan())).all(), (a - b).abs().max()


def outcome(name: str, kind: str) -> str:
    """Return works, refused or not applicable; raise for anything else."""
    try:
        return tried(name, kind)
    except (ValueError, TypeError) as error:
        return refusal(error)


def refusal(error: Exception) -> str:
    """Raise unless a line of ours raised this error on purpose."""
    frames = error.__traceback__
    while frames.tb_next:
        frames = frames.tb_next
    code = frames.tb_frame.f_code.co_filename
    ours = Path(code).is_relative_to(Path(dian.__file__).parent)
    if not ours or "raise" not in linecache.getline(code, frames.tb_lineno):
        raise AssertionError(f"an error from below: {error}") from error
    return "refused"


def tried(name: str, kind: str) -> str:
    if kind == "2.5":
        return with_fractions(name)
    if kind == "zero-size":
        shapes = [[x.shape for x in tensors(example(name, n)[1])] for n in (0, 3)]
        if shapes[0] == shapes[1]:
            return "-"
        found = computed(name, n=0)
        assert not any(x.is_floating_point() and x.isnan().any() for x in found)
        return "works"
    call, arguments = example(name)
    given = [x for x in tensors(changed(arguments, lambda x: x)) if x.ndim]
    floats = [x for x in given if x.dtype == torch.float64]
    if isinstance(call, nn.Module) and next(call.parameters(), None) is not None:
        floats = floats or given
    if kind == "non-contiguous" and given:
        found = computed(name, change=lambda x: torch.stack([x, 7 - x], -1)[..., 0])
        equal(found, computed(name), 1e-5, 1e-6)
        return "works"
    if not floats:
        return "-"
    if kind == "float64":
        found = computed(name, dtype=torch.float64)
        if name not in RANDOM:
            equal(found, computed(name), 1e-4, 1e-5, True)
        return "works"
    if kind in SMALL:
        dtype = SMALL[kind]
        found = computed(name, dtype=dtype)
        rounded = computed(name, by=dtype)
        eps = torch.finfo(dtype).eps
        if name in LAYERS:
            equal(found, rounded, 8 * eps, eps, worst=True)
        else:  # twice the rounding, which is half of eps
            smallest = torch.finfo(dtype).smallest_normal * eps
            equal(found, rounded, eps, smallest)
        return "works"
    return with_one_entry(name, math.nan if kind == "NaN" else math.inf)


def with_one_entry(name: str, value: float) -> str:
    """Put a value into one argument after the other: is it seen in the result?"""
    _, arguments = example(name)
    floats, outcomes = [], set()
    changed(arguments, lambda x: floats.append(x) or x)
    for place in range(len(floats)):
        try:
            found = computed(name, change=put(value, place))
        except (ValueError, TypeError) as error:
            outcomes.add(refusal(error))
            continue
        outcomes.add("works")
        if name in UNREAD | RANDOM or any((~x.isfinite()).any() for x in found):
            continue
        assert not math.isnan(value), f"NaN is lost, argument {place}"
        expected = computed(name, dtype=torch.float64, change=put(value, place))
        equal(found, expected, 1e-4, 1e-5, worst=True)
    return " / ".join(sorted(outcomes)) or "-"


def put(value: float, place: int):
    """Return a change of the first entry of one floating-point tensor."""
    count = itertools.count()

    def change(x):
        if next(count) != place:
            return x
        x = x.clone()
        x.view(-1)[0] = value
        return x

    return change


def with_fractions(name: str) -> str:
    """Put 2.5 in place of one whole number after the other."""
    function, arguments = public()[name], EXAMPLES[name](Draw(3))
    if callable(arguments[0]) or not isinstance(function, types.FunctionType):
        return "-"
    signature, outcomes = inspect.signature(function), set()
    bound_arguments = signature.bind(*arguments)
    bound_arguments.apply_defaults()
    for parameter in signature.parameters.values():
        if (
            parameter.annotation not in (int, int | None)
            or parameter.name in FRACTIONAL
        ):
            continue
        given = dict(bound_arguments.arguments) | {parameter.name: 2.5}
        try:
            function(**given)
        except TypeError:  # of torch, which wants integers as sizes
            outcomes.add("refused")
        except ValueError as error:
            outcomes.add(refusal(error))
        else:
            raise AssertionError(f"{parameter.name} may be 2.5")
    return " / ".join(outcomes) or "-"


def test_every_function_has_an_example():
    names = {name for name in public() if name.split(".")[-1] not in NOT_NUMERIC}
    assert names == set(EXAMPLES)


@pytest.mark.usefixtures("as_users_run")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", EXAMPLES)
def test_it_works_or_is_refused(name, kind):
    outcome(name, kind)


def table() -> str:
    """Return the outcome of every function on every kind of number, as Markdown."""
    rows = [("function", *KINDS), ("---",) * (1 + len(KINDS))]
    for name in EXAMPLES:
        rows.append((name, *(outcome(name, kind) for kind in KINDS)))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


if __name__ == "__main__":
    print(table())
