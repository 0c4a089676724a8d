"""Measures the gradient noise of five networks along their training: the paper's Figures 1, 2, 4.

    python examples/noise_histograms.py
    python examples/noise_histograms.py --text 'books/*.txt.gz' --images cifar10
    python examples/noise_histograms.py --scale paper --text 'wiki/*.gz' --tfds imagenet2012

The claim (Section 2, Section 5.3): the norms ‖g − ∇f(x)‖ of the gradient noise are heavy-tailed
for attention models on text and concentrated for ResNets on images, from the start and throughout
training; both the architecture and the data have a part in it.

Four networks differ in two things alone, the two by two of Figure 4: whether their blocks have
self-attention or, in its place, a residual feed-forward block with as many parameters; and whether
they see the text, or Gaussian vectors where the text's token embeddings would be. All four predict
the same masked words of the same rows (on Gaussian input only their frequencies can be learned).
The fifth is the ResNet of Figure 1, on images. The four are trained with Adam, the ResNet with SGD
with momentum. Their noise is measured at initialization and at five stages of training, always on
the same batches, of `--noise-batch-size` examples in every network.

Under `--output`: `figure1.png` (the ResNet above the BERT with attention on text, both at the end:
histogram with the Gaussian and the α-stable reference, variance against sample size, tail),
`figure2-….png` (a network's histograms over training), `figure4-….png` (the two by two at a
stage), `results.json` and all norms (`noise/`). A difference between two networks has a paired
bootstrap interval over the batches that both saw: it covers the choice of batches, not of seeds.
Stopped and started again, it goes on after the last stage measured.

Measured with `--steps 540 --warmup 270 --image-steps 540 --noise-batches 400`, 17 minutes of one
core, seed 0, TensorFlow 2.20; Hill's index at initialization and at the five stages (c:
concentrated, u: undecided, h: heavy-tailed):

    attention, text               19.6 c  11.3 c  11.5 u   16.6 c   13.3 c   20.8 c
    no attention, text            19.2 c   7.2 u   9.7 u   14.0 c   15.2 c   17.9 c
    attention, Gaussian input      169 c  11.6 c  10.9 c   11.0 c   10.9 c   10.8 c
    no attention, Gaussian input  83.3 c  10.5 c   4.7 h    7.9 u   10.6 c   10.9 c
    ResNet, images                25.6 c   7.4 c  13.6 c   0.92 u   0.68 u   0.69 u

So the claim does not hold at this scale: attention on text was never heavy-tailed. The ResNet's
noise is undecided once it has learned its 1,437 digits by heart (training loss 0.009 and below):
most of its batches then have hardly a gradient left and a few still have, so that the bulk is as
wide as a heavy tail's; but the far tail falls off, as `figure1.png` shows, and the variance settles
(in a quarter of the sample it is 0.7 to 1.5 times that of the whole). The one heavy tail, without
attention and on Gaussian input at step 180, is a few batches up to 27 times the median. Nor did
attention widen the noise: at the end sd ÷ mean was 0.013 lower with it on text (95% interval 0.003
to 0.023) and 0.001 higher on Gaussian input (0.0004 to 0.0017). Text did at initialization (0.052
wider than Gaussian input, 0.046 to 0.057), no longer at the end (0.028 narrower, 0.017 to 0.040).
One seed, and the intervals don't cover seeds.

The first command (360 steps, 200 norms, 6 minutes on 2 cores of a Zen 3) called the ResNet heavy-
tailed from step 200 on: so few norms don't show that the tail ends. Attention on text was
concentrated at the first four stages and undecided at the last two.
"""

import functools
import sys

import bert_pretraining as bert
import comparison
import experiment
import images
import keras
import keras_hub
import numpy as np
import script
import tensorflow as tf
import token_rows
from keras import layers
from scipy import stats
from stages import train_in_stages

from keras_acclip.noise import NoiseSample, plots, tails
from keras_acclip.noise.batches import open_batches
from keras_acclip.noise.sampling import NoiseMeter

