"""Trains with a loop of one's own: `optimizer.apply`, averaged weights, one device or replicas.

    python examples/custom_loop.py
    python examples/custom_loop.py --replicas 2

A linear model learns from targets whose noise has no variance (Student's t with 1.5 degrees of
freedom). GClip bounds what a single target can do; the average of all its steps
(`averaging="linear"`) ends nearer to the truth than its last step. On replicas, here parts of the
CPU, the same loop takes the same steps: gradients are summed before they are clipped.
"""

import argparse

from keras_acclip._utils.commands import Parser

FEATURES, BATCH, STEPS = 20, 32, 500


def batches(truth):
    """Inputs and noisy targets, batch by batch."""
    import numpy as np

    generator = np.random.default_rng(1)
    for _ in range(STEPS):
        x = generator.normal(size=(BATCH, FEATURES)).astype("float32")
        noise = generator.standard_t(1.5, size=(BATCH, 1)).astype("float32")
        yield x, x @ truth + noise


def train(strategy, truth):
    """Trains a model on the replicas of a `tf.distribute` strategy.

    Returns:
        The distance of the weights from the truth: after the last step, and averaged.
    """
    import keras
    import numpy as np
    import tensorflow as tf

    import keras_acclip

    replicas = strategy.num_replicas_in_sync
    # Model and optimizer are made where they are to be used.
    with strategy.scope():
        model = keras.Sequential([keras.Input((FEATURES,)), keras.layers.Dense(1)])
        optimizer = keras_acclip.GClip(learning_rate=0.1, threshold=1.0, averaging="linear")
        optimizer.build(model.trainable_variables)

    @tf.function
    def step(x, y):
        def replica(x, y):
            with tf.GradientTape() as tape:
                # The replicas' gradients are summed, so each takes its part of the mean.
                loss = tf.reduce_mean((model(x, training=True) - y) ** 2) / replicas
            gradients = tape.gradient(loss, [v.value for v in model.trainable_variables])
            optimizer.apply(gradients, model.trainable_variables)

        strategy.run(replica, args=(x, y))

    def distance():
        return float(np.linalg.norm(model.get_weights()[0] - truth))

    data = tf.data.Dataset.from_generator(
        lambda: batches(truth),
        output_signature=(
            tf.TensorSpec((BATCH, FEATURES), "float32"),
            tf.TensorSpec((BATCH, 1), "float32"),
        ),
    )
    for x, y in strategy.experimental_distribute_dataset(data):
        step(x, y)
    last = distance()
    # `fit` does this at its end: the averages take the weights' place.
    optimizer.finalize_variable_values(model.trainable_variables)
    return last, distance()


def main(arguments=None):
    """Reads the command line, trains and says how far the weights are from the truth."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replicas", type=int, choices=(1, 2, 4), default=1)
    options = parser.parse_args(arguments)
    import keras
    import numpy as np
    import tensorflow as tf

    strategy = tf.distribute.get_strategy()
    if options.replicas > 1:
        devices = [tf.config.LogicalDeviceConfiguration()] * options.replicas
        cpu, *_ = tf.config.list_physical_devices("CPU")
        tf.config.set_logical_device_configuration(cpu, devices)
        names = [f"CPU:{i}" for i in range(options.replicas)]
        strategy = tf.distribute.MirroredStrategy(names)
    keras.utils.set_random_seed(0)
    truth = np.random.default_rng(0).normal(size=(FEATURES, 1)).astype("float32")
    last, averaged = train(strategy, truth)
    print(
        f"Distance from the true weights: {last:.4f} after the last step, {averaged:.4f} averaged"
    )


if __name__ == "__main__":
    main()
