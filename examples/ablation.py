"""Takes ACClip apart: what each of its parts contributes, and how much its learning rate matters.

    python examples/ablation.py
    python examples/ablation.py --tune
    python examples/ablation.py --variants acclip,global-moving,adam --seeds 8

Of Sections 4 and 5.1 of the paper. A variant differs from ACClip in one part: global or coordinate
clip, fixed or moving threshold, α, β₂, ε, `step_size`; batches of a quarter and of four times the
rows, each beside Adam's at that size (with as many steps, so not as many tokens). Each tries three
rates, twice apart, on seed 0; its best is compared on seeds that chose none, 1 to 3 by default, by
paired differences with 95% intervals. Last comes the loss against the rate over two decades,
ACClip's and Adam's. With one seed, all start from the same weights and see the same rows. The fixed
thresholds (0.5, 1e-3) and the warm-up (40% of the steps) are not tuned. Under `--output`:
`ablation.png`, `robustness.png`, `results.json`. Started again, it goes on after the last run done.

The model is a GPT-2 that predicts the next token. The masked-LM BERT of `bert_pretraining.py`
stayed near the frequencies of the tokens for as many steps as fit here (one layer, hidden 64, 400
steps of 8 × 32 tokens, vocabulary 1,024, ACClip at five rates, seed 0: 5.46 to 5.54).
`--scale paper` is not measured.

Where the middles of the rates come from: `--tune`, five rates √10 apart around earlier middles,
seed 0, final validation loss (TensorFlow 2.20); 5.16 is where a run stays at the frequencies of the
tokens:

    acclip            1e-3: 4.869   3.2e-3: 4.879  0.01: 5.160   0.032: 5.162  0.1: 5.163
    adam              1e-3: 5.056   3.2e-3: 4.573  0.01: 4.771   0.032: 5.162  0.1: 5.164
    coordinate-fixed  0.1: 5.130    0.32: 4.789    1: 4.654      3.2: 4.790    10: 4.916
    global-fixed      0.03: 4.815   0.095: 4.545   0.3: 4.441    0.95: 4.468   3: 5.270
    global-moving     0.03: 5.231   0.095: 4.873   0.3: 4.565    0.95: 4.463   3: 4.524
    step-constant     0.3: 4.746    0.95: 4.526    3: 4.484      9.5: 4.576    30: NaN
    step-rms          1e-3: 5.100   3.2e-3: 4.578  0.01: 4.868   0.032: 5.162  0.1: 5.163
    sgd               0.03: 4.658   0.095: 4.492   0.3: 4.451    0.95: 4e18    3: NaN

With the middles below no variant's best rate on seed 0 is at its grid's edge. The first command, 9
minutes of one core; validation loss on seeds 1 to 3, mean ± standard deviation, and the 95%
interval of the difference to ACClip (4.867 ± 0.059) on the same seeds:

    coordinate-fixed 4.721 ± 0.026  -0.273 to -0.018   beta2-0.9     4.630 ± 0.036  -0.439 to -0.035
    global-moving    4.479 ± 0.010  -0.559 to -0.217   beta2-0.999   4.842 ± 0.222  -0.571 to +0.522
    global-fixed     4.447 ± 0.013  -0.598 to -0.241   step-rms      4.762 ± 0.125  -0.496 to +0.287
    alpha-1.25       4.816 ± 0.117  -0.473 to +0.371   step-constant 4.506 ± 0.009  -0.526 to -0.195
    alpha-1.5        4.909 ± 0.093  -0.244 to +0.328   adam          4.745 ± 0.138  -0.603 to +0.359
    alpha-2          4.740 ± 0.029  -0.258 to +0.005   sgd           4.470 ± 0.024  -0.602 to -0.192
    epsilon-1e-8     5.049 ± 0.050  +0.143 to +0.221   epsilon-1e-3  4.432 ± 0.007  -0.599 to -0.271

ACClip less Adam: with a quarter of the batch +0.020 (-0.165 to +0.204), with the batch +0.122
(-0.359 to +0.603), with four times the batch +0.221 (-0.176 to +0.618). Within 0.1 nats of its best
ACClip stays over 0.40 and 0.17 decades of rates (seeds 1 and 2), Adam over 0.41 and 1.25.

So the paper's order does not hold for this model: what treats all coordinates alike (SGD, the
global clips, ACClip with a constant step) is ahead of what scales each by itself, and whether the
threshold moves matters little. ACClip's defaults are last but for α = 1.5 and ε = 1e-8; with
ε = 1e-3, which stops it from scaling up the coordinates whose gradients are small, it is as good as
the best. Nor is it more robust to its rate than Adam. Of so many intervals, one in twenty misses.
"""

