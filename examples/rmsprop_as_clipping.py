"""RMSProp is adaptive coordinate clipping: the paper's Discussion, checked on a training run.

    python examples/rmsprop_as_clipping.py
    python examples/rmsprop_as_clipping.py --text 'books/*.txt.gz' --beta-2 0.999 --epsilon 1e-8

RMSProp, which is Adam without momentum, moves each coordinate by h_Adam·g:

    x ← x − h_Adam·g,    h_Adam = α / (ε + √(β2·v + (1−β2)·g²)),    v ← β2·v + (1−β2)·g².

Clipping each coordinate at a threshold of its own moves it by h_clip·g:

    h_clip = η·min(τ/|g|, 1),    τ = (ε + √(β2·v)) / √(1−β2),    η = α / (ε + √(β2·v)).

The claim: for every v, g, α, β2 and ε, ½·h_clip ≤ h_Adam ≤ 2·h_clip.

It holds, and more: with a = √(β2·v) and b = √(1−β2)·|g|, h_clip is α / max(ε + a, b), and

    max(ε + a, b) ≤ ε + √(a² + b²) ≤ ε + a + b ≤ 2·max(ε + a, b),

so that h_Adam ≤ h_clip ≤ 2·h_Adam: clipping never takes the smaller step. The ratio reaches 2 only
where v = 0 and b = ε; with ε = 0 it is at most √2, where b = a, the border of being clipped.

The small BERT of `bert_pretraining.py` is trained with each of the two, from the same weights on
the same batches at the same rates. At several steps of both runs the ratio h_clip / h_Adam is taken
for every coordinate, in float64, with the v that the run has come to and the g of its next batch.
Under `--output`: `ratio.png` (the ratio and the share of clipped coordinates over training, the
ratio's histogram at the end, the losses) and `results.json`. Stopped and started again, it goes on
after the last stage measured.

Measured by the first command (seeds 0 and 1, 931,050 coordinates, 9 stages of each run, TensorFlow
2.20; 4.5 minutes on 2 busy cores): no coordinate was ever outside the paper's bounds, nor below 1.
Before the first step, where v = 0, the ratio's median is 1.42 to 1.46 and 57% of the coordinates
are clipped; from step 39 on its median is at most 1.004, its 99th percentile 1.20, its largest
value 1.65 (1.68 on a Zen 3), and 0.1 to 0.4% are clipped, at the end nearly all of them token
embeddings. Trained with the clipping in RMSProp's place, the model ended 0.303 above RMSProp's loss
on one seed and 0.361 below on the other (0.268 and 0.448 below on the Zen 3): at this rate, which
is tuned for neither, both are unstable, and two seeds tell nothing about their difference.
"""

import functools
import math
import sys
import time

import bert_pretraining as bert
import comparison
import experiment
import keras
import matplotlib.pyplot as plt
import numpy as np
import script
import tensorflow as tf
import token_rows
from keras import ops
from stages import train_in_stages

from keras_acclip.noise import plots

SCALES = {
    "small": {
        "steps": 600,
        "warmup": 300,
        "rate": 2e-3,
        "beta_2": 0.99,
        "epsilon": 1e-5,
        "batch_size": 16,
        "sequence_length": 64,
        "layers": 2,
        "hidden": 128,
        "vocabulary_size": 4096,
        "validation_rows": 256,
        "seeds": 2,
    },
    "smoke": {
        "steps": 12,
        "warmup": 5,
        "rate": 2e-3,
        "beta_2": 0.99,
        "epsilon": 1e-5,
        "batch_size": 8,
        "sequence_length": 32,
        "layers": 1,
        "hidden": 64,
        "vocabulary_size": 512,
        "validation_rows": 16,
        "seeds": 1,
    },
    # The paper states β2, ε and the rate; the rest is BERT's (base; Devlin et al., 2019).
    "paper": {
        "steps": 36_000,
        "warmup": 10_000,
        "rate": 1e-4,
        "beta_2": 0.99,
        "epsilon": 1e-5,
        "batch_size": 256,
        "sequence_length": 128,
        "layers": 12,
        "hidden": 768,
        "vocabulary_size": 30_522,
        "validation_rows": 4096,
        "seeds": 1,
    },
}
STAGES = 9  # From the start to the end of training, ever further apart.
QUANTILES = (0, 0.01, 0.25, 0.5, 0.75, 0.99, 0.999, 1)
BOUNDS = (0.5, 2)  # The paper's, of h_clip / h_Adam.
BINS = np.linspace(1, 2, 51)
GROUPS = {  # Part of the network: what its variables' paths hold; a variable belongs to the first.
    "token embeddings": "token_embedding",
    "attention": "self_attention",
    "feed-forward": "feedforward",
    "the rest": "",
}


# --- The two step sizes ----------------------------------------------------------------------


