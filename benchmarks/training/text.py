"""The text workloads: masked words for a BERT, next words for a GPT, on the embedded corpus."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import keras
import numpy as np
from paper.lab import masked_lm as bert
from paper.lab import token_rows

from keras_acclip.text import corpus
from training.workloads import Problem, Workload
from training.zipf import mean_cross_entropy, slice_of

HEAD = 32  # Coordinates of the GPT's attention heads.


@functools.cache
def rows(vocabulary_size: int, length: int) -> token_rows.TokenRows:
    """The embedded corpus as rows of tokens; made once a machine."""
    cache = corpus.default_cache_dir()
    return token_rows.token_rows(corpus.embedded_corpus(cache), vocabulary_size, length, cache)


def masked_lm(workload: Workload, seed: int, steps: int) -> Problem:
    """The main job: a post-LN BERT fills in masked words of rows of 64 tokens.

    Args:
        workload: Its `sizes` has `sequence_length`, `layers`, `hidden`, `vocabulary_size` and
            `held_out` rows.
        seed: Of the initial weights, the order of the rows and the masks.
        steps: Steps of the training.
    """
    sizes = workload.sizes
    text = rows(sizes["vocabulary_size"], sizes["sequence_length"])
    vocabulary = len(text.vocabulary)
    keras.utils.set_random_seed(seed)
    model = bert.build_model(vocabulary, sizes)
    data = _stacked(bert.training_batches(text.train, vocabulary, workload.batch, seed, 0, steps))
    held_out = _stacked(
        bert.validation_batches(
            text.validation, vocabulary, min(64, sizes["held_out"]), sizes["held_out"]
        )
    )
    return Problem(model, mean_cross_entropy, data, one_of, held_out)


def one_of(data, step):
    """The batch of a step, of data with a leading axis of steps."""
    return jax.tree.map(lambda x: jax.lax.dynamic_index_in_dim(x, step, keepdims=False), data)


def _stacked(batches):
    """Batches of one shape as a pytree of arrays with a leading axis."""
    parts = list(batches.as_numpy_iterator())
    return jax.tree.map(lambda *xs: jnp.asarray(np.stack(xs)), *parts)


def language_model(workload: Workload, seed: int, steps: int) -> Problem:
    """A pre-LN GPT that predicts each next token of rows of the embedded corpus.

    Args:
        workload: As `masked_lm` takes it.
        seed: Of the initial weights and the order of the rows.
        steps: Steps of the training.
    """
    sizes, count = workload.sizes, workload.batch
    text = rows(sizes["vocabulary_size"], sizes["sequence_length"] + 1)
    keras.utils.set_random_seed(seed)
    model = gpt(len(text.vocabulary), sizes)
    passes = range(-(-steps * count // len(text.train)))
    random = [np.random.default_rng((seed, p)) for p in passes]
    order = np.concatenate([r.permutation(len(text.train)) for r in random])[: steps * count]
    seen = text.train[order].astype("int32")
    spread = np.linspace(0, len(text.validation) - 1, sizes["held_out"]).astype(int)
    unseen = (
        text.validation[spread].astype("int32").reshape(-1, min(32, len(spread)), seen.shape[1])
    )
    data = jnp.asarray(seen[:, :-1]), jnp.asarray(seen[:, 1:])
    batch = functools.partial(slice_of, count=count)
    return Problem(model, mean_cross_entropy, data, batch, (unseen[..., :-1], unseen[..., 1:]))


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
