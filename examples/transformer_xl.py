"""Trains a 6-layer Transformer-XL with five optimizers and compares them: the paper's Figure 3 (a).

    python examples/transformer_xl.py
    python examples/transformer_xl.py --tune
    python examples/transformer_xl.py --scale paper --ptb DIR

The claim (Section 5, Figure 3 (a)): clipping helps SGD with momentum on an attention model, and
adaptive methods, Adam and ACClip, are ahead of clipping with one fixed threshold.

The model is the Model Garden's Transformer-XL (Dai et al., 2019): segments of 128 tokens, each of
which also attends to what the layers have remembered of the 128 tokens before it, in training as in
validation. Each row of a batch is a stretch of the text, read segment by segment; the memory goes
from one to the next and is empty at the start of each pass over the text. With one seed, every
optimizer gets the same initial weights, the same segments and the same linear warm-up and decay.

By default the text is `keras_acclip.text.corpus`'s in word pieces, its documents in another order for
each pass and seed. `--ptb` takes the Penn Treebank's `ptb.train.txt` and `ptb.valid.txt`, word by
word. `--scale paper` has the paper's 6 layers and target length; width, heads, dropout and batch
size are those of Transformer-XL's base model, GClip's threshold that of its code. The paper states
no more; CClip's threshold, steps and warm-up are ours.

Stopped by whatever means and started again with the same `--output`, it goes on after the last
finished epoch, with the result that it would have had (with dropout: with other dropout).

Where the default rates come from: `--tune --seeds 1 --no-jit`, five rates √10 apart for each (with
`--rates sgd=0.3,gclip=1,cclip=1,adam=3e-3,acclip=3e-3`, the grid's middle), then one more for each,
in the middle of its two best (`--seeds 1 --no-jit --rates sgd=0.17,gclip=0.57,cclip=0.57,
adam=1.7e-3,acclip=1.7e-3`). Final validation loss, seed 0 (TensorFlow 2.20, one thread or two):

    sgd     0.03: 5.519    0.095: 5.083    0.17: 5.107    0.3: 5.120    0.95, 3: NaN
    gclip   0.1: 5.454     0.32: 5.048     0.57: 4.979    1: 5.026      3.2: 5.832    10: 6.666
    cclip   0.1: 5.549     0.32: 5.076     0.57: 4.967    1: 5.106      3.2: 5.767    10: 5.817
    adam    3e-4: 5.916    9.5e-4: 5.269   1.7e-3: 4.989  3e-3: 5.026   9.5e-3: 5.762 0.03: 5.763
    acclip  3e-4: 5.877    9.5e-4: 5.155   1.7e-3: 4.989  3e-3: 5.763   9.5e-3: 5.760

None of the best is at its grid's edge. Above them the model learns no more than the frequencies of
the tokens (5.76). On seed 1 ACClip nearly failed at 1.7e-3 (5.607), so both adaptive methods were
tried at 1.2e-3 too, seeds 0 and 1: Adam 5.153 and 5.244, ACClip 5.097 and 5.266. Of the two rates
the lower mean of both seeds is the default. Warm-up and the two thresholds were not tuned.

The first command, seeds 0 and 1, 246,000 tokens seen; validation loss, mean ± standard deviation,
and the difference to Adam with its 95% interval:

    sgd     5.083 ± 0.000   +0.025 (-0.885 to +0.936)
    gclip   4.993 ± 0.033   -0.064 (-0.676 to +0.547)
    cclip   5.020 ± 0.059   -0.038 (-0.412 to +0.337)
    adam    5.058 ± 0.101
    acclip  5.181 ± 0.119   +0.123 (-0.042 to +0.288)

So at this scale (hidden 64) clipping by a fixed threshold was ahead of plain SGD on both seeds, as
in the figure, and the adaptive methods have no lead over it, unlike there: ACClip was the last, on
both seeds. Two seeds settle none of the differences.
"""

import argparse
import functools
import math
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import comparison
import experiment
import numpy as np
import script
import tensorflow as tf
import tf_keras
from official.nlp.modeling.layers.transformer_xl import TransformerXL
from official.nlp.modeling.networks.xlnet_base import RelativePositionEncoding
from token_rows import token_rows

import keras_acclip.tf_keras as clipping
from keras_acclip.text import corpus
from keras_acclip._utils.files import write_atomically
from keras_acclip.text.vocabulary import SPECIAL_TOKENS

