"""Trains on JAX with `DataParallel` over two virtual devices, for `test_backends`; or on one."""

import sys

import keras
import numpy as np

import keras_acclip
from keras_acclip.thresholds import MovingQuantile

MAKERS = {
    "Clip(AdamW)": lambda: keras_acclip.Clip(keras.optimizers.AdamW(0.01), 0.05),
    "Clip(SGD), moving": lambda: keras_acclip.Clip(
        keras.optimizers.SGD(0.05, momentum=0.9), MovingQuantile(0.5, window=8, warmup=2)
    ),
    "GClip": lambda: keras_acclip.GClip(0.05, 0.1, averaging="linear", projection_radius=2.0),
    "ACClip": lambda: keras_acclip.ACClip(0.01, weight_decay=0.1),
}


def fit(name):
    rng = np.random.default_rng(0)
    x = np.float32(rng.standard_normal((64, 6)))
    y = np.float32(rng.standard_t(1.5, (64, 2)))
    model = keras.Sequential(
        [keras.Input((6,)), keras.layers.Dense(8, activation="tanh"), keras.layers.Dense(2)]
    )
    model.set_weights([np.float32(rng.standard_normal(w.shape)) / 2 for w in model.weights])
    model.compile(MAKERS[name](), "mse")
    model.fit(x, y, batch_size=16, epochs=3, shuffle=False, verbose=0)
    return [keras.ops.convert_to_numpy(w) for w in model.weights]


if __name__ == "__main__":
    (_, path, *names), devices = sys.argv, keras.distribution.list_devices()
    assert len(devices) == 2
    alone = {name: fit(name) for name in names}
    keras.distribution.set_distribution(keras.distribution.DataParallel(devices=devices))
    parallel = {name: fit(name) for name in names}
    results = {"alone": alone, "parallel": parallel}
    np.savez(
        path,
        **{f"{k}-{n}-{i}": w for k, r in results.items() for n in r for i, w in enumerate(r[n])},
    )