def adam_step(v, g, rate, beta_2, epsilon, ops=np):
    """What RMSProp multiplies each coordinate of the gradient with, h_Adam.

    Args:
        v: Mean square of the earlier gradients.
        g: Gradient.
        rate: α.
        beta_2: β2.
        epsilon: ε.
        ops: Where `sqrt`, `abs` and `maximum` come from: NumPy or `keras.ops`.
    """
    return rate / (epsilon + ops.sqrt(beta_2 * v + (1 - beta_2) * g * g))


def clip_step(v, g, rate, beta_2, epsilon, ops=np):
    """What clipping multiplies each coordinate with, h_clip = η·min(τ/|g|, 1); see `adam_step`."""
    tau = threshold(v, beta_2, epsilon, ops)
    eta = rate / (epsilon + ops.sqrt(beta_2 * v))
    return eta * (tau / ops.maximum(tau, ops.abs(g)))


def threshold(v, beta_2, epsilon, ops=np):
    """The threshold τ that each coordinate is clipped at."""
    return (epsilon + ops.sqrt(beta_2 * v)) / math.sqrt(1 - beta_2)


STEPS = {"rmsprop": adam_step, "clipping": clip_step}


@keras.saving.register_keras_serializable(package="keras_acclip_examples")
class StepSize(keras.optimizers.Optimizer):
    """RMSProp as the paper writes it, or the clipping that it stands beside.

    Args:
        learning_rate: α, or its schedule.
        step: A name in `STEPS`.
        beta_2: β2.
        epsilon: ε.
    """

    def __init__(self, learning_rate, step, beta_2, epsilon, **kwargs):
        super().__init__(learning_rate=learning_rate, **kwargs)
        self.step, self.beta_2, self.epsilon = step, beta_2, epsilon

    def build(self, variables):
        """Makes v, the mean square of the gradients, for each variable."""
        if not self.built:
            super().build(variables)
            self.mean_squares = [
                self.add_variable_from_reference(variable, "mean_square") for variable in variables
            ]

    def update_step(self, gradient, variable, learning_rate):
        """One step: x ← x − h·g, then v ← β2·v + (1−β2)·g²."""
        rate, g = ops.cast(learning_rate, variable.dtype), tf.convert_to_tensor(gradient)
        v = self.mean_squares[self._get_variable_index(variable)]
        step = STEPS[self.step](v, g, rate, self.beta_2, self.epsilon, ops)
        self.assign_sub(variable, step * g)
        self.assign(v, self.beta_2 * v + (1 - self.beta_2) * g * g)

    def get_config(self):
        """The arguments, as Keras wants them."""
        own = {"step": self.step, "beta_2": self.beta_2, "epsilon": self.epsilon}
        return super().get_config() | own


# --- Their ratio over the coordinates --------------------------------------------------------


def distribution(v, g, groups, beta_2, epsilon):
    """How h_clip / h_Adam is distributed over coordinates.

    Args:
        v: Mean squares, one-dimensional.
        g: Gradients, of the same shape.
        groups: Of each coordinate, the place of its group in `GROUPS`.
        beta_2: β2.
        epsilon: ε.

    Returns:
        dict: `coordinates` (their number); `quantiles` of the ratio, at `QUANTILES`; `outside`
        (number outside the paper's bounds); `below_one` (number below 1 by more than rounding);
        `counts` of the ratio in `BINS`; and shares of the coordinates: `clipped` (|g| above τ),
        `clipped_by_group`, `still` (g = 0), `small` (√(β2·v) below ε).
    """
    v, g = np.asarray(v, np.float64), np.asarray(g, np.float64)
    ratio = clip_step(v, g, 1.0, beta_2, epsilon) / adam_step(v, g, 1.0, beta_2, epsilon)
    clipped = np.abs(g) > threshold(v, beta_2, epsilon)
    low, high = BOUNDS
    sizes = np.bincount(groups, minlength=len(GROUPS))
    by_group = np.bincount(groups, clipped, len(GROUPS)) / np.maximum(sizes, 1)
    return {
        "coordinates": len(ratio),
        "quantiles": np.quantile(ratio, QUANTILES).tolist(),
        "outside": int(np.sum((ratio < low) | (ratio > high))),
        "below_one": int(np.sum(ratio < 1 - 1e-12)),
        "counts": np.histogram(np.clip(ratio, BINS[0], BINS[-1]), BINS)[0].tolist(),
        "clipped": float(np.mean(clipped)),
        "clipped_by_group": dict(zip(GROUPS, by_group.tolist(), strict=True)),
        "still": float(np.mean(g == 0)),
        "small": float(np.mean(np.sqrt(beta_2 * v) < epsilon)),
    }