SCALES = {
    "small": {
        "steps": 240,
        "warmup": 80,
        "epochs": 6,
        "batch_size": 8,
        "target_length": 128,
        "memory_length": 128,
        "layers": 6,
        "hidden": 64,
        "heads": 2,
        "inner": 256,
        "dropout": 0.0,
        "vocabulary_size": 2048,
        "validation_segments": 16,
        "seeds": 2,
        "gclip_threshold": 0.25,
        "cclip_threshold": 1e-3,
    },
    "smoke": {
        "steps": 8,
        "warmup": 2,
        "epochs": 2,
        "batch_size": 4,
        "target_length": 16,
        "memory_length": 16,
        "layers": 2,
        "hidden": 32,
        "heads": 2,
        "inner": 64,
        "dropout": 0.0,
        "vocabulary_size": 512,
        "validation_segments": 4,
        "seeds": 1,
        "gclip_threshold": 0.25,
        "cclip_threshold": 1e-3,
    },
    "paper": {
        "steps": 20_000,
        "warmup": 2_000,
        "epochs": 50,
        "batch_size": 60,
        "target_length": 128,
        "memory_length": 128,
        "layers": 6,
        "hidden": 410,
        "heads": 10,
        "inner": 2100,
        "dropout": 0.1,
        "vocabulary_size": 10_000,
        "validation_segments": 100,
        "seeds": 3,
        "gclip_threshold": 0.25,
        "cclip_threshold": 1e-3,
    },
}
RATES = {"sgd": 0.095, "gclip": 0.57, "cclip": 0.57, "adam": 1.7e-3, "acclip": 1.2e-3}
GRID = (1 / 10, 1 / 10**0.5, 1, 10**0.5, 10)  # Times the rate above, for --tune.
COLUMNS = {
    "train loss": ("loss", 3),
    "validation loss": ("val_loss", 3),
    "validation perplexity": ("val_perplexity", 1),
    "tokens/s": ("tokens_per_second", 0),
    "seconds": ("seconds", 1),
}
EMBEDDING_DEVIATION = 0.02  # Transformer-XL's.
SEP = SPECIAL_TOKENS.index("[SEP]")


def make_optimizer(name, settings):
    """The optimizer of that name; its learning rate is set at each step."""
    keras, rate = tf_keras.optimizers, 0.0
    return {
        "sgd": lambda: keras.SGD(rate, momentum=0.9),
        "gclip": lambda: clipping.GClip(rate, settings["gclip_threshold"], momentum=0.9),
        "cclip": lambda: clipping.CClip(rate, settings["cclip_threshold"], momentum=0.9),
        "adam": lambda: keras.Adam(rate),
        "acclip": lambda: clipping.ACClip(rate),
    }[name]()


# --- Data ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Text:
    """A text as token ids.

    Attributes:
        train: The documents to train on, int32 arrays.
        validation: The same, held out.
        vocabulary_size: Number of tokens.
        name: What the text is.
    """

    train: list[np.ndarray]
    validation: list[np.ndarray]
    vocabulary_size: int
    name: str


def embedded_text(cache, vocabulary_size):
    """The docstrings of `corpus.embedded_corpus` as word pieces, a document a module."""
    # Rows as `bert_pretraining` has them; without the first and last token they are the text.
    rows = token_rows(corpus.embedded_corpus(cache), vocabulary_size, 64, cache)

    def documents(part):
        stream = part[:, 1:-1].ravel().astype("int32")
        return np.split(stream, np.flatnonzero(stream == SEP) + 1)

    name = f"{rows.name} ({rows.fingerprint})"
    return Text(documents(rows.train), documents(rows.validation), len(rows.vocabulary), name)


def penn_treebank(folder):
    """`ptb.train.txt` and `ptb.valid.txt` as words, one document each, `<eos>` after each line.

    A word of the held-out part that the other lacks becomes `<unk>`.

    Raises:
        corpus.TextError: If a file can't be used, or such a word occurs and there is no `<unk>`.
    """
    paths = [Path(folder) / f"ptb.{part}.txt" for part in ("train", "valid")]
    train, validation = ([*words(corpus.read_text(path))] for path in paths)
    identity = {word: i for i, (word, _) in enumerate(Counter(train).most_common())}
    unknown = set(validation) - set(identity)
    if unknown and "<unk>" not in identity:
        raise corpus.TextError(f"{paths[1]}: {min(unknown)!r} is not in {paths[0]}")
    documents = [
        np.array([identity.get(word, identity.get("<unk>")) for word in part], "int32")
        for part in (train, validation)
    ]
    return Text(*([document] for document in documents), len(identity), str(folder))


def words(text):
    """The words of a text, `<eos>` after each line."""
    for line in text.splitlines():
        yield from (*line.split(), "<eos>")


