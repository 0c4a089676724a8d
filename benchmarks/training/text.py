"""The text workloads: masked words for a BERT, next words for a GPT, on the embedded corpus.

Nothing here needs TensorFlow once the rows of tokens are made: a machine without it reads those of
another (`run.py --tokens`).
"""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import keras
import numpy as np
from paper.lab import bert

from keras_acclip._utils.files import write_atomically
from keras_acclip.text.vocabulary import SPECIAL_TOKENS
from training.workloads import Problem, Workload
from training.zipf import mean_cross_entropy

HEAD = 32  # Coordinates of the GPT's attention heads.
MASK_RATE = 0.15  # Of a row's tokens; BERT's rates (Devlin et al., 2019), as in the main job.
PAD, CLS, SEP, UNK, MASK = range(len(SPECIAL_TOKENS))
FOLDER = "TRAINING_TOKENS"  # Environment variable: a folder of rows made on another machine.


@functools.cache
def rows(vocabulary_size: int, length: int) -> tuple[np.ndarray, np.ndarray, int]:
    """The embedded corpus as rows of tokens; made once a machine.

    Args:
        vocabulary_size: Most tokens of the vocabulary.
        length: Tokens a row.

    Returns:
        int arrays of shape `(rows, length)`, to train on and held out, and the number of tokens.
    """
    folder = os.environ.get(FOLDER)
    if folder:
        with np.load(Path(folder) / _file(vocabulary_size, length)) as made:
            return made["train"], made["validation"], int(made["vocabulary_size"])
    from paper.lab import token_rows

    from keras_acclip.text import corpus

    cache = corpus.default_cache_dir()
    text = token_rows.token_rows(corpus.embedded_corpus(cache), vocabulary_size, length, cache)
    return text.train, text.validation, len(text.vocabulary)


def save_rows(folder: Path, vocabulary_size: int, length: int) -> Path:
    """Writes `rows` to a folder, for a machine without TensorFlow. Returns the file."""
    train, validation, size = rows(vocabulary_size, length)
    path = folder / _file(vocabulary_size, length)
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {"train": train.astype("uint16"), "validation": validation.astype("uint16")}
    write_atomically(path, lambda file: np.savez_compressed(file, vocabulary_size=size, **arrays))
    return path


def _file(vocabulary_size, length):
    return f"tokens-{vocabulary_size}-{length}.npz"


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
    shared = {
        "rows": jnp.asarray(seen, "int32"),
        "held_out": mask_tokens(_held_out(unseen, sizes), vocabulary, jax.random.key(2**31 - 1)),
    }
    own = {"order": _order(len(seen), workload, seed, steps), "key": jax.random.key(seed)}

    def batch(shared, own, step):
        tokens = shared["rows"][own["order"][step]]
        return mask_tokens(tokens, vocabulary, jax.random.fold_in(own["key"], step))

    return Problem(
        model, mean_cross_entropy, shared, own, batch, lambda shared, own: shared["held_out"]
    )


def mask_tokens(tokens: jax.Array, vocabulary_size: int, key: jax.Array) -> tuple:
    """BERT's masking, for which KerasHub's generator needs TensorFlow.

    15% of a row are to be predicted; 80% of these become `[MASK]`, 10% a random token, 10% stay.

    Args:
        tokens: int32 array of shape `(…, length)`.
        vocabulary_size: Number of tokens.
        key: JAX's.

    Returns:
        The model's inputs, and the tokens to predict, of shape `(…, round(0.15 · length))`.
    """
    count = round(MASK_RATE * tokens.shape[-1])
    order, fate, other = jax.random.split(key, 3)
    order = jax.random.uniform(order, tokens.shape)
    order = jnp.where((tokens == CLS) | (tokens == SEP), -1.0, order)
    positions = jax.lax.top_k(order, count)[1]
    labels = jnp.take_along_axis(tokens, positions, -1)
    fate = jax.random.uniform(fate, labels.shape)
    other = jax.random.randint(other, labels.shape, len(SPECIAL_TOKENS), vocabulary_size)
    replaced = jnp.where(fate < 0.8, MASK, jnp.where(fate < 0.9, other, labels))
    masked = jnp.put_along_axis(tokens, positions, replaced, -1, inplace=False)
    return {"token_ids": masked, "mask_positions": positions}, labels


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
    model = gpt(vocabulary, sizes)
    shared = {"rows": jnp.asarray(seen, "int32"), "held_out": _held_out(unseen, sizes)}
    own = _order(len(seen), workload, seed, steps)

    def batch(shared, own, step):
        return _next_tokens(shared["rows"][own[step]])

    return Problem(
        model,
        mean_cross_entropy,
        shared,
        own,
        batch,
        lambda shared, own: _next_tokens(shared["held_out"]),
    )


def _next_tokens(rows):
    return rows[..., :-1], rows[..., 1:]


def _order(count, workload, seed, steps):
    """Numbers of rows, of shape `(steps, batch)`: as many passes in random orders as it takes.

    A part of the budget sees the beginning of what all of it sees.
    """
    steps = max(steps, workload.steps)
    passes = range(-(-steps * workload.batch // count))
    order = [np.random.default_rng((seed, p)).permutation(count) for p in passes]
    order = np.concatenate(order)[: steps * workload.batch]
    return jnp.asarray(order.reshape(steps, workload.batch), "int32")


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
        sizes: `layers`, `hidden` and `sequence_length` count.
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
            hidden // HEAD, HEAD, kernel_initializer=initializer(), name=None
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