def group_of(path):
    """The place in `GROUPS` of a variable with this path."""
    return next(i for i, part in enumerate(GROUPS.values()) if part in path)


# --- A run -----------------------------------------------------------------------------------


def follow(step, seed, rows, settings, folder, verbose):
    """Trains the BERT with one of `STEPS` and measures the ratio along the way, or goes on.

    Args:
        step: A name in `STEPS`.
        seed: Of the initial weights and the training batches.
        rows: `token_rows.TokenRows`.
        settings: The values of `SCALES`.
        folder: Where the run keeps its state.
        verbose: As in `model.fit`.

    Returns:
        The run, as `comparison` takes it; its history has a row for each stage.
    """
    run = {"optimizer": step, "learning_rate": settings["rate"], "seed": seed}
    history = experiment.History(folder)
    stages = measured_steps(settings["steps"])
    if len(history) == len(stages):
        return run | {"history": list(history)}
    keras.backend.clear_session()
    keras.utils.set_random_seed(seed)
    model = bert.build_model(len(rows.vocabulary), settings)
    constants = settings["beta_2"], settings["epsilon"]
    schedule = experiment.WarmupLinearDecay(settings["rate"], settings["warmup"], settings["steps"])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(StepSize(schedule, step, *constants), loss, jit_compile=settings["steps"] > 100)
    variables = model.trainable_variables
    model.optimizer.build(variables)
    groups = np.concatenate([np.full(math.prod(v.shape), group_of(v.path)) for v in variables])
    data = len(rows.vocabulary), settings["batch_size"]
    batches = functools.partial(bert.training_batches, rows.train, *data, seed)
    held_out = bert.validation_batches(rows.validation, *data, settings["validation_rows"])
    gradient = tf.function(functools.partial(flat_gradient, model))
    started = time.perf_counter()

    def measure(number):
        nonlocal started
        ((inputs, labels),) = batches(number, number + 1)
        g = gradient(inputs, labels).numpy()
        v = flat(model.optimizer.mean_squares).numpy()
        row = distribution(v, g, groups, *constants)
        row["val_loss"] = float(model.evaluate(held_out, verbose=0, return_dict=True)["loss"])
        row["seconds"], started = time.perf_counter() - started, time.perf_counter()
        low, *_, high = row["quantiles"]
        print(f"{step}, seed {seed}, step {number:,}: ratio {low:.6f} to {high:.6f}", flush=True)
        return row

    rows = train_in_stages(model, stages, batches, measure, history, verbose)
    return run | {"history": rows}


def measured_steps(steps):
    """The stages of so many steps: 0, 1, the last, and some between, ever further apart."""
    apart = np.unique(np.geomspace(1, steps, STAGES - 1).round().astype(int))
    return [0, *apart.tolist()]


def flat_gradient(model, inputs, labels):
    """The gradient of a batch's loss, all variables in one row."""
    with tf.GradientTape() as tape:
        outputs = model(inputs, training=True)
        loss = model.compute_loss(x=inputs, y=labels, y_pred=outputs, training=True)
    return flat(tape.gradient(loss, [v.value for v in model.trainable_variables]))


def flat(tensors):
    """Tensors as one row."""
    return tf.concat([tf.reshape(tf.convert_to_tensor(tensor), [-1]) for tensor in tensors], 0)


# --- To read ---------------------------------------------------------------------------------


def table(runs):
    """The stages of all runs as a Markdown table."""
    header = "step size of the run, seed, step, least ratio, median, 99%, 99.9%, largest, outside"
    rows = [[*header.split(", "), "clipped", "g = 0", "√(β2·v) < ε", "validation loss"]]
    for run in runs:
        for row in run["history"]:
            quantiles = dict(zip(QUANTILES, row["quantiles"], strict=True))
            cells = [run["optimizer"], str(run["seed"]), f"{row['step']:,}"]
            cells += [f"{quantiles[q]:.4f}" for q in (0, 0.5, 0.99, 0.999, 1)]
            cells.append(f"{row['outside']:,} of {row['coordinates']:,}")
            cells += [f"{row[name]:.3%}" for name in ("clipped", "still", "small")]
            rows.append([*cells, f"{row['val_loss']:.3f}"])
    return comparison.markdown(rows)