def contiguous_rows(documents, count):
    """Documents end to end, cut into so many rows, each a stretch of the text."""
    stream = np.concatenate(documents)
    length = len(stream) // count
    return stream[: count * length].reshape(count, length)


def segments_in(documents, settings):
    """How many segments the rows of such documents have."""
    row = sum(map(len, documents)) // settings["batch_size"]
    return max(0, row - 1) // settings["target_length"]


def segment(rows, number, length):
    """Segment number `number`: `length` tokens of each row, and the next one."""
    return rows[:, number * length : (number + 1) * length + 1]


def training_segments(documents, settings, seed, first):
    """Segments of training from number `first` on, without end, each with its number in its pass.

    Each pass over the text has the documents in another order, so that every optimizer sees the
    same, and a resumed run needs no state of the data to go on.

    Args:
        documents: As `Text.train`.
        settings: The values of `SCALES`.
        seed: An int.
        first: Number of the first segment.
    """
    count = segments_in(documents, settings)
    passed, start = divmod(first, count)
    while True:
        order = np.random.default_rng((seed, passed)).permutation(len(documents))
        rows = contiguous_rows([documents[i] for i in order], settings["batch_size"])
        for number in range(start, count):
            yield number, segment(rows, number, settings["target_length"])
        passed, start = passed + 1, 0


def validation_segments(documents, settings):
    """The first of the held-out segments, documents in an order that is always the same."""
    order = np.random.default_rng(0).permutation(len(documents))
    rows = contiguous_rows([documents[i] for i in order], settings["batch_size"])
    count = min(settings["validation_segments"], segments_in(documents, settings))
    return [segment(rows, number, settings["target_length"]) for number in range(count)]


# --- Model and training ----------------------------------------------------------------------


class LanguageModel(tf_keras.Model):
    """The Model Garden's Transformer-XL between an embedding and the softmax that shares it.

    Args:
        vocabulary_size: Number of tokens.
        settings: The values of `SCALES`.
    """

    def __init__(self, vocabulary_size, settings):
        super().__init__()
        self.settings, self.hidden = settings, settings["hidden"]
        normal = tf_keras.initializers.RandomNormal(stddev=EMBEDDING_DEVIATION)
        self.embedding = tf_keras.layers.Embedding(vocabulary_size, self.hidden, normal)
        self.dropout = tf_keras.layers.Dropout(settings["dropout"])
        self.positions = RelativePositionEncoding(self.hidden)
        self.transformer = TransformerXL(
            vocabulary_size,
            settings["layers"],
            self.hidden,
            settings["heads"],
            self.hidden // settings["heads"],
            settings["inner"],
            settings["dropout"],
            attention_dropout_rate=0.0,  # As Transformer-XL's base model has it.
            initializer=normal,
            memory_length=settings["memory_length"],
            reuse_length=0,  # XLNet's.
        )
        self.bias = self.add_weight("softmax_bias", [vocabulary_size], initializer="zeros")

    def empty_memory(self):
        """A memory to begin a text with."""
        shape = (self.settings["batch_size"], self.settings["memory_length"], self.hidden)
        return [tf.zeros(shape)] * self.settings["layers"]

    def call(self, tokens, memory, remembered, training=None):
        """Predicts each next token.

        Args:
            tokens: int tensor of shape `(batch, length)`.
            memory: What each layer remembers of the text before: one tensor a layer, of shape
                `(batch, memory length, hidden)`.
            remembered: How many tokens the memory holds, at its end; before them it is empty.
            training: Whether dropout is on.

        Returns:
            Logits of shape `(batch, length, vocabulary)`, and the memory for the next segment.
        """
        batch, length = tokens.shape
        kept = memory[0].shape[1]
        query, key = tf.range(length)[:, None], tf.range(kept + length)
        visible = (key <= kept + query) & (key >= kept - remembered)
        # From the farthest a query looks back to itself.
        distances = tf.range(kept + length, -1, -1, tf.float32)
        content = self.dropout(self.embedding(tokens) * self.hidden**0.5)
        content, memory = self.transformer(
            content,
            self.dropout(self.positions(distances, batch)),
            state=memory,
            content_attention_mask=visible[None, None],
        )
        logits = tf.einsum("bth,vh->btv", content, self.embedding.embeddings)
        return logits + self.bias, memory