import argparse
import functools
import itertools
import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import comparison
import experiment
import keras
import keras_hub
import matplotlib.pyplot as plt
import numpy as np
import script
import tensorflow as tf
import token_rows
from keras import ops

import keras_acclip
from keras_acclip import rules
from keras_acclip.noise import plots

SCALES = {
    "small": {
        "steps": 400,
        "warmup": 160,
        "batch_size": 8,
        "sequence_length": 32,
        "layers": 1,
        "hidden": 32,
        "vocabulary_size": 512,
        "validation_rows": 256,
        "seeds": 3,
        "curve_seeds": 2,
    },
    "smoke": {
        "steps": 6,
        "warmup": 2,
        "batch_size": 8,
        "sequence_length": 16,
        "layers": 1,
        "hidden": 32,
        "vocabulary_size": 512,
        "validation_rows": 16,
        "seeds": 2,
        "curve_seeds": 2,
    },
    # Length, layers, batch, width (to a multiple of 32) and vocabulary of transformer_xl.py's.
    "paper": {
        "steps": 20_000,
        "warmup": 2_000,
        "batch_size": 60,
        "sequence_length": 128,
        "layers": 6,
        "hidden": 384,
        "vocabulary_size": 10_000,
        "validation_rows": 4096,
        "seeds": 3,
        "curve_seeds": 2,
    },
}
HEAD = 32  # Coordinates of an attention head.
SEARCH_SEED = 0  # The rates are chosen on it; the comparison has seeds from 1 on.
GRID = (1 / 2, 1, 2)  # Times a variant's middle rate.
COARSE_GRID = (1 / 10, 1 / 10**0.5, 1, 10**0.5, 10)  # For --tune.
CURVE_GRID = tuple(10 ** (k / 4) for k in range(-4, 5))  # Two decades.
CURVES = ("acclip", "adam")
MARGIN = 0.1  # Nats above the best loss that a rate may cost to count as one that works.


# --- The variants ----------------------------------------------------------------------------