SCALES = {
    "small": {
        "steps": 360,
        "warmup": 180,
        "batch_size": 16,
        "rate": 2e-3,
        "sequence_length": 64,
        "layers": 2,
        "hidden": 128,
        "vocabulary_size": 4096,
        "image_steps": 360,
        "image_batch_size": 32,
        "image_rate": 0.1,
        "noise_batches": 200,
        "noise_batch_size": 8,
        "seeds": 1,
    },
    "smoke": {
        "steps": 9,
        "warmup": 4,
        "batch_size": 8,
        "rate": 2e-3,
        "sequence_length": 32,
        "layers": 1,
        "hidden": 64,
        "vocabulary_size": 512,
        "image_steps": 9,
        "image_batch_size": 32,
        "image_rate": 0.1,
        "noise_batches": 20,
        "noise_batch_size": 4,
        "seeds": 1,
    },
    # The paper states 36,000 steps (Figure 2), Adam's rate and ResNet-50; the rest is what BERT
    # (base; Devlin et al., 2019) and ResNet (He et al., 2016) were trained with.
    "paper": {
        "steps": 36_000,
        "warmup": 10_000,
        "batch_size": 256,
        "rate": 1e-4,
        "sequence_length": 128,
        "layers": 12,
        "hidden": 768,
        "vocabulary_size": 30_522,
        "image_steps": 36_000,
        "image_batch_size": 256,
        "image_rate": 0.1,
        "noise_batches": 2000,
        "noise_batch_size": 256,
        "seeds": 1,
    },
}
# In ninths of training: at 36,000 steps, Figure 2's 4,000, 12,000, 20,000, 36,000, and 28,000.
STAGES = (0, 1, 3, 5, 7, 9)
FIGURE_4 = {  # Name: whether with attention, whether on text. Row by row, as in the paper.
    "attention, text": (True, True),
    "no attention, text": (False, True),
    "attention, Gaussian input": (True, False),
    "no attention, Gaussian input": (False, False),
}
RESNET = "ResNet, images"
NETWORKS = (*FIGURE_4, RESNET)
PAIRS = (
    ("attention, text", "no attention, text"),
    ("attention, Gaussian input", "no attention, Gaussian input"),
    ("attention, text", "attention, Gaussian input"),
    ("no attention, text", "no attention, Gaussian input"),
)
LEAST_BATCHES = 20
LAYER_NORM = 1e-12  # BERT's ε; the sum of its embeddings varies less than Keras's 1e-3.
INITIAL_SCALE = 0.02  # Of BERT's initial weights, token embeddings among them, and Gaussian input.


# --- Networks --------------------------------------------------------------------------------


def build_bert(attention, text, settings):
    """A post-LN BERT encoder with the masked-LM head, or its likeness without attention.

    Args:
        attention: Whether the blocks have self-attention; otherwise a residual feed-forward block
            of as many parameters.
        text: Whether the input is `token_ids`; otherwise `embeddings`, in the place of the token
            embeddings.
        settings: The values of `SCALES`.

    Returns:
        A `keras.Model` that gives logits for `mask_positions`, not compiled.
    """
    length, hidden = settings["sequence_length"], settings["hidden"]
    initializer = keras.initializers.TruncatedNormal(stddev=INITIAL_SCALE)
    embedding = keras_hub.layers.ReversibleEmbedding(
        settings["vocabulary_size"], hidden, embeddings_initializer=initializer
    )
    embedding.build()
    positions = keras.Input((None,), dtype="int32", name="mask_positions")
    if text:
        inputs = keras.Input((length,), dtype="int32", name="token_ids")
        embedded = embedding(inputs)
    else:
        inputs = embedded = keras.Input((length, hidden), name="embeddings")
    place = keras_hub.layers.PositionEmbedding(length, initializer=initializer)
    x = layers.LayerNormalization(epsilon=LAYER_NORM)(embedded + place(embedded))
    for _ in range(settings["layers"]):
        x = encoder_block(x, attention, initializer)
    head = keras_hub.layers.MaskedLMHead(
        token_embedding=embedding,
        intermediate_activation="gelu",
        layer_norm_epsilon=LAYER_NORM,
        kernel_initializer=initializer,
    )
    return keras.Model(
        {inputs.name: inputs, "mask_positions": positions}, head(x, mask_positions=positions)
    )


