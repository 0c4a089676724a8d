"""A BERT to learn the batches of `masked_lm`; on any backend of Keras."""

import keras
import keras_hub
from keras import layers, ops

from .options import HEAD

LAYER_NORM = 1e-12  # BERT's ε; the sum of its embeddings varies less than Keras's 1e-3.
HEAD_NORM = 1e-5  # KerasHub's ε in the head; with BERT's, SGD at its best rate may diverge.
PLACES = "position_embedding"
INITIAL_SCALE = 0.02  # Of BERT's initial weights, token embeddings among them.


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
    place = keras_hub.layers.PositionEmbedding(length, initializer=_initializer(), name=PLACES)
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


def build_span_model(vocabulary_size, settings):
    """The same encoder with the head that finds an answer's first and last token.

    Its layers have the names of `build_model`'s, so that `copy_encoder` finds their weights.

    Args:
        vocabulary_size: Number of tokens.
        settings: As `build_model` takes them.

    Returns:
        A `keras.Model` of `token_ids`, 0 where a row is filled up, to logits of shape
        `(batch, 2, length)`: for each place that an answer begins, and that it ends there.
    """
    length, hidden = settings["sequence_length"], settings["hidden"]
    inputs = keras.Input((length,), dtype="int32", name="token_ids")
    embedding = keras_hub.layers.ReversibleEmbedding(
        vocabulary_size, hidden, embeddings_initializer=_initializer(), name="token_embedding"
    )
    embedded = embedding(inputs)
    place = keras_hub.layers.PositionEmbedding(length, initializer=_initializer(), name=PLACES)
    x = _normalized(embedded + place(embedded), "embeddings_norm")
    filled = inputs != 0
    for number in range(settings["layers"]):
        x = encoder_block(number, x, x, mask=filled[:, None, :])
    spans = layers.Dense(2, kernel_initializer=_initializer(), name="spans")(x)
    logits = ops.where(filled[:, None, :], ops.transpose(spans, (0, 2, 1)), -1e9)
    return keras.Model(inputs, logits)


def copy_encoder(weights, model):
    """Puts the weights of an encoder into a model of another head.

    Args:
        weights: Dict from a variable's path to its value, such as those of `build_model`'s model.
        model: `build_span_model`'s.

    Raises:
        ValueError: If a variable of the encoder is not among them.
    """
    for variable in model.trainable_variables:
        if not variable.path.startswith("spans/"):
            if variable.path not in weights:
                raise ValueError(f"No weights for {variable.path}.")
            variable.assign(weights[variable.path])


def encoder_block(number, queries, x, attention=True, mask=None):
    """BERT's block: self-attention, or a feed-forward block in its place, then feed-forward.

    Args:
        number: The block's, for the names of its layers.
        queries: The places to go on with, of shape `(batch, places, hidden)`.
        x: All places.
        attention: Whether the queries attend to all places.
        mask: bool, `True` for the places that they attend to; `None` for all.
    """
    hidden = x.shape[-1]

    def dense(width, activation, name):
        return layers.Dense(width, activation, kernel_initializer=_initializer(), name=name)

    if attention:
        attend = layers.MultiHeadAttention(
            hidden // HEAD, HEAD, kernel_initializer=_initializer(), name=f"self_attention_{number}"
        )
        mixed = attend(queries, x, attention_mask=mask)
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