class Trainer:
    """A model and an optimizer whose step is traced and compiled once for all their runs.

    Args:
        optimizer: A key of `RATES`.
        vocabulary_size: Number of tokens.
        settings: The values of `SCALES`.
        jit: Whether XLA compiles the step and the validation.
    """

    def __init__(self, optimizer, vocabulary_size, settings, jit):
        self.build_model = functools.partial(build_model, vocabulary_size, settings)
        self.settings = settings
        self.model, self.optimizer = self.build_model(0), make_optimizer(optimizer, settings)
        # The attention to segments is XLNet's; nothing here has a gradient with respect to it.
        unused = self.model.transformer.segment_attention_bias
        self.trained = [v for v in self.model.trainable_variables if v is not unused]
        self.optimizer.build(self.trained)
        self.fresh_slots = [variable.numpy() for variable in self.optimizer.variables]
        self.step = tf.function(self.step, jit_compile=jit)
        self.loss = tf.function(self.loss, jit_compile=jit)

    def loss(self, tokens, memory, remembered, training=False):
        """Mean cross-entropy of a segment's predictions in nats, and the new memory."""
        logits, memory = self.model(tokens[:, :-1], memory, remembered, training=training)
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(tokens[:, 1:], logits)
        return tf.reduce_mean(losses), memory

    def step(self, tokens, memory, remembered, rate):
        """One step of the optimizer at that rate. Returns loss and new memory."""
        with tf.GradientTape() as tape:
            loss, memory = self.loss(tokens, memory, remembered, training=True)
        gradients = tape.gradient(loss, self.trained)
        self.optimizer.learning_rate.assign(rate)
        self.optimizer.apply_gradients(zip(gradients, self.trained, strict=True))
        return loss, memory

    def validate(self, segments):
        """Mean loss over contiguous segments, with memory."""
        memory, losses = self.model.empty_memory(), []
        for number, tokens in enumerate(segments):
            loss, memory = self.loss(tokens, memory, self.remembered(number))
            losses.append(float(loss))
        return float(np.mean(losses))

    def remembered(self, number):
        """How many tokens the memory holds before the segment of that number."""
        past = number * self.settings["target_length"]
        return tf.constant(min(past, self.settings["memory_length"]))

    @property
    def variables(self):
        """All that a step changes, but for the memory."""
        return [*self.model.weights, *self.optimizer.variables]

    def start(self, seed):
        """Sets weights and slots as at the beginning of a run. Returns the memory."""
        weights = self.build_model(seed).get_weights()
        for variable, value in zip(self.variables, weights + self.fresh_slots, strict=True):
            variable.assign(value)
        return self.model.empty_memory()

    def save(self, path, memory):
        """Writes weights, slots and memory."""
        values = [*self.variables, *memory]
        write_atomically(path, lambda file: np.savez(file, *(value.numpy() for value in values)))

    def restore(self, path):
        """Sets weights and slots as they were saved. Returns the memory."""
        with np.load(path) as arrays:
            values = list(arrays.values())
        for variable, value in zip(self.variables, values, strict=False):
            variable.assign(value)
        return [tf.constant(value) for value in values[len(self.variables) :]]


def build_model(vocabulary_size, settings, seed):
    """A `LanguageModel` with the initial weights of that seed."""
    tf_keras.utils.set_random_seed(seed)
    model = LanguageModel(vocabulary_size, settings)
    tokens = tf.zeros((settings["batch_size"], settings["target_length"]), tf.int32)
    model(tokens, model.empty_memory(), 0)
    return model


@functools.lru_cache(maxsize=1)  # A plan has an optimizer's runs one after another.
def trainer_of(optimizer, vocabulary_size, settings, jit):
    """The `Trainer` of these arguments, the settings as a tuple of pairs."""
    return Trainer(optimizer, vocabulary_size, dict(settings), jit)


def train(spec, text, settings, jit, output):
    """One run, from its start or from the last epoch that it finished.

    Args:
        spec: The optimizer, a key of `RATES`; the schedule's peak; the seed of the initial weights,
            the documents' order and the dropout.
        text: A `Text`.
        settings: The values of `SCALES`.
        jit: Whether XLA compiles the step.
        output: The output folder.

    Returns:
        The run, as `comparison` takes it.
    """
    optimizer, rate, seed = spec
    history = experiment.History(experiment.folder(output, *spec), "epoch-{}.npz")
    run = {"optimizer": optimizer, "learning_rate": rate, "seed": seed, "history": history}
    done, epochs = len(history), settings["epochs"]
    if done == epochs:
        return run
    per_epoch = settings["steps"] // epochs
    trainer = trainer_of(optimizer, text.vocabulary_size, tuple(settings.items()), jit)
    memory = trainer.start(seed)
    if done:
        memory = trainer.restore(history.state_path(done))
    schedule = experiment.WarmupLinearDecay(rate, settings["warmup"], settings["steps"])
    rates = np.asarray(schedule(np.arange(settings["steps"])))
    segments = training_segments(text.train, settings, seed, done * per_epoch)
    held_out = validation_segments(text.validation, settings)
    for epoch in range(done, epochs):
        started = time.perf_counter()
        losses = []
        for step in range(epoch * per_epoch, (epoch + 1) * per_epoch):
            number, tokens = next(segments)
            remembered = trainer.remembered(number)
            loss, memory = trainer.step(tokens, memory, remembered, tf.constant(rates[step]))
            losses.append(loss)
        losses = np.array(losses)
        trained = time.perf_counter()
        held_out_loss = trainer.validate(held_out)
        tokens = per_epoch * settings["batch_size"] * settings["target_length"]
        row = {"step": (epoch + 1) * per_epoch, "loss": float(losses.mean())}
        row |= {"val_loss": held_out_loss, "tokens_per_second": tokens / (trained - started)}
        row |= {"seconds": time.perf_counter() - started}
        row |= {"perplexity": perplexity(row["loss"]), "val_perplexity": perplexity(held_out_loss)}
        history.add(row, functools.partial(trainer.save, memory=memory))
    history.finish()
    return run


