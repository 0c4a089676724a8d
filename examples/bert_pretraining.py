"""Pretrains a small BERT on real text, once with each optimizer, and compares them.

    python examples/bert_pretraining.py
    python examples/bert_pretraining.py --text 'books/*.txt.gz' --optimizers acclip,adam --tune

A 2-layer post-LN BERT (KerasHub) learns to fill in masked words. Every optimizer gets the same
initial weights, the same batches with the same masks, and the same linear warm-up and decay; only
the update rule and its learning rate differ. At the end stands a table (mean ± standard deviation
over seeds) and the paired difference to Adam; `results.json` and `loss.png` hold the rest.

Stopped by whatever means and started again with the same `--output`, it goes on after the last
finished epoch, with the result that it would have had. The text is `keras_acclip.text.corpus`'s, the
statistics are `comparison.py`'s.

Where the default rates come from: the default job at several rates, final validation loss of seeds
0 and 1 (`--tune`, 2 cores of a Sapphire Rapids, TensorFlow 2.21; Adam's on one core of a Zen 3,
seeds 2 and 3 behind, where it was measured):

    acclip  0.001: 5.168, 5.174    0.0014: 5.136, 5.138    0.002: 5.103, 5.132 (5.088, 5.122)
            0.0028: 5.087, 5.136    0.004: 5.158 (seed 0 alone)
    adam    0.001: 5.292 (seed 0 alone)    0.0014: 5.212, 5.222    0.002: 5.219, 5.216, 5.088, 5.176
            0.0028: 5.419, 5.242    0.002 with beta_2 0.99: 5.188
    sgd     0.2: 5.349, 5.371    0.28: 5.350, 5.356    0.4: 5.357, 5.399

On the Zen 3, over seeds 0 to 3, ACClip at 0.002 ended 0.064 below Adam at 0.002 (95% interval
-0.142 to +0.015; lower on three seeds, equal on one). With 1,600 steps and a warm-up of 600, on
seed 0: 4.870 (0.003) against 5.059 (0.002).

    python examples/bert_pretraining.py --optimizers acclip,adam --tune

tries five rates for each on both seeds. The rates of adamw, gclip and cclip are not tuned.
"""

import argparse
import functools
import sys
from importlib.metadata import version

import comparison
import experiment
import keras
import keras_hub
import numpy as np
import script
import tensorflow as tf
import token_rows
from script import write_json

import keras_acclip
from keras_acclip.text.vocabulary import SPECIAL_TOKENS

MASK_RATE = 0.15  # Of a row's tokens; the rates of BERT (Devlin et al., 2019).
PAD, CLS, SEP, UNK, MASK = range(len(SPECIAL_TOKENS))

SCALES = {
    "small": {
        "steps": 1000,
        "warmup": 500,
        "epochs": 8,
        "batch_size": 16,
        "sequence_length": 64,
        "layers": 2,
        "hidden": 128,
        "vocabulary_size": 4096,
        "validation_rows": 1024,
        "seeds": 2,
        "noise_batches": 256,
    },
    "smoke": {
        "steps": 20,
        "warmup": 5,
        "epochs": 2,
        "batch_size": 8,
        "sequence_length": 32,
        "layers": 1,
        "hidden": 64,
        "vocabulary_size": 512,
        "validation_rows": 16,
        "seeds": 1,
        "noise_batches": 16,
    },
}


def adamw(rate):
    """AdamW as BERT uses it: no decay of biases and layer normalizations."""
    optimizer = keras.optimizers.AdamW(rate, weight_decay=0.01)
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return optimizer


OPTIMIZERS = {
    "acclip": lambda rate: keras_acclip.ACClip(rate),
    "adam": lambda rate: keras.optimizers.Adam(rate),
    "adamw": adamw,
    "sgd": lambda rate: keras.optimizers.SGD(rate, momentum=0.9),
    "gclip": lambda rate: keras_acclip.GClip(rate, threshold=0.5, momentum=0.9),
    "cclip": lambda rate: keras_acclip.CClip(rate, threshold=1e-3, momentum=0.9),
}
RATES = {"acclip": 2e-3, "adam": 2e-3, "adamw": 2e-3, "sgd": 0.28, "gclip": 0.3, "cclip": 1.0}
NOISE_SEED = 2**30  # The noise is measured on batches that no run trains on.
GRID = (1 / 2, 1 / 2**0.5, 1, 2**0.5, 2)  # Times the rate above, for --tune.


# --- Data ------------------------------------------------------------------------------------


