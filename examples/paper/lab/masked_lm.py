"""Predicting masked words: BERT's batches."""

import numpy as np
import tensorflow as tf

from keras_acclip.text.vocabulary import SPECIAL_TOKENS

MASK_RATE = 0.15  # Of a row's tokens; the rates of BERT (Devlin et al., 2019).
PAD, CLS, SEP, UNK, MASK = range(len(SPECIAL_TOKENS))
NOISE_SEED = 2**30  # The noise is measured on batches that no run trains on.


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
        The inputs of `bert.build_model`'s models, and the tokens to predict: int32 of shape
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