def perplexity(loss):
    """The perplexity of a cross-entropy in nats; infinite where that is too large."""
    return math.exp(loss) if loss < 700 else math.inf


# --- The command -----------------------------------------------------------------------------


def parse_arguments(arguments=None):
    """The command line, checked."""
    parser = script.parser(__doc__, SCALES, "out/transformer_xl")
    parser.add_argument(
        "--ptb",
        type=Path,
        metavar="DIR",
        help="folder of ptb.train.txt and ptb.valid.txt; default: docstrings, in word pieces",
    )
    parser.add_argument(
        "--jit",
        action=argparse.BooleanOptionalAction,
        help="compile the step with XLA; default: where there is a GPU",
    )
    experiment.add_jobs(parser)
    experiment.add_arguments(parser, RATES, list(RATES), GRID)
    options = script.parse(parser, SCALES, arguments)
    experiment.check_schedule(parser, options)
    options.jobs = experiment.jobs(options)
    if options.jit is None:
        options.jit = bool(tf.config.list_physical_devices("GPU"))
    if options.hidden % options.heads or options.hidden % 2:
        parser.error(
            f"--hidden {options.hidden} must be even and a multiple of --heads {options.heads}"
        )
    return options


def load_text(options, settings):
    """The text, checked to be long enough.

    Raises:
        corpus.TextError: If a file can't be used; the message names it.
    """
    if options.ptb:
        text = penn_treebank(options.ptb)
    else:
        text = embedded_text(options.cache, options.vocabulary_size)
    for part, documents in (("training", text.train), ("held-out", text.validation)):
        if not segments_in(documents, settings):
            raise corpus.TextError(
                f"{text.name}: too short: the {part} text has {sum(map(len, documents))} tokens; a "
                f"batch takes {options.batch_size} · ({options.target_length} + 1)"
            )
    return text


def report(runs, options, settings):
    """Prints and saves what came out."""
    runs, results = experiment.report(runs, options.tune, columns=COLUMNS)
    title = (
        f"{options.layers}-layer Transformer-XL, {options.steps} steps of {options.batch_size} × "
        f"{options.target_length} tokens, seeds 0 to {options.seeds - 1}"
    )
    curves = {
        "perplexity": ("Training", "perplexity"),
        "val_perplexity": ("Validation", ""),
    }
    path = options.output / "perplexity.png"
    comparison.plot_curves(runs, path, title, curves, sharey=True, scale="log")
    parts = script.Parts(options.output, settings)
    parts.finish(results, ("tensorflow", "tf_keras", "tf-models-official"))
    print(f"\nWritten under {options.output}: results.json, perplexity.png")


def main(arguments=None):
    """Reads the command line, trains what it asks for and reports. Returns the exit status."""
    options = parse_arguments(arguments)
    settings = {name: getattr(options, name) for name in SCALES["small"] if name != "seeds"}

    def prepare():
        text = load_text(options, settings)
        settings["text"] = text.name
        script.claim_output(options.output, settings)
        train_tokens, held_out = (sum(map(len, part)) for part in (text.train, text.validation))
        print(f"{text.name}: {train_tokens:,} tokens to train on, {held_out:,} held out")

        one = functools.partial(
            train, text=text, settings=settings, jit=options.jit, output=options.output
        )
        return experiment.start_missing(one, plan, options.output, options.epochs, options.jobs)

    plan = experiment.plan(options, RATES, GRID)
    return experiment.conduct(
        plan, options.output, prepare, lambda runs: report(runs, options, settings)
    )


if __name__ == "__main__":
    sys.exit(main())