@keras.saving.register_keras_serializable(package="keras_acclip_examples")
class GlobalMoving(keras.optimizers.Optimizer):
    """ACClip with one threshold for all coordinates: the clip is global, the threshold moves.

        m   ← β₁·m + (1 − β₁)·g
        τ^α ← β₂·τ^α + (1 − β₂)·‖g‖^α
        ĝ   = min(τ/(‖m‖ + ε), 1)·m
        x   ← x − lr/(τ + ε)·ĝ

    with norms over all variables together. No step is longer than lr.

    Args:
        learning_rate: lr, or its schedule.
        beta_1: β₁ in [0, 1). Defaults to `0.9`.
        beta_2: β₂ in [0, 1). Defaults to `0.99`.
        epsilon: ε > 0. Defaults to `1e-5`.
        alpha: α in [1, 2]. Defaults to `1.0`.
    """

    def __init__(self, learning_rate, beta_1=0.9, beta_2=0.99, epsilon=1e-5, alpha=1.0, **kwargs):
        super().__init__(learning_rate=learning_rate, **kwargs)
        self.beta_1, self.beta_2 = beta_1, beta_2
        self.epsilon, self.alpha = epsilon, alpha

    def build(self, variables):
        """Makes m for each variable, and τ^α."""
        if not self.built:
            super().build(variables)
            self.moments = [self.add_variable_from_reference(v, "moment") for v in variables]
            dtype = keras.backend.standardize_dtype(variables[0].dtype)
            self.threshold_power = self.add_variable((), dtype=dtype, name="threshold_power")

    def _backend_update_step(self, grads, trainable_variables, learning_rate):
        norm = rules.global_norm(grads, ops)
        power = self.beta_2 * self.threshold_power + (1 - self.beta_2) * norm**self.alpha
        threshold = power ** (1 / self.alpha)
        moments = [
            self.beta_1 * m + (1 - self.beta_1) * g
            for m, g in zip(self.moments, grads, strict=True)
        ]
        clip = ops.minimum(threshold / (rules.global_norm(moments, ops) + self.epsilon), 1)
        rate = ops.cast(learning_rate, norm.dtype) / (threshold + self.epsilon)
        for x, slot, m in zip(trainable_variables, self.moments, moments, strict=True):
            x.assign(x - rate * clip * m)
            slot.assign(m)
        self.threshold_power.assign(power)

    def get_config(self):
        """The arguments, as Keras wants them."""
        names = ("beta_1", "beta_2", "epsilon", "alpha")
        return super().get_config() | {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class Variant:
    """One way to train.

    Attributes:
        make: Function without arguments that makes the optimizer.
        rate: The middle of the rates to try, for the small scale.
        batch: Its batch size, in units of `--batch-size`.
    """

    make: Callable
    rate: float
    batch: float = 1


def acclip(**changes):
    """A maker of ACClip with its defaults but for the changes."""
    return functools.partial(keras_acclip.ACClip, **changes)


ADAM = keras.optimizers.Adam
VARIANTS = {
    "acclip": Variant(acclip(), 1.8e-3),
    "coordinate-fixed": Variant(
        functools.partial(keras_acclip.CClip, threshold=1e-3, momentum=0.9), 1.0
    ),
    "global-fixed": Variant(
        functools.partial(keras_acclip.GClip, threshold=0.5, momentum=0.9), 0.4
    ),
    "global-moving": Variant(functools.partial(GlobalMoving, 0.0), 1.0),
    "alpha-1.25": Variant(acclip(alpha=1.25), 1.8e-3),
    "alpha-1.5": Variant(acclip(alpha=1.5), 5e-3),
    "alpha-2": Variant(acclip(alpha=2.0), 2.5e-3),
    "beta2-0.9": Variant(acclip(beta_2=0.9), 2.5e-3),
    "beta2-0.999": Variant(acclip(beta_2=0.999), 2e-3),
    "epsilon-1e-8": Variant(acclip(epsilon=1e-8), 1.5e-3),
    "epsilon-1e-3": Variant(acclip(epsilon=1e-3), 1e-2),
    "step-rms": Variant(acclip(step_size="rms"), 4e-3),
    "step-constant": Variant(acclip(step_size="constant"), 2.0),
    "acclip-small-batch": Variant(acclip(), 1.8e-3, 1 / 4),
    "adam-small-batch": Variant(ADAM, 8e-3, 1 / 4),
    "acclip-large-batch": Variant(acclip(), 2.5e-3, 4),
    "adam-large-batch": Variant(ADAM, 8e-3, 4),
    "adam": Variant(ADAM, 4e-3),
    "sgd": Variant(functools.partial(keras.optimizers.SGD, momentum=0.9), 0.2),
}
# Heading: which variants differ in that part, each beside what it is compared with.
PARTS = {
    "Clip and threshold; ACClip: coordinate, moving": [
        ("coordinate-fixed", "acclip"),
        ("global-moving", "acclip"),
        ("global-fixed", "acclip"),
    ],
    "α; ACClip: 1": [("alpha-1.25", "acclip"), ("alpha-1.5", "acclip"), ("alpha-2", "acclip")],
    "β₂; ACClip: 0.99": [("beta2-0.9", "acclip"), ("beta2-0.999", "acclip")],
    "ε; ACClip: 1e-5": [("epsilon-1e-8", "acclip"), ("epsilon-1e-3", "acclip")],
    "step_size; ACClip: moment": [("step-rms", "acclip"), ("step-constant", "acclip")],
    "Batch size, a quarter, 1 and 4 times: ACClip less Adam": [
        ("acclip-small-batch", "adam-small-batch"),
        ("acclip", "adam"),
        ("acclip-large-batch", "adam-large-batch"),
    ],
    "Other methods": [("adam", "acclip"), ("sgd", "acclip")],
}
COLUMNS = {
    "train loss": ("loss", 3),
    "validation loss": ("val_loss", 3),
    "ms a step": ("ms_per_step", 1),
}


# --- Training --------------------------------------------------------------------------------


class Task:
    """Predicting the next token as a function of one flat vector of weights, compiled for all runs.

    Args:
        rows: `token_rows.TokenRows`.
        settings: The values of `SCALES`.
    """

    def __init__(self, rows, settings):
        self.rows, self.settings = rows, settings
        self.model = self.build(0)
        self.shapes = [tuple(v.shape) for v in self.model.trainable_variables]
        self.fixed = [tf.convert_to_tensor(v) for v in self.model.non_trainable_variables]
        self.cross_entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        self.compiled_loss = tf.function(self.loss, jit_compile=True)
        self.gradient = tf.function(self.gradient, jit_compile=True)
        self.start = functools.cache(self.start)
        self.held_out = validation_batches(rows.validation, settings)

    def build(self, seed):
        """The model with the initial weights of that seed."""
        keras.utils.set_random_seed(seed)
        return build_model(len(self.rows.vocabulary), self.settings)

    def start(self, seed):
        """The initial weights of that seed: a flat float32 array."""
        return np.concatenate([v.numpy().ravel() for v in self.build(seed).trainable_variables])

    def loss(self, weights, inputs, labels):
        """Mean cross-entropy of a batch's tokens, in nats."""
        parts = tf.split(weights, [math.prod(shape) for shape in self.shapes])
        parts = [tf.reshape(p, shape) for p, shape in zip(parts, self.shapes, strict=True)]
        logits, _ = self.model.stateless_call(parts, self.fixed, inputs, training=True)
        return self.cross_entropy(labels, logits)

    def gradient(self, weights, inputs, labels):
        """A batch's loss, and its gradient: flat like the weights."""
        with tf.GradientTape() as tape:
            tape.watch(weights)
            loss = self.loss(weights, inputs, labels)
        return loss, tape.gradient(loss, weights)

    def validate(self, weights):
        """Mean loss over the held-out rows."""
        sizes = [len(labels) for _, labels in self.held_out]
        losses = [float(self.compiled_loss(weights, *batch)) for batch in self.held_out]
        return float(np.average(losses, weights=sizes))


def build_model(vocabulary_size, settings):
    """A GPT-2 from scratch, without dropout: no row is seen often enough to be learned by heart."""
    backbone = keras_hub.models.GPT2Backbone(
        vocabulary_size=vocabulary_size,
        num_layers=settings["layers"],
        num_heads=settings["hidden"] // HEAD,
        hidden_dim=settings["hidden"],
        intermediate_dim=4 * settings["hidden"],
        dropout=0.0,
        max_sequence_length=settings["sequence_length"],
    )
    return keras_hub.models.GPT2CausalLM(backbone)


def training_batches(rows, batch_size, seed, steps):
    """So many batches, a function of the seed alone; the rows in another order for each pass.

    Args:
        rows: int array of shape `(rows, sequence_length)`.
        batch_size: Rows a batch.
        seed: An int.
        steps: Number of batches.

    Returns:
        Iterator of `inputs_and_labels`'s pairs.
    """
    passes = (np.random.default_rng((seed, p)).permutation(len(rows)) for p in itertools.count())
    order = itertools.chain.from_iterable(passes)
    for _ in range(steps):
        yield inputs_and_labels(rows[list(itertools.islice(order, batch_size))])


def validation_batches(rows, settings):
    """Evenly spread held-out rows, in batches."""
    count = min(settings["validation_rows"], len(rows))
    spread = rows[np.linspace(0, len(rows) - 1, count).astype(int)]
    starts = range(0, count, 4 * settings["batch_size"])
    return [inputs_and_labels(spread[i : i + 4 * settings["batch_size"]]) for i in starts]


def inputs_and_labels(rows):
    """The inputs of KerasHub's `GPT2CausalLM`, and the next tokens: int32 tensors.

    A row's last token is left out: it is always `[SEP]`, so its place gives it away.
    """
    tokens = tf.constant(rows, tf.int32)
    inputs = {"token_ids": tokens[:, :-2], "padding_mask": tf.ones_like(tokens[:, :-2])}
    return inputs, tokens[:, 1:-1]


class Stepper:
    """A variant's optimizer on one flat vector, its step compiled once for all rates and seeds.

    Args:
        variant: A name in `VARIANTS`.
        size: Number of weights.
    """

    def __init__(self, variant, size):
        self.weights = keras.Variable(np.zeros(size, "float32"), name="weights")
        self.optimizer = VARIANTS[variant].make()
        self.optimizer.build([self.weights])
        self.fresh = [variable.numpy() for variable in self.optimizer.variables]
        self.step = tf.function(self.step, jit_compile=True)

    def start(self, weights):
        """Sets weights and slots as at the beginning of a run."""
        self.weights.assign(weights)
        for variable, value in zip(self.optimizer.variables, self.fresh, strict=True):
            variable.assign(value)

    def step(self, gradient, rate):
        """One step at that rate."""
        self.optimizer.learning_rate.assign(rate)
        self.optimizer.apply([gradient], [self.weights])


def train(variant, rate, seed, task, stepper_of):
    """One run.

    Args:
        variant: A name in `VARIANTS`.
        rate: The schedule's peak.
        seed: Of the initial weights and the order of the rows.
        task: A `Task`.
        stepper_of: Function from a variant to its `Stepper`.

    Returns:
        The run, as `comparison` takes it; its history is its end. `loss` is the mean over the last
        tenth of training.
    """
    steps, warmup = task.settings["steps"], task.settings["warmup"]
    stepper = stepper_of(variant)
    stepper.start(task.start(seed))
    rates = np.asarray(experiment.WarmupLinearDecay(rate, warmup, steps)(np.arange(steps)))
    losses, started = [], time.perf_counter()
    rows = batch_size(variant, task.settings)
    batches = training_batches(task.rows.train, rows, seed, steps)
    for batch, now in zip(batches, rates, strict=True):
        loss, gradient = task.gradient(tf.convert_to_tensor(stepper.weights), *batch)
        stepper.step(gradient, tf.constant(now))
        losses.append(loss)
    losses = np.array(losses)
    trained = time.perf_counter() - started
    row = {"step": steps, "loss": float(np.mean(losses[steps * 9 // 10 :]))}
    row |= {"val_loss": task.validate(tf.convert_to_tensor(stepper.weights))}
    row |= {"ms_per_step": 1000 * trained / steps, "seconds": time.perf_counter() - started}
    return {"optimizer": variant, "learning_rate": rate, "seed": seed, "history": [row]}


def batch_size(variant, settings):
    """Rows a batch of a variant."""
    return int(VARIANTS[variant].batch * settings["batch_size"])


# --- Which runs ------------------------------------------------------------------------------


def rates_around(middle, grid):
    """The rates of a grid around a middle, with two digits."""
    return [middle if factor == 1 else float(f"{middle * factor:.2g}") for factor in grid]


def search_plan(options, grid):
    """The runs that choose each variant's rate, as (variant, rate, seed)."""
    return [
        (variant, rate, SEARCH_SEED)
        for variant in options.variants
        for rate in rates_around(middle(variant, options), grid)
    ]


def comparison_plan(options, best):
    """The runs to compare, each variant at its best rate, on seeds that chose none."""
    seeds = range(SEARCH_SEED + 1, SEARCH_SEED + 1 + options.seeds)
    return [(variant, best[variant], seed) for variant in options.variants for seed in seeds]


def curve_plan(options):
    """The runs of the robustness curves."""
    seeds = range(SEARCH_SEED + 1, SEARCH_SEED + 1 + options.curve_seeds)
    return [
        (variant, rate, seed)
        for variant in CURVES
        if variant in options.variants
        for rate in rates_around(middle(variant, options), CURVE_GRID)
        for seed in seeds
    ]


def middle(variant, options):
    """The middle of the rates to try."""
    return options.rates.get(variant, VARIANTS[variant].rate)


# --- What they come to -----------------------------------------------------------------------


def differences(runs):
    """Dict from each part to the paired differences of those of its variants that were trained."""
    found = {}
    for heading, pairs in PARTS.items():
        rows = []
        for variant, baseline in pairs:
            pair = [run for run in runs if run["optimizer"] in (variant, baseline)]
            rows += comparison.paired_difference(pair, baseline)
        if rows:
            found[heading] = rows
    return found


def width(rates, losses, margin=MARGIN):
    """Over how many decades around the best rate the loss stays within a margin of the best.

    Between two rates the loss is a line over log10 of the rate; where one of them diverged, the
    range ends at the other.

    Args:
        rates: Rates in rising order, at least one.
        losses: Their losses, NaN or infinite where training diverged.
        margin: In the losses' unit. Defaults to `MARGIN`.

    Returns:
        Decades, and whether the range ends before the rates do on either side. (NaN, False) where
        every rate diverged.
    """
    x = np.log10(rates)
    losses = np.where(np.isfinite(losses), losses, np.inf)
    best = int(np.argmin(losses))
    if not np.isfinite(losses[best]):
        return math.nan, False
    limit = losses[best] + margin
    ends = [_end(x[best:], losses[best:], limit), _end(x[best::-1], losses[best::-1], limit)]
    return abs(ends[0][0] - ends[1][0]), ends[0][1] and ends[1][1]


def _end(x, losses, limit):
    """Where the losses, first below the limit, reach it; the last x and False if they never do."""
    above = np.flatnonzero(losses > limit)
    if not len(above):
        return float(x[-1]), False
    k = above[0]
    if not np.isfinite(losses[k]):
        return float(x[k - 1]), True
    share = (limit - losses[k - 1]) / (losses[k] - losses[k - 1])
    return float(x[k - 1] + share * (x[k] - x[k - 1])), True


def robustness(runs):
    """How wide the range of working rates is: for each optimizer and seed, and compared.

    Args:
        runs: Runs of several optimizers, each of several rates over the same seeds.

    Returns:
        dict: `widths`, one dict for each optimizer and seed (`optimizer`, `seed`, `width`,
        `bounded`: whether the range ends within the rates, `best`: the lowest loss), and
        `differences`, those of the widths to ACClip's (`comparison.paired_difference`).
    """
    widths = []
    for optimizer in dict.fromkeys(run["optimizer"] for run in runs):
        for seed in dict.fromkeys(run["seed"] for run in runs):
            line = sorted(
                (run["learning_rate"], comparison.final(run)["val_loss"])
                for run in runs
                if (run["optimizer"], run["seed"]) == (optimizer, seed)
            )
            rates, losses = zip(*line, strict=True)
            decades, bounded = width(rates, losses)
            best = min((loss for loss in losses if math.isfinite(loss)), default=math.nan)
            row = {"optimizer": optimizer, "seed": seed, "width": decades}
            widths.append(row | {"bounded": bounded, "best": best})
    as_runs = [row | {"history": [row | {"seconds": 0.0}]} for row in widths]
    compared = comparison.paired_difference(as_runs, "acclip", measure="width")
    return {"margin": MARGIN, "widths": widths, "differences": compared}


# --- To read ---------------------------------------------------------------------------------


def draw_parts(found, path, title):
    """Saves the paired differences, a panel for each part.

    Args:
        found: `differences`'s.
        path: Where to save the figure.
        title: Its title.
    """
    heights = [len(rows) + 0.9 for rows in found.values()]
    with plots.style():
        figure, panels = plt.subplots(
            len(found),
            1,
            figsize=(9, 0.42 * sum(heights) + 1.2),
            height_ratios=heights,
            sharex=True,
            squeeze=False,
            layout="constrained",
        )
        for panel, (heading, rows) in zip(panels.flat, found.items(), strict=True):
            for y, row in enumerate(rows):
                values = row["differences"]
                panel.plot(values, [y] * len(values), "o", mfc="none", mec="#8a8a8a", ms=5)
                if math.isfinite(row["low"]):
                    panel.plot([row["low"], row["high"]], [y, y], "-", color="black")
                panel.plot(row["mean"], y, "D", color="#d55e00", ms=6)
            panel.axvline(0, color="black", linestyle=":", linewidth=1.2)
            names = [f"{row['optimizer']} − {row['baseline']}" for row in rows]
            panel.set_yticks(range(len(rows)), names)
            panel.set_ylim(len(rows) - 0.4, -0.6)
            panel.set_title(heading)
        panels.flat[-1].set_xlabel(
            "difference in validation loss (nats a token; left of 0: lower)\n"
            "diamond: mean; circles: seeds; line: 95% interval"
        )
        # What lies farther out has diverged.
        most = max((abs(row["mean"]) for rows in found.values() for row in rows), default=1.0)
        panels.flat[-1].set_xlim(-min(1.5 * most, 1), min(1.5 * most, 1))
        figure.suptitle(title, x=0.01, ha="left", fontweight="bold")
        plots.save(figure, path)
    plt.close(figure)


def draw_curves(runs, path, title, ceiling):
    """Saves loss against learning rate: mean and range over seeds, diverged runs as crosses.

    The rates of each optimizer are relative to its best, as their scales have nothing in common.

    Args:
        runs: Runs of several optimizers, each of several rates over the same seeds.
        path: Where to save the figure.
        title: Its title.
        ceiling: The loss above which a run counts as diverged.
    """
    best = comparison.best_rates(runs)
    with plots.style():
        figure, panel = plt.subplots(figsize=(8, 4.8), layout="constrained")
        for marker, (name, rate) in zip("os^Dvx", best.items(), strict=False):
            groups = comparison.grouped([run for run in runs if run["optimizer"] == name])
            rates = np.array([tried for _, tried in groups])
            losses = np.array(
                [[comparison.final(run)["val_loss"] for run in g] for g in groups.values()]
            )
            losses[~(losses <= ceiling)] = np.nan
            (line,) = panel.plot(
                rates / rate,
                losses.mean(1),
                marker=marker,
                markersize=5,
                label=f"{name}, best at {rate:.3g}: {losses.mean(1)[list(rates).index(rate)]:.3f}",
            )
            panel.fill_between(
                rates / rate,
                losses.min(1),
                losses.max(1),
                color=line.get_color(),
                alpha=0.15,
                linewidth=0,
            )
            diverged = rates[~np.isfinite(losses).all(1)] / rate
            panel.plot(
                diverged,
                np.full(len(diverged), 0.97),
                "x",
                color=line.get_color(),
                transform=panel.get_xaxis_transform(),
            )
        panel.set(xscale="log", xlabel="learning rate ÷ the optimizer's best")
        panel.set_ylabel("validation loss (nats a token)")
        panel.legend(title="× at the top: diverged on some seed")
        figure.suptitle(title, x=0.01, ha="left", fontweight="bold")
        plots.save(figure, path)
    plt.close(figure)


def report_search(runs):
    """Prints all rates tried. Returns each variant's best, and what was printed."""
    print(f"\nAll rates tried, seed {SEARCH_SEED}:\n{comparison.table(runs, COLUMNS)}")
    best = comparison.best_rates(runs)
    edges = comparison.at_the_edge(runs, best)
    for name in edges:
        print(f"{name}: the best rate is the grid's last; --rates moves its middle")
    return best, {"search": comparison.summary(runs, COLUMNS), "at_the_edge": edges}


def report_comparison(runs, options, title):
    """Prints and draws the parts. Returns what was printed."""
    found = differences(runs)
    print(f"\n{comparison.table(runs, COLUMNS)}")
    for heading, rows in found.items():
        print(f"\n{heading}\n{comparison.sentences(rows)}")
    if found:
        draw_parts(found, options.output / "ablation.png", title)
    return {"summary": comparison.summary(runs, COLUMNS), "differences": found}


def report_curves(runs, options, title):
    """Prints and draws the robustness curves. Returns what was printed."""
    found = robustness(runs)
    print(f"\nLoss against rate:\n{comparison.table(runs, COLUMNS)}\n")
    for row in found["widths"]:
        least = "" if row["bounded"] else "at least "
        print(
            f"{row['optimizer']}, seed {row['seed']}: within {MARGIN:g} nats of its best "
            f"({row['best']:.3f}) over {least}{row['width']:.2f} decades of rates"
        )
    print(comparison.sentences(found["differences"], "decades"))
    ceiling = math.log(options.vocabulary_size)  # What it costs to know nothing.
    draw_curves(runs, options.output / "robustness.png", title, ceiling)
    return {"curves": comparison.summary(runs, COLUMNS), "robustness": found}


# --- The command -----------------------------------------------------------------------------


def parse_arguments(arguments=None):
    """The command line, checked."""
    parser = script.parser(__doc__, SCALES, "out/ablation")
    token_rows.add_options(parser)
    add = parser.add_argument
    names = list(VARIANTS)
    add("--variants", type=script.names(VARIANTS), default=names, help=", ".join(names))
    add("--rates", type=script.rates(VARIANTS), default={}, help="middles: acclip=3e-3,adam=2e-3")
    add("--tune", action="store_true", help="only look for the middles, five rates √10 apart")
    add(
        "--curves",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="loss against rate over two decades (the default)",
    )
    options = script.parse(parser, SCALES, arguments)
    if options.validation_text and not options.text:
        parser.error("--validation-text needs --text")
    if options.warmup >= options.steps:
        parser.error(f"--warmup {options.warmup} must be below --steps {options.steps}")
    if options.hidden % HEAD:
        parser.error(f"--hidden {options.hidden} must be a multiple of {HEAD}, the size of a head")
    if options.batch_size % 4:
        parser.error(
            f"--batch-size {options.batch_size} must be a multiple of 4: a quarter of it is tried"
        )
    return options


def conduct(options, runs_of):
    """Trains what the command line asks for and reports. Returns the results.

    Args:
        options: The parsed command line.
        runs_of: Function from a plan to its runs.
    """
    grid = COARSE_GRID if options.tune else GRID
    best, results = report_search(runs_of(search_plan(options, grid)))
    if options.tune:
        return results
    model = f"{options.layers}-layer GPT-2, {options.steps} steps of {options.batch_size} × "
    model += f"{options.sequence_length} tokens"
    runs = runs_of(comparison_plan(options, best))
    results |= report_comparison(
        runs, options, f"ACClip's parts: {model}, seeds 1 to {options.seeds}"
    )
    plan = curve_plan(options) if options.curves else []
    if plan:
        seeds = f"seeds 1 to {options.curve_seeds}"
        results |= report_curves(runs_of(plan), options, f"{model}, {seeds}")
    return results | {"runs": runs}


def main(arguments=None):
    """Reads the command line, trains what it asks for and reports. Returns the exit status."""
    options = parse_arguments(arguments)
    fixed = [name for name in SCALES["small"] if name not in ("seeds", "curve_seeds")]
    settings = {name: getattr(options, name) for name in fixed}
    try:
        rows = token_rows.load(options)
        settings["text"] = f"{rows.name} ({rows.fingerprint})"
        parts = script.Parts(options.output, settings)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{rows.name}: {len(rows.train)} rows to train on, {len(rows.validation)} held out")
    task = functools.cache(lambda: Task(rows, settings))

    @functools.cache
    def stepper_of(variant):
        return Stepper(variant, len(task().start(SEARCH_SEED)))

    def run(variant, rate, seed):
        return train(variant, rate, seed, task(), stepper_of)

    def runs_of(plan):
        runs = []
        for number, (variant, rate, seed) in enumerate(plan, 1):
            name = f"{variant}-{rate:.6g}-{seed}"
            runs.append(parts(name, run, variant, rate, seed))
            loss = comparison.final(runs[-1])["val_loss"]
            print(f"[{number}/{len(plan)}] {name}: validation loss {loss:.4f}", flush=True)
        return runs

    try:
        results = conduct(options, runs_of)
    except KeyboardInterrupt:
        print(f"\nStopped. The same command goes on from here ({options.output}).")
        return 130
    parts.finish(results, ("keras", "keras-hub", "tensorflow"))
    print(f"\nWritten under {options.output}: results.json and the figures")
    return 0


if __name__ == "__main__":
    sys.exit(main())
