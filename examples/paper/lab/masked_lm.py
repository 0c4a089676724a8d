"""Predicting masked words: BERT's batches, and a BERT to learn them."""

import keras
import keras_hub
import numpy as np
import tensorflow as tf
from keras import layers, ops

from keras_acclip.text.vocabulary import SPECIAL_TOKENS

from .options import HEAD

MASK_RATE = 0.15  # Of a row's tokens; the rates of BERT (Devlin et al., 2019).
PAD, CLS, SEP, UNK, MASK = range(len(SPECIAL_TOKENS))
NOISE_SEED = 2**30  # The noise is measured on batches that no run trains on.
LAYER_NORM = 1e-12  # BERT's ε; the sum of its embeddings varies less than Keras's 1e-3.
HEAD_NORM = 1e-5  # KerasHub's ε in the head; with BERT's, SGD at its best rate may diverge.
INITIAL_SCALE = 0.02  # Of BERT's initial weights, token embeddings among them.


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
        The inputs of `build_model`'s models, and the tokens to predict: int32 of shape
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
    return {"token_ids": masked, "mask_positions": positions}, labels


# --- Model -----------------------------------------------------------------------------------


def build_model(vocabulary_size, settings, attention=True, text=True):
    """A post-LN BERT encoder with the masked-LM head, from scratch; or its likenesses.

    Without segments, as no row has two; and without dropout: no row is seen often enough to be
    learned by heart.

    Args:
        vocabulary_size: Number of tokens.
        settings: `layers`, `hidden` and `sequence_length` count.
        attention: Whether the blocks have self-attention; otherwise a residual feed-forward block
            of as many parameters.
        text: Whether the input is `token_ids`; otherwise `embeddings`, in the place of the token
            embeddings.

    Returns:
        A `keras.Model` that gives logits for `mask_positions`, not compiled.
    """
    length, hidden = settings["sequence_length"], settings["hidden"]
    embedding = keras_hub.layers.ReversibleEmbedding(
        vocabulary_size, hidden, embeddings_initializer=_initializer(), name="token_embedding"
    )
    embedding.build()
    positions = keras.Input((None,), dtype="int32", name="mask_positions")
    if text:
        inputs = keras.Input((length,), dtype="int32", name="token_ids")
        embedded = embedding(inputs)
    else:
        inputs = embedded = keras.Input((length, hidden), name="embeddings")
    place = keras_hub.layers.PositionEmbedding(length, initializer=_initializer())
    x = _normalized(embedded + place(embedded), "embeddings_norm")
    for number in range(settings["layers"]):
        # What the last block makes of other places than the masked ones, nothing would read.
        last = number == settings["layers"] - 1
        queries = ops.take_along_axis(x, positions[..., None], 1) if last else x
        x = encoder_block(number, queries, x, attention)
    head = keras_hub.layers.MaskedLMHead(
        token_embedding=embedding,
        intermediate_activation=_gelu,
        layer_norm_epsilon=HEAD_NORM,
        kernel_initializer=_initializer(),
        name="head",
    )
    places = ops.cumsum(ops.ones_like(positions), 1) - 1
    return keras.Model(
        {inputs.name: inputs, "mask_positions": positions}, head(x, mask_positions=places)
    )


def encoder_block(number, queries, x, attention):
    """BERT's block: self-attention, or a feed-forward block in its place, then feed-forward.

    Args:
        number: The block's, for the names of its layers.
        queries: The places to go on with, of shape `(batch, places, hidden)`.
        x: All places.
        attention: Whether the queries attend to all places.
    """
    hidden = x.shape[-1]

    def dense(width, activation, name):
        return layers.Dense(width, activation, kernel_initializer=_initializer(), name=name)

    if attention:
        attend = layers.MultiHeadAttention(
            hidden // HEAD, HEAD, kernel_initializer=_initializer(), name=f"self_attention_{number}"
        )
        mixed = attend(queries, x)
    else:
        wide = dense(2 * hidden, _gelu, f"mixing_{number}_wide")(queries)
        mixed = dense(hidden, None, f"mixing_{number}")(wide)
    x = _normalized(queries + mixed, f"self_attention_{number}_norm")
    wide = dense(4 * hidden, _gelu, f"feedforward_{number}_wide")(x)
    narrow = dense(hidden, None, f"feedforward_{number}")(wide)
    return _normalized(x + narrow, f"feedforward_{number}_norm")


def _initializer():
    """A new one for each layer: one instance gives all layers of a shape the same values."""
    return keras.initializers.TruncatedNormal(stddev=INITIAL_SCALE)


def _normalized(x, name):
    return layers.LayerNormalization(epsilon=LAYER_NORM, name=name)(x)


def _gelu(x):
    """BERT's approximation."""
    return keras.activations.gelu(x, approximate=True)
