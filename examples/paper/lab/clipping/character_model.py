"""A small Transformer on characters, for any backend; and how often a batch is an outlier."""

import keras
import numpy as np
from keras import layers

LENGTH, WIDTH, CHARACTERS, BATCH, HELD_OUT = 32, 64, 128, 32, 1024
OUTLIERS = 0.01


def text_rows():
    """Python's own help in rows of characters, as codes: inputs and what follows them."""
    from pydoc_data.topics import topics

    text = "\n".join(topics.values()).encode("ascii", "replace")
    codes = np.frombuffer(text, "uint8").astype("int32")
    rows = codes[: len(codes) // (LENGTH + 1) * (LENGTH + 1)].reshape(-1, LENGTH + 1)
    return np.random.default_rng(0).permutation(rows)


def build_model():
    """One block of causal self-attention."""
    inputs = keras.Input((LENGTH,), dtype="int32")
    places = layers.Embedding(LENGTH, WIDTH)(0 * inputs + keras.ops.arange(LENGTH))
    x = layers.Embedding(CHARACTERS, WIDTH)(inputs) + places
    normal = layers.LayerNormalization()(x)
    x = x + layers.MultiHeadAttention(2, WIDTH // 2)(normal, normal, use_causal_mask=True)
    hidden = layers.Dense(4 * WIDTH, "gelu")(layers.LayerNormalization()(x))
    x = layers.LayerNormalization()(x + layers.Dense(WIDTH)(hidden))
    return keras.Model(inputs, layers.Dense(CHARACTERS)(x))