def encoder_block(x, attention, initializer):
    """BERT's block: self-attention, or the feed-forward block in its place, then feed-forward."""
    hidden = x.shape[-1]
    dense = functools.partial(layers.Dense, kernel_initializer=initializer)
    if attention:
        heads = hidden // 64
        mixed = layers.MultiHeadAttention(heads, 64, kernel_initializer=initializer)(x, x)
    else:
        mixed = dense(hidden)(dense(2 * hidden, "gelu")(x))
    x = layers.LayerNormalization(epsilon=LAYER_NORM)(x + mixed)
    wide = dense(4 * hidden, "gelu")(x)
    return layers.LayerNormalization(epsilon=LAYER_NORM)(x + dense(hidden)(wide))


def build_network(name, data, settings):
    """The network `name`, compiled with the paper's optimizer for it."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    schedule = experiment.WarmupLinearDecay
    if name == RESNET:
        build = images.resnet50 if settings["scale"] == "paper" else images.small_resnet
        model = build(data.images.shape, data.images.classes)
        steps = settings["image_steps"]
        rate = schedule(settings["image_rate"], steps // 20, steps)
        optimizer = keras.optimizers.SGD(rate, momentum=0.9)
    else:
        model = build_bert(*FIGURE_4[name], settings)
        steps = settings["steps"]
        rate = schedule(settings["rate"], settings["warmup"], steps)
        optimizer = keras.optimizers.Adam(rate)
    # Compiling takes longer than a few dozen steps.
    model.compile(optimizer, loss, jit_compile=steps > 100)
    optimizer.build(model.trainable_variables)
    return model


# --- Data ------------------------------------------------------------------------------------


class Data:
    """The batches of all five networks.

    Args:
        rows: `token_rows.TokenRows`.
        pictures: `images.Images`.
        settings: The values of `SCALES`.
    """

    def __init__(self, rows, pictures, settings):
        self.rows, self.images, self.settings = rows, pictures, settings

    def batches(self, name, size, seed, first, last):
        """Batches number `first` to `last` of the network `name`, `size` examples in each."""
        if name == RESNET:
            return images.training_batches(self.images, size, seed, first, last)
        _, text = FIGURE_4[name]
        made = bert.training_batches(
            self.rows.train, len(self.rows.vocabulary), size, seed, first, last
        )
        wanted = ("token_ids", "mask_positions")
        if text:
            return made.map(lambda inputs, labels: ({n: inputs[n] for n in wanted}, labels))
        numbered = made.enumerate(first)
        return numbered.map(lambda number, batch: self._on_gaussian_input(batch, seed, number))

    def _on_gaussian_input(self, batch, seed, number):
        inputs, labels = batch
        length, hidden = self.settings["sequence_length"], self.settings["hidden"]
        shape = (tf.shape(inputs["token_ids"])[0], length, hidden)
        vectors = tf.random.stateless_normal(shape, (seed, number), stddev=INITIAL_SCALE)
        vectors = tf.ensure_shape(vectors, (None, length, hidden))
        return {"embeddings": vectors, "mask_positions": inputs["mask_positions"]}, labels


# --- Measuring along training ----------------------------------------------------------------


def follow(name, seed, data, settings, folder, verbose):
    """Trains a network and measures its noise at each of `STAGES`, or goes on with that.

    Args:
        name: Of `NETWORKS`.
        seed: Of the initial weights and the training batches.
        data: `Data`.
        settings: The values of `SCALES`, and `scale`.
        folder: Where the run keeps its state and its samples.
        verbose: As in `model.fit`.

    Returns:
        List of dicts, one a stage: `step`, and the mean training `loss` since the last stage (at
        the start, of the batches measured).
    """
    history = experiment.History(folder)
    kind = "image_" if name == RESNET else ""
    steps, batch_size = settings[f"{kind}steps"], settings[f"{kind}batch_size"]
    stages = [steps * ninths // STAGES[-1] for ninths in STAGES]
    if len(history) == len(stages):
        return list(history)
    keras.backend.clear_session()
    keras.utils.set_random_seed(seed)
    model = build_network(name, data, settings)
    count, size = settings["noise_batches"], settings["noise_batch_size"]
    measured = open_batches(data.batches(name, size, bert.NOISE_SEED, 0, count))
    meter = NoiseMeter(model)

    def measure(step):
        print(f"{name}, seed {seed}, step {step:,}", flush=True)
        sample = meter.measure(measured, count, verbose=verbose)
        if sample.interrupted:
            raise KeyboardInterrupt
        folder.mkdir(parents=True, exist_ok=True)
        sample.save(sample_path(folder, step))
        return {"loss": float(sample.losses.mean())}

    batches = functools.partial(data.batches, name, batch_size, seed)
    return train_in_stages(model, stages, batches, measure, history, verbose)


def study(run, arguments):
    """Follows a network, or goes on with that, and describes its noise.

    Args:
        run: The network's name, of `NETWORKS`, and the seed.
        arguments: The command line's.

    Returns:
        List of dicts, one a stage: `network`, `seed`, `step`, `loss`, and `describe`'s.
    """
    (name, seed), (options, data) = run, load(arguments)
    folder = run_folder(options.output, name, seed)
    one_line = 1 if sys.stdout.isatty() else 2
    verbose = one_line if options.jobs == 1 else 0  # Several at a time would mix their lines.
    history = follow(name, seed, data, data.settings, folder, verbose)
    return [
        {"network": name, "seed": seed} | row | describe(stored_sample(folder, row))
        for row in history
    ]


def stored_sample(folder, row):
    """The norms measured at a stage of a run's history."""
    return NoiseSample.load(sample_path(folder, row["step"]))


