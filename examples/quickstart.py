"""Trains a small attention model with ACClip and draws how heavy-tailed its gradient noise is.

    python examples/quickstart.py

It learns to spell Python's own help, letter by letter, in half a minute on two cores.
"""

from pydoc_data.topics import topics  # Text that every machine has.

from keras_acclip._utils.commands import Parser


def load_text(length=32):
    """Stretches of the text as character codes, and the character that follows each of theirs."""
    import numpy as np

    text = "\n".join(topics.values()).encode("ascii", "replace")
    codes = np.frombuffer(text, "uint8").astype("int32")
    rows = codes[: len(codes) // (length + 1) * (length + 1)].reshape(-1, length + 1)
    rows = np.random.default_rng(0).permutation(rows)
    return rows[:, :-1], rows[:, 1:]


def build_model(length=32, width=64, characters=128):
    """One block of causal self-attention."""
    import keras
    from keras import layers

    inputs = keras.Input((length,), dtype="int32")
    places = layers.Embedding(length, width)(keras.ops.arange(length) + 0 * inputs)
    x = layers.Embedding(characters, width)(inputs) + places
    x = x + layers.MultiHeadAttention(2, width // 2)(x, x, use_causal_mask=True)
    x = layers.LayerNormalization()(x)
    x = layers.LayerNormalization()(x + layers.Dense(width)(layers.Dense(4 * width, "gelu")(x)))
    return keras.Model(inputs, layers.Dense(characters)(x))


def main(arguments=None):
    """Trains, measures and draws."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", default="noise.png", help="the picture; default: %(default)s")
    options = parser.parse_args(arguments)
    import keras

    import keras_acclip

    keras.utils.set_random_seed(0)
    x, y = load_text()
    model = build_model()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras_acclip.ACClip(learning_rate=3e-3), loss)
    noise = keras_acclip.GradientNoise((x, y), num_batches=150)
    model.fit(x, y, batch_size=64, epochs=2, callbacks=[noise])
    print(noise.samples[-1].advice())
    noise.samples[-1].plot().savefig(options.output)
    print(f"Written: {options.output}")


if __name__ == "__main__":
    main()
