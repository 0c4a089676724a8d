"""The text workloads: masked words for a BERT, next words for a GPT, on the embedded corpus.

The rows and their masks are the main job's, which TensorFlow makes: a machine without it reads
those of another (`run.py --tokens`).
"""

from __future__ import annotations

import functools
import os
import zlib
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import keras
import numpy as np
from paper.lab import bert

from keras_acclip._utils.files import write_atomically
from training.order import passes
from training.workloads import FIFTHS, TOKENS, Problem, Workload
from training.zipf import cross_entropy

HELD_OUT = -1  # In the place of a seed.


@functools.cache
def rows(vocabulary_size: int, length: int) -> tuple[np.ndarray, np.ndarray, int]:
    """The embedded corpus as rows of tokens; made once a machine.

    Args:
        vocabulary_size: Most tokens of the vocabulary.
        length: Tokens a row.

    Returns:
        int arrays of shape `(rows, length)`, to train on and held out, and the number of tokens.
    """
    folder = os.environ.get(TOKENS)
    if folder:
        with np.load(Path(folder) / _file(vocabulary_size, length)) as made:
            seen, unseen = (made[name].astype("int32") for name in ("train", "validation"))
            return seen, unseen, int(made["vocabulary_size"])
    return _make_rows(vocabulary_size, length)


def _make_rows(vocabulary_size, length, files=None):
    from paper.lab import token_rows

    from keras_acclip.text import corpus

    cache = corpus.default_cache_dir()
    text = corpus.text_files(files) if files else corpus.embedded_corpus(cache)
    made = token_rows.token_rows(text, vocabulary_size, length, cache)
    return made.train, made.validation, len(made.vocabulary)


def save_rows(folder: Path, vocabulary_size: int, length: int, files: list[str] | None) -> Path:
    """Writes rows of tokens to a folder, which `rows` reads where `TOKENS` names it.

    Args:
        folder: The folder; made where it is missing.
        vocabulary_size: As `rows` takes it.
        length: The same.
        files: Text files, names or patterns; `None` for the embedded corpus.

    Returns:
        The file.

    Raises:
        TextError: If a text file can't be used.
    """
    train, validation, size = _make_rows(vocabulary_size, length, files)
    path = folder / _file(vocabulary_size, length)
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {"train": train.astype("uint16"), "validation": validation.astype("uint16")}
    write_atomically(path, functools.partial(_savez, arrays | {"vocabulary_size": size}))
    return path


def name(vocabulary_size: int, length: int) -> str:
    """Tells one text from another: it depends on the versions whose docstrings it is made of."""
    train, validation, _ = rows(vocabulary_size, length)
    digits = zlib.crc32(_bytes(validation), zlib.crc32(_bytes(train)))
    return f"{len(train)} rows of {length} tokens and {len(validation)} held out, {digits:08x}"


def _bytes(tokens: np.ndarray) -> bytes:
    return tokens.astype("uint16").tobytes()


def _file(vocabulary_size, length):
    return f"tokens-{vocabulary_size}-{length}.npz"


def save_masks(folder: Path, workload: Workload, seeds: list[int]) -> list[Path]:
    """Writes the masks of whole trainings, and the held-out ones, likewise. Returns the files."""
    made = []
    for seed in [*seeds, HELD_OUT]:
        made_for = _make_masks(workload, seed, workload.steps)
        masks = {name: np.asarray(x) for name, x in made_for.items()}
        made.append(folder / _masks_file(workload, seed))
        write_atomically(made[-1], functools.partial(_savez, masks))
    return made


def _savez(arrays, file):
    np.savez_compressed(file, **arrays)


def _masks_file(workload, seed):
    name = "held-out" if seed == HELD_OUT else seed
    return f"masks-{workload.batch}-{workload.sizes['sequence_length']}-{name}.npz"


def masked_lm(workload: Workload, seed: int, steps: int) -> Problem:
    """The main job: a post-LN BERT fills in masked words of rows of 64 tokens.

    Args:
        workload: Its `sizes` has `sequence_length`, `layers`, `hidden`, `vocabulary_size` and
            `held_out` rows.
        seed: Of the initial weights, the order of the rows and the masks.
        steps: Steps of the training.
    """
    sizes = workload.sizes
    seen, unseen, vocabulary = rows(sizes["vocabulary_size"], sizes["sequence_length"])
    keras.utils.set_random_seed(seed)
    model = bert.build_model(vocabulary, sizes)
    held_out = _masks(workload, HELD_OUT, steps)
    shared = {
        "rows": jnp.asarray(seen, "int32"),
        "held_out": _masked(_held_out(unseen, sizes), **held_out),
    }
    masks = _masks(workload, seed, steps)
    order = passes(len(seen), workload.batch, seed, len(masks["positions"]))
    own = masks | {"order": order}

    def batch(shared, own, step):
        tokens = shared["rows"][own["order"][step]]
        return _masked(tokens, own["positions"][step], own["replaced"][step])

    return Problem(
        model,
        cross_entropy,
        shared,
        own,
        batch,
        lambda shared, own: shared["held_out"],
        fifths(seen, vocabulary),
    )