def training_batches(rows, vocabulary_size, batch_size, seed, first, last):
    """Batches number `first` to `last` of training, each a function of the seed and its number.

    So every optimizer sees the same, and a resumed run needs no state of the data to go on. (The
    mask generators of KerasHub and TensorFlow Text draw from a stateful generator.)

    Args:
        rows: int array of shape `(rows, sequence_length)`, shuffled anew for each pass over them.
        vocabulary_size: Number of tokens.
        batch_size: Rows a batch.
        seed: An int.
        first: Number of the first batch.
        last: Number after the last batch's.

    Returns:
        A `tf.data.Dataset` of `mask_tokens`'s pairs.
    """
    passes = range(-(-last * batch_size // len(rows)))
    order = np.concatenate(
        [np.random.default_rng((seed, p)).permutation(len(rows)) for p in passes]
    )
    numbers = np.arange(first, last)
    # No more of the rows than are read, as a copy of the dataset copies them.
    used, order = np.unique(order[first * batch_size : last * batch_size], return_inverse=True)
    rows, order = tf.constant(rows[used]), order.reshape(len(numbers), batch_size)

    def batch(number, chosen):
        return mask_tokens(tf.gather(rows, chosen), vocabulary_size, (seed, number))

    batches = tf.data.Dataset.from_tensor_slices((numbers, order))
    return batches.map(batch, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)


def validation_batches(rows, vocabulary_size, batch_size, count):
    """`count` evenly spread held-out rows, with masks that are always the same."""
    spread = rows[np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(int)]
    inputs, labels = mask_tokens(tf.constant(spread), vocabulary_size, (2**31 - 1, 0))
    return tf.data.Dataset.from_tensor_slices((inputs, labels)).batch(batch_size).cache()


def mask_tokens(tokens, vocabulary_size, seed):
    """BERT's masking: 15% of a row are to be predicted; 80% of these become `[MASK]`, 10% a random
    token, 10% stay.

    Args:
        tokens: int32 tensor of shape `(batch, length)`.
        vocabulary_size: Number of tokens.
        seed: Two ints.

    Returns:
        The inputs of KerasHub's `BertMaskedLM`, and the tokens to predict: int32 of shape
        `(batch, round(0.15 · length))`.
    """
    count = round(MASK_RATE * tokens.shape[1])
    seeds = tf.random.split(seed, 3)
    order = tf.random.stateless_uniform(tf.shape(tokens), seeds[0])
    order = tf.where((tokens == CLS) | (tokens == SEP), 1.0, order)
    positions = tf.argsort(order)[:, :count]
    labels = tf.gather(tokens, positions, batch_dims=1)

    fate = tf.random.stateless_uniform(tf.shape(labels), seeds[1])
    other = tf.random.stateless_uniform(
        tf.shape(labels), seeds[2], len(SPECIAL_TOKENS), vocabulary_size, tf.int32
    )
    replaced = tf.where(fate < 0.8, MASK, tf.where(fate < 0.9, other, labels))
    row = tf.broadcast_to(tf.range(tf.shape(tokens)[0])[:, None], tf.shape(positions))
    masked = tf.tensor_scatter_nd_update(tokens, tf.stack([row, positions], -1), replaced)
    inputs = {
        "token_ids": masked,
        "segment_ids": tf.zeros_like(tokens),
        "padding_mask": tf.ones_like(tokens),
        "mask_positions": positions,
    }
    return inputs, labels


# --- Model and training ----------------------------------------------------------------------


def build_model(vocabulary_size, settings):
    """A BERT encoder with the masked-LM head, from scratch.

    Without dropout: no row is seen often enough to be learned by heart.
    """
    backbone = keras_hub.models.BertBackbone(
        vocabulary_size=vocabulary_size,
        num_layers=settings["layers"],
        num_heads=settings["hidden"] // 64,
        hidden_dim=settings["hidden"],
        intermediate_dim=4 * settings["hidden"],
        dropout=0.0,
        max_sequence_length=settings["sequence_length"],
    )
    backbone.pooled_dense.trainable = False  # Only next-sentence prediction would train it.
    return keras_hub.models.BertMaskedLM(backbone)


def gradient_noise(rows, settings, folder, at_start, verbose):
    """The callback that measures the gradient noise, always on the same batches."""
    count = settings["noise_batches"]
    data = (rows.train, len(rows.vocabulary), settings["batch_size"])
    return experiment.StagedNoise(
        training_batches(*data, NOISE_SEED, 0, count),
        num_batches=count,
        at_start=at_start,
        save_dir=folder / "noise",
        verbose=verbose,
    )


def train(spec, rows, settings, output, noisy, alone):
    """One run, from its start or from where it was.

    Args:
        spec: The optimizer, a name in `OPTIMIZERS`; the schedule's peak; the seed of the initial
            weights, the order of the rows and the masks.
        rows: `token_rows.TokenRows`.
        settings: The values of `SCALES`.
        output: The output folder.
        noisy: The run whose gradient noise is measured, into `noise` in its folder.
        alone: Whether no other run is trained at the same time; else it says a line an epoch.

    Returns:
        The run, as `comparison` takes it.
    """
    optimizer, rate, seed = spec
    folder = experiment.folder(output, *spec)
    one_line = 1 if sys.stdout.isatty() else 2
    verbose = one_line if alone else 0
    name = None if alone else f"{optimizer}, {rate:.3g}, seed {seed}"
    run = {"optimizer": optimizer, "learning_rate": rate, "seed": seed}
    epochs, batch_size = settings["epochs"], settings["batch_size"]
    steps_per_epoch = settings["steps"] // epochs
    progress = experiment.Progress(
        folder, steps_per_epoch, batch_size * settings["sequence_length"], name=name
    )
    done = len(progress.history)
    if done == epochs:
        return run | {"history": progress.history}

    keras.backend.clear_session()
    keras.utils.set_random_seed(seed)
    model = build_model(len(rows.vocabulary), settings)
    schedule = experiment.WarmupLinearDecay(rate, settings["warmup"], settings["steps"])
    model.compile(
        optimizer=OPTIMIZERS[optimizer](schedule),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        weighted_metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
        jit_compile=True,  # "auto" leaves KerasHub's BERT uncompiled, which is slower on a CPU.
    )
    progress.restore(model)
    callbacks = [progress]
    if spec == noisy:
        callbacks.insert(0, gradient_noise(rows, settings, folder, done == 0, verbose))
    data = (len(rows.vocabulary), batch_size)
    model.fit(
        training_batches(rows.train, *data, seed, done * steps_per_epoch, settings["steps"]),
        validation_data=validation_batches(rows.validation, *data, settings["validation_rows"]),
        initial_epoch=done,
        epochs=epochs,
        steps_per_epoch=steps_per_epoch,
        callbacks=callbacks,
        shuffle=False,  # The batches are shuffled already.
        verbose=verbose,
    )
    progress.history.finish()
    return run | {"history": progress.history}


# --- The command -----------------------------------------------------------------------------


def parse_arguments(arguments=None):
    """The command line, checked."""
    parser = script.parser(__doc__, SCALES, "out/bert_pretraining")
    token_rows.add_options(parser)
    experiment.add_jobs(parser)
    experiment.add_arguments(parser, RATES, ["acclip", "adam", "sgd"], GRID)
    parser.add_argument(
        "--noise",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="measure the gradient noise along the first optimizer's first run (the default)",
    )
    options = script.parse(parser, SCALES, arguments)
    options.jobs = experiment.jobs(options)
    if options.validation_text and not options.text:
        parser.error("--validation-text needs --text")
    experiment.check_schedule(parser, options)
    if options.hidden % 64:
        parser.error(f"--hidden {options.hidden} must be a multiple of 64, the size of a head")
    return options


def plan_runs(options):
    """The runs asked for, as (optimizer, rate, seed)."""
    return experiment.plan(options, RATES, GRID)


def noisy_run(options):
    """The run whose gradient noise is measured: the first optimizer's, untuned, seed 0."""
    name = options.optimizers[0]
    return (name, (RATES | options.rates)[name], 0) if options.noise else None


def report_noise(spec, options):
    """Draws the noise along the run `spec`; prints and returns what it suggests."""
    found = experiment.report_noise(
        experiment.folder(options.output, *spec),
        options.output / "noise.png",
        f"Gradient noise, {spec[0]}, batches of {options.batch_size}",
        options.steps,
    )
    return found and {"run": spec} | found


def report(runs, options, settings):
    """Prints and saves what came out."""
    results = {"settings": settings, "versions": {n: version(n) for n in ("keras", "tensorflow")}}
    runs, found = experiment.report(runs, options.tune)
    results |= found
    title = f"{options.layers}-layer BERT, {options.steps} steps, {options.seeds} seeds"
    if options.noise:
        results["noise"] = report_noise(noisy_run(options), options)
    comparison.plot_losses(runs, options.output / "loss.png", title)
    write_json(options.output / "results.json", comparison.plain(results))
    print(
        f"\nWritten under {options.output}: results.json, loss.png" + ", noise.png" * options.noise
    )


def main(arguments=None):
    """Reads the command line, trains what it asks for and reports. Returns the exit status."""
    options = parse_arguments(arguments)
    names = [name for name in (*SCALES["small"], "noise") if name != "seeds"]
    settings = {name: getattr(options, name) for name in names}

    def prepare():
        rows = token_rows.load(options)
        settings["text"] = f"{rows.name} ({rows.fingerprint})"
        script.claim_output(options.output, settings)
        print(f"{rows.name}: {len(rows.train)} rows to train on, {len(rows.validation)} held out")
        one = functools.partial(
            train,
            rows=rows,
            settings=settings,
            output=options.output,
            noisy=noisy_run(options),
            alone=options.jobs == 1,
        )
        return experiment.start_missing(one, plan, options.output, options.epochs, options.jobs)

    plan = plan_runs(options)
    return experiment.conduct(
        plan, options.output, prepare, lambda runs: report(runs, options, settings)
    )


if __name__ == "__main__":
    sys.exit(main())
