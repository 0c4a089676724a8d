"""Fine-tuning: a pretrained BERT learns to find the answers of questions about the text.

Questions and answers are the Model Garden's SQuAD data, made out of the embedded corpus; TensorFlow
makes them, once a machine. The encoder is the main job's, pretrained by Adam, the same for all.
"""

from __future__ import annotations

import functools
import os
import tempfile
import zlib
from pathlib import Path

import jax.numpy as jnp
import keras
import numpy as np
from paper.lab import bert

from keras_acclip._utils.files import write_atomically
from keras_acclip.text import corpus
from training import text
from training.order import passes
from training.workloads import TOKENS, WORKLOADS, Problem, Workload
from training.zipf import cross_entropy

NAME = "squad"
FORMAT = 1  # Raise it when the questions or the encoder are made differently.
FEATURES = ("input_ids", "start_positions", "end_positions")
PRETRAINING = "mlm-16"
PRETRAINING_SEED = 2000  # No seed of a comparison.


def problem(workload: Workload, seed: int, steps: int) -> Problem:
    """Finds where an answer begins and ends, in rows of question and context.

    Args:
        workload: Its `sizes` has those of the pretraining's model, and the numbers of `questions`
            to train on and `held_out`.
        seed: Of the head's initial weights and the order of the questions.
        steps: Steps of the training.
    """
    sizes = workload.sizes
    made, weights = questions(), pretrained()
    keras.utils.set_random_seed(seed)
    model = bert.build_span_model(int(made["vocabulary_size"]), sizes)
    bert.copy_encoder(weights, model)
    seen, unseen = (
        (jnp.asarray(made[f"{part}_tokens"], "int32"), jnp.asarray(made[f"{part}_spans"], "int32"))
        for part in ("train", "dev")
    )
    # As many held-out rows as whole batches make.
    count = len(unseen[0]) // workload.batch * workload.batch
    unseen = tuple(x[:count].reshape(-1, workload.batch, x.shape[-1]) for x in unseen)
    own = passes(len(seen[0]), workload.batch, seed, max(steps, workload.steps))

    def batch(shared, own, step):
        tokens, spans = shared["seen"]
        return tokens[own[step]], spans[own[step]]

    shared = {"seen": seen, "unseen": unseen}
    return Problem(model, cross_entropy, shared, own, batch, lambda shared, own: shared["unseen"])


@functools.cache
def questions() -> dict[str, np.ndarray]:
    """Rows of question and context that hold the answer, and its place; made once a machine.

    Returns:
        For `train` and `dev` the tokens, of shape `(rows, length)`, and spans, of shape
        `(rows, 2)`; and `vocabulary_size`.
    """
    sizes = WORKLOADS[NAME].sizes
    return _kept("questions", sizes, functools.partial(_make_questions, sizes))


@functools.cache
def pretrained() -> dict[str, np.ndarray]:
    """The weights of `mlm-16`'s model after a training by Adam, by their paths."""
    return _kept("pretrained", WORKLOADS[PRETRAINING].sizes, _pretrain)


def save(folder: Path) -> list[Path]:
    """Writes both to a folder, for a machine without TensorFlow. Returns the files."""
    made = {"questions": questions(), "pretrained": pretrained()}
    for name, arrays in made.items():
        write_atomically(folder / f"{name}.npz", functools.partial(_savez, arrays))
    return [folder / f"{name}.npz" for name in made]


def _savez(arrays, file):
    np.savez_compressed(file, **arrays)


def _kept(name, sizes, make):
    """Arrays of another machine, or of this one's cache, or made and kept there."""
    folder = os.environ.get(TOKENS)
    if folder:
        path = Path(folder) / f"{name}.npz"
    else:
        of = text.name(sizes["vocabulary_size"], sizes["sequence_length"])
        cache = corpus.default_cache_dir()
        path = cache / f"{name}-{corpus.cache_key([of, sizes, FORMAT])}.npz"
        if not path.exists():
            write_atomically(path, functools.partial(_savez, make()))
    with np.load(path) as made:
        return dict(made)


def _make_questions(sizes):
    from paper.lab import token_rows

    from keras_acclip.garden import data

    cache, length = corpus.default_cache_dir(), sizes["sequence_length"]
    whole = corpus.embedded_corpus(cache)
    vocabulary = token_rows.token_rows(whole, sizes["vocabulary_size"], length, cache).vocabulary
    windows = data.Windows(length, query_length=length // 3, doc_stride=length // 4)
    found: dict[str, np.ndarray] = {"vocabulary_size": np.int64(len(vocabulary))}
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder)
        (made / "vocab.txt").write_text("".join(f"{token}\n" for token in vocabulary), "utf-8")
        data.make_questions(whole, made, sizes["questions"], sizes["held_out"])
        for part in ("train", "dev"):
            # As data to train on, which have the places of the answers.
            file, out = made / f"{part}.json", made / part
            data.make_squad_data(file, made / "dev.json", made / "vocab.txt", out, windows)
            tokens, first, last = _read(sorted(out.glob("*.tfrecord")), length)
            # Most windows of a long context lack the answer: a model would learn to say so.
            there = first > 0
            found[f"{part}_tokens"] = tokens[there]
            found[f"{part}_spans"] = np.stack([first, last], 1)[there]
    return found


def _read(paths, length):
    import tensorflow as tf

    shapes = dict(zip(FEATURES, ((length,), (), ()), strict=True))
    features = {name: tf.io.FixedLenFeature(shape, tf.int64) for name, shape in shapes.items()}
    records = tf.data.TFRecordDataset([str(path) for path in paths])
    batches = records.batch(1024).map(lambda x: tf.io.parse_example(x, features))
    parts = list(batches.as_numpy_iterator())
    return [np.concatenate([part[name] for part in parts]) for name in FEATURES]


def _pretrain():
    from training import trainer
    from training.contestants import CONTESTANTS

    workload = WORKLOADS[PRETRAINING]
    print("pretraining the encoder that is fine-tuned", flush=True)
    settings = dict(CONTESTANTS["adam"].default)
    return trainer.weights(workload, "adam", (settings, PRETRAINING_SEED), workload.steps)


def name() -> str:
    """Tells data from others: they depend on the text, and on what the encoder learned of it."""
    made = questions()
    digits = zlib.crc32(made["train_tokens"].astype("uint16").tobytes())
    for _, values in sorted(pretrained().items()):
        digits = zlib.crc32(np.round(values, 3).astype("float32").tobytes(), digits)
    return f"{len(made['train_tokens'])} questions' windows and an encoder, {digits:08x}"