def draw(runs, path, title):
    """Saves the ratio over training and at the end, the clipped share, and the losses.

    Args:
        runs: Runs of one seed, one for each of `STEPS`.
        path: Where to save the figure.
        title: Its title.
    """
    with plots.style():
        figure, panels = plt.subplots(2, 2, figsize=(12, 8), layout="constrained")
        (ratio, histogram), (clipped, loss) = panels
        first = runs[0]["history"]
        steps = [row["step"] for row in first]
        for q, label, marker in (
            (1, "largest", "^"),
            (0.999, "99.9%", "D"),
            (0.99, "99%", "s"),
            (0.5, "median", "o"),
            (0, "least", "v"),
        ):
            values = [row["quantiles"][QUANTILES.index(q)] for row in first]
            ratio.plot(steps, values, marker=marker, markersize=4.5, label=label)
        for bound in BOUNDS:
            ratio.axhline(bound, color="black", linestyle=":", linewidth=1.2)
        ratio.annotate(
            "the paper's bounds: ½ and 2",
            (0.98, 0.55),
            ha="right",
            xycoords=ratio.get_yaxis_transform(),
        )
        ratio.set(title=f"Ratio of the steps, {runs[0]['optimizer']}", ylabel="h_clip / h_Adam")
        ratio.set_ylim(0.4, 2.1)
        for run, marker in zip(runs, "os", strict=True):
            rows = run["history"]
            label = {"label": run["optimizer"], "marker": marker, "markersize": 4.5}
            histogram.stairs(
                rows[-1]["counts"],
                BINS,
                label=run["optimizer"],
                linestyle="-" if marker == "o" else "--",
            )
            clipped.plot(steps, [100 * row["clipped"] for row in rows], **label)
            loss.plot(steps, [row["val_loss"] for row in rows], **label)
        histogram.axvline(
            math.sqrt(2), color="black", linestyle=":", label="√2, the bound for ε = 0"
        )
        histogram.set(title=f"At the end, step {steps[-1]:,}", xlabel="h_clip / h_Adam")
        histogram.set(ylabel="coordinates in a bin (count)", yscale="log")
        clipped.set(title="Clipped coordinates, |g| > τ", ylabel="share of coordinates (%)")
        loss.set(title="Validation", ylabel="masked-LM cross-entropy (nats a token)")
        for panel in (ratio, clipped, loss):
            panel.set_xscale("symlog", linthresh=1)
            panel.xaxis.set_major_formatter("{x:,.0f}")
            panel.set(xlabel="step", xlim=(-0.1, 1.3 * steps[-1]))
        for panel in panels.flat:
            panel.legend()
        figure.suptitle(title, x=0.01, ha="left", fontweight="bold")
        plots.save(figure, path)
    plt.close(figure)


# --- The command -----------------------------------------------------------------------------


def parse_arguments(arguments=None):
    """The command line, checked."""
    parser = script.parser(__doc__, SCALES, "out/rmsprop_as_clipping")
    token_rows.add_options(parser)
    options = script.parse(parser, SCALES, arguments)
    if options.warmup >= options.steps:
        parser.error(f"--warmup {options.warmup} must be below --steps {options.steps}")
    if options.beta_2 >= 1:
        parser.error(f"--beta-2 {options.beta_2} must be below 1")
    if options.hidden % 64:
        parser.error(f"--hidden {options.hidden} must be a multiple of 64, the size of a head")
    return options


def report(runs, parts, options):
    """Prints and saves what came out."""
    differences = comparison.paired_difference(runs, "rmsprop")
    ends = [run["history"][-1] for run in runs]
    print(f"\n{table(runs)}\n")
    print("Clipped at the end, by part of the network (mean over runs): ", end="")
    shares = {g: np.mean([row["clipped_by_group"][g] for row in ends]) for g in GROUPS}
    print(", ".join(f"{group} {share:.3%}" for group, share in shares.items()))
    print(comparison.sentences(differences))
    title = f"RMSProp and clipping, {options.layers}-layer BERT, β2 {options.beta_2:g}"
    drawn = [run for run in runs if run["seed"] == 0]
    draw(drawn, options.output / "ratio.png", f"{title}, ε {options.epsilon:g}")
    results = {"quantiles": QUANTILES, "bins": BINS.tolist(), "runs": runs}
    parts.finish(results | {"differences": differences}, ("keras", "keras-hub", "tensorflow"))
    print(f"\nWritten under {options.output}: results.json, ratio.png")


def main(arguments=None):
    """Reads the command line, trains and measures what it asks for. Returns the exit status."""
    options = parse_arguments(arguments)
    settings = {name: getattr(options, name) for name in SCALES["small"] if name != "seeds"}
    try:
        rows = token_rows.load(options)
        settings["text"] = f"{rows.name} ({rows.fingerprint})"
        parts = script.Parts(options.output, settings)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{rows.name}: {len(rows.train)} rows to train on, {len(rows.validation)} held out")
    verbose = 1 if sys.stdout.isatty() else 2
    try:
        runs = [
            follow(
                step,
                seed,
                rows,
                settings,
                experiment.folder(options.output, step, options.rate, seed),
                verbose,
            )
            for step in STEPS
            for seed in range(options.seeds)
        ]
    except KeyboardInterrupt:
        print(f"\nStopped. The same command goes on from here ({options.output}).")
        return 130
    report(runs, parts, options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