def fifths(rows: np.ndarray, vocabulary_size: int) -> np.ndarray:
    """For each token the fifth of the text that it counts among, 0 with the most frequent.

    The tokens in the order of their counts are cut where a further fifth of the text is reached, so
    that each part makes up about as much of the text, by ever more tokens.

    Args:
        rows: int array of tokens.
        vocabulary_size: Number of tokens; those that the text lacks count among the last fifth.
    """
    counts = np.bincount(rows.ravel(), minlength=vocabulary_size)
    order = np.argsort(-counts, kind="stable")
    before = np.cumsum(counts[order]) - counts[order]
    found = np.empty(vocabulary_size, "int32")
    found[order] = np.minimum(FIFTHS - 1, FIFTHS * before // counts.sum())
    return found


def _masked(tokens, positions, replaced):
    """The model's inputs, and the tokens to predict."""
    positions, replaced = positions.astype("int32"), replaced.astype("int32")
    labels = jnp.take_along_axis(tokens, positions, -1)
    masked = jnp.put_along_axis(tokens, positions, replaced, -1, inplace=False)
    return {"token_ids": masked, "mask_positions": positions}, labels


def _masks(workload, seed, steps):
    """Which tokens of each batch are to be predicted, and what stands in their place.

    Made for so many steps, or read for a whole training; of shape `(steps, batch, tokens)`.
    """
    folder = os.environ.get(TOKENS)
    if folder:
        path = Path(folder) / _masks_file(workload, seed)
        with np.load(path) as made:
            masks = {name: jnp.asarray(made[name]) for name in made}
        if seed != HELD_OUT and len(masks["positions"]) < steps:
            raise ValueError(f"{path}: masks of {len(masks['positions'])} steps, not of {steps}")
        return masks
    return _make_masks(workload, seed, steps)


def _make_masks(workload, seed, steps):
    from paper.lab import masked_lm as data

    sizes = workload.sizes
    seen, unseen, vocabulary = rows(sizes["vocabulary_size"], sizes["sequence_length"])
    if seed == HELD_OUT:
        count = sizes["held_out"]
        batches = data.validation_batches(unseen, vocabulary, min(64, count), count)
    else:
        batches = data.training_batches(seen, vocabulary, workload.batch, seed, 0, steps)
    inputs = [inputs for inputs, _ in batches.as_numpy_iterator()]
    positions = np.stack([x["mask_positions"] for x in inputs])
    masked = np.stack([x["token_ids"] for x in inputs])
    replaced = np.take_along_axis(masked, positions, -1)
    return {
        "positions": jnp.asarray(positions, "uint8"),
        "replaced": jnp.asarray(replaced, "uint16"),
    }


def language_model(workload: Workload, seed: int, steps: int) -> Problem:
    """A pre-LN GPT that predicts each next token of rows of the embedded corpus.

    Args:
        workload: As `masked_lm` takes it.
        seed: Of the initial weights and the order of the rows.
        steps: Steps of the training.
    """
    sizes = workload.sizes
    seen, unseen, vocabulary = rows(sizes["vocabulary_size"], sizes["sequence_length"] + 1)
    keras.utils.set_random_seed(seed)
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy(sizes["dtype"])
    try:
        model = gpt(vocabulary, sizes)
    finally:
        keras.config.set_dtype_policy(policy)
    shared = {"rows": jnp.asarray(seen), "held_out": _held_out(unseen, sizes)}
    own = passes(len(seen), workload.batch, seed, max(steps, workload.steps))

    def batch(shared, own, step):
        return _next_tokens(shared["rows"][own[step]])

    return Problem(
        model,
        cross_entropy,
        shared,
        own,
        batch,
        lambda shared, own: _next_tokens(shared["held_out"]),
        fifths(seen, vocabulary),
    )


def _next_tokens(rows):
    rows = rows.astype("int32")
    return rows[..., :-1], rows[..., 1:]


def _held_out(rows, sizes):
    """Evenly spread rows in batches of up to 64."""
    spread = np.linspace(0, len(rows) - 1, sizes["held_out"]).astype(int)
    batch = min(64, len(spread))
    return jnp.asarray(rows[spread], "int32").reshape(-1, batch, rows.shape[-1])


def gpt(vocabulary_size: int, sizes: dict) -> keras.Model:
    """A pre-LN Transformer of causal blocks, whose output is tied to its token embeddings.

    The feed-forward layers' way back into the residual stream begins smaller by √(2·layers), as in
    GPT-2.

    Args:
        vocabulary_size: Number of tokens.
        sizes: `layers`, `hidden`, `head` (coordinates of an attention head) and `sequence_length`
            count.
    """
    import keras_hub
    from keras import layers

    hidden, length = sizes["hidden"], sizes["sequence_length"]

    def initializer(scale: float = 1.0) -> Any:
        return keras.initializers.RandomNormal(stddev=0.02 * scale)

    back = (2 * sizes["layers"]) ** -0.5
    embedding = keras_hub.layers.ReversibleEmbedding(
        vocabulary_size, hidden, embeddings_initializer=initializer(), name="token_embedding"
    )
    tokens = keras.Input((length,), dtype="int32")
    x = embedding(tokens)
    x = x + keras_hub.layers.PositionEmbedding(length, initializer=initializer())(x)
    for _ in range(sizes["layers"]):
        normed = layers.LayerNormalization(epsilon=1e-5)(x)
        attend = layers.MultiHeadAttention(
            hidden // sizes["head"], sizes["head"], kernel_initializer=initializer()
        )
        x = x + attend(normed, normed, use_causal_mask=True)
        normed = layers.LayerNormalization(epsilon=1e-5)(x)
        wide = layers.Dense(
            4 * hidden,
            functools.partial(keras.activations.gelu, approximate=True),
            kernel_initializer=initializer(),
        )(normed)
        x = x + layers.Dense(hidden, kernel_initializer=initializer(back))(wide)
    x = layers.LayerNormalization(epsilon=1e-5)(x)
    return keras.Model(tokens, embedding(x, reverse=True))