def sample_path(folder, step):
    """The file of the norms measured at a step."""
    return folder / f"noise-{step:08d}.npz"


# --- What the norms say ----------------------------------------------------------------------


def describe(sample):
    """The numbers of one sample: its spread, its tail with intervals, its verdict.

    Args:
        sample: A `NoiseSample`.

    Returns:
        dict: `norm` (mean), `spread` (standard deviation of the norms over their mean), `largest`
        (over the median), `variance_at_quarter` (variance of the norms in a quarter of the sample
        over that in all of it; lowest and highest of 8 random orders), `kurtosis` (excess), `hill`,
        `excess` (index, low, high; shape ξ, low, high), fits of the references, verdict, reason.
    """
    norms, verdict = sample.norms, sample.classify()
    growth = tails.variance_growth(norms)
    quarter = growth.variances[:, len(norms) // 4 - 2] / growth.variances[:, -1]
    found = {
        "norms": len(norms),
        "nonfinite": sample.nonfinite,
        "norm": sample.norm,
        "mean_gradient_norm": sample.mean_gradient_norm,
        "spread": spread(norms),
        "largest": float(norms.max() / np.median(norms)),
        "variance_at_quarter": [float(quarter.min()), float(quarter.max())],
        "kurtosis": verdict.kurtosis,
        "verdict": verdict.label,
        "reason": verdict.reason,
    }
    if verdict.hill:
        found["hill"] = [verdict.hill.alpha, verdict.hill.low, verdict.hill.high]
        found["excess"] = [verdict.excess.shape, verdict.excess.low, verdict.excess.high]
    for family, fit in (
        ("gaussian", tails.gaussian_reference),
        ("stable", tails.stable_reference),
    ):
        try:
            law = fit(norms)
        except ValueError:  # Too few norms, or too little spread: there is no such law.
            continue
        found[family] = {"alpha": law.alpha, "p_value": law.p_value, "ks": law.ks}
    return found


def spread(norms, axis=-1):
    """Standard deviation of the norms over their mean."""
    return np.std(norms, axis=axis, ddof=1) / np.mean(norms, axis=axis)


def tail_weight(norms, axis=-1):
    """One over Hill's tail index, from the largest tenth of the norms; above 1/2 is heavy."""
    k = largest_count(norms.shape[axis])
    largest = np.sort(np.moveaxis(norms, axis, -1), axis=-1)[..., -k - 1 :]
    return np.mean(np.log(largest[..., 1:] / largest[..., :1]), axis=-1)


def largest_count(count):
    """How many of so many norms are the largest tenth; at least 10."""
    return max(10, count // 10)


def difference(first, second, confidence=0.95):
    """How much wider one network's noise spreads than another's, over batches that both saw.

    Args:
        first: `NoiseSample` of the one.
        second: Of the other, on the same rows with the same masks in the same order.
        confidence: Of the intervals.

    Returns:
        dict from `"spread"` and `"tail_weight"` to the difference, first − second, with the ends of
        its paired bootstrap interval (percentiles of 2,000 resamples of the batches).
    """
    found = {}
    for statistic in (spread, tail_weight):
        result = stats.bootstrap(
            (first.norms, second.norms),
            lambda a, b, axis=-1, statistic=statistic: statistic(a, axis) - statistic(b, axis),
            paired=True,
            vectorized=True,
            n_resamples=2000,
            method="percentile",
            confidence_level=confidence,
            rng=0,
        )
        value = statistic(first.norms) - statistic(second.norms)
        interval = result.confidence_interval
        found[statistic.__name__] = [float(v) for v in (value, interval.low, interval.high)]
    return found


# --- To read ---------------------------------------------------------------------------------


def table(stages):
    """The stages of all networks as a Markdown table.

    Args:
        stages: List of dicts: `network`, `seed`, `step`, `loss`, and `describe`'s.
    """
    header = "network, seed, step, loss, mean norm, sd ÷ mean, largest ÷ median"
    header += ", variance at n/4 ÷ at n, kurtosis, Hill's index (95%), verdict"
    rows = [header.split(", ")]
    for stage in stages:
        hill = "{:.3g} ({:.3g} to {:.3g})".format(*stage["hill"]) if "hill" in stage else "–"
        row = (
            stage["network"],
            f"{stage['seed']}",
            f"{stage['step']:,}",
            f"{stage['loss']:.3f}",
            f"{stage['norm']:.3g}",
            f"{stage['spread']:.3f}",
            f"{stage['largest']:.2f}",
            "{:.2f} to {:.2f}".format(*stage["variance_at_quarter"]),
            f"{stage['kurtosis']:.2g}" if stage["kurtosis"] is not None else "–",
            hill,
            stage["verdict"],
        )
        rows.append(row)
    return comparison.markdown(rows)


def sentences(differences):
    """The differences in words, one line each."""
    words = {"spread": "sd ÷ mean", "tail_weight": "1 ÷ Hill's index of the largest tenth"}
    return "\n".join(
        f"step {row['step']:,}, seed {row['seed']}, ({row['first']}) − ({row['second']}): "
        + "; ".join(
            "{} {:+.3g} (95% {:+.3g} to {:+.3g})".format(word, *row[name])
            for name, word in words.items()
        )
        for row in differences
    )


def draw(samples, size, output):
    """Draws Figures 1, 2 and 4 into `output`; returns the names of the files.

    Args:
        samples: dict from network to its `NoiseSample`s, stage by stage.
        size: Examples in a batch.
        output: Folder.
    """
    batches = f"batches of {size}"
    bert_name = next(iter(FIGURE_4))
    figures = {
        "figure1.png": plots.side_by_side(
            [samples[name][-1] for name in (RESNET, bert_name)],
            [f"{name}, step {samples[name][-1].step:,}" for name in (RESNET, bert_name)],
            f"Figure 1: gradient noise at the end of training, {batches}",
        )
    }
    for name, stages in samples.items():
        labels = [f"step {sample.step:,}" for sample in stages]
        title = f"Figure 2: {name}, {batches}"
        figures[f"figure2-{slug(name)}.png"] = plots.evolution(stages, labels, title)
    for stage in (0, -1):
        two_by_two = [samples[name][stage] for name in FIGURE_4]
        step = two_by_two[0].step
        title = f"Figure 4: gradient noise at step {step:,}, {batches}"
        figures[f"figure4-step-{step}.png"] = plots.grid(two_by_two, list(FIGURE_4), title)
    for name, figure in figures.items():
        plots.save(figure, output / name)
    return list(figures)


def slug(name):
    """A network's name as part of a file's name."""
    return name.lower().replace(",", "").replace(" ", "-")


# --- The command -----------------------------------------------------------------------------


def parse_arguments(arguments=None):
    """The command line, checked."""
    parser = script.parser(__doc__, SCALES, "out/noise_histograms")
    token_rows.add_options(parser)
    images.add_options(parser)
    experiment.add_jobs(parser)
    options = script.parse(parser, SCALES, arguments)
    options.jobs = experiment.jobs(options)
    for name in ("steps", "image_steps"):
        if getattr(options, name) < STAGES[-1]:
            flag = name.replace("_", "-")
            parser.error(f"--{flag} {getattr(options, name)} must be at least {STAGES[-1]}")
    if options.warmup >= options.steps:
        parser.error(f"--warmup {options.warmup} must be below --steps {options.steps}")
    if options.hidden % 64:
        parser.error(f"--hidden {options.hidden} must be a multiple of 64, the size of a head")
    if options.noise_batches < LEAST_BATCHES:
        parser.error(f"--noise-batches {options.noise_batches} must be at least {LEAST_BATCHES}")
    return options


@functools.lru_cache(maxsize=1)  # A process studies several networks.
def load(arguments):
    """The command line's options, and the `Data` that it asks for.

    Args:
        arguments: The command line's, as a tuple.

    Raises:
        ValueError: If text or images can't be used.
    """
    options = parse_arguments(arguments)
    settings = {"scale": options.scale}
    settings |= {name: getattr(options, name) for name in SCALES["small"] if name != "seeds"}
    rows, pictures = token_rows.load(options), images.load(options)
    settings |= {"text": f"{rows.name} ({rows.fingerprint})", "images": pictures.name}
    data = Data(rows, pictures, settings)
    data.batches(RESNET, max(options.image_batch_size, options.noise_batch_size), 0, 0, 1)
    return options, data


def report(stages, parts, options):
    """Prints and saves what came out of the finished runs."""
    differences, drawn = [], {}
    for seed in range(options.seeds):
        samples = {}
        for name in NETWORKS:
            folder = run_folder(options.output, name, seed)
            history = experiment.History(folder)
            samples[name] = [stored_sample(folder, row) for row in history]
        for first, second in PAIRS:
            for stage in (0, -1):
                a, b = samples[first][stage], samples[second][stage]
                pair = {"first": first, "second": second, "seed": seed, "step": a.step}
                differences.append(pair | difference(a, b))
        drawn = drawn or samples
    print(f"\n{table(stages)}\n\n{sentences(differences)}")
    names = draw(drawn, options.noise_batch_size, options.output)
    results = {"stages": stages, "differences": differences}
    parts.finish(results, ("keras", "keras-hub", "tensorflow", "scikit-learn"))
    print(f"\nWritten under {options.output}: results.json, {', '.join(names)}")


def run_folder(output, name, seed):
    """Where a network's run keeps its state and its samples."""
    return output / "runs" / f"{slug(name)}-{seed}"


def main(arguments=None):
    """Reads the command line, trains and measures what it asks for. Returns the exit status."""
    arguments = tuple(sys.argv[1:] if arguments is None else arguments)
    try:
        options, data = load(arguments)
        parts = script.Parts(options.output, data.settings)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"Text: {data.rows.name}\nImages: {data.images.name}", flush=True)
    runs = [(name, seed) for seed in range(options.seeds) for name in NETWORKS]
    try:
        one = functools.partial(study, arguments=arguments)
        studied = experiment.start(one, {run: run for run in runs}, options.jobs)
        stages = [stage for run in runs for stage in studied(run)]
    except KeyboardInterrupt:
        print(f"\nStopped. The same command goes on from here ({options.output}).")
        return 130
    except experiment.RunError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    report(stages, parts, options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
