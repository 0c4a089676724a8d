"""The noise that `GradientNoise()` follows beside a measurement; the noise scale beside batches.

    python benchmarks/noise_in_training.py
    python benchmarks/noise_in_training.py --steps 64 --out /tmp/noise.json

Three models (a network for regression, a convolutional one for images, a Transformer for
characters) are trained with ACClip. Each half of the steps is a stage: the followed sample is of
its last 256 steps, the measured one of 256 fresh batches at the weights in the middle of these. The
ratios are followed over measured.

Then a linear regression is trained by SGD in batches of 1 to 512: the fewest steps, over rates by
factors of √2, to a hundredth of the excess loss. Steps = least·(1 + critical/batch) is fitted to
them; the noise scale is measured half way, at a tenth of the excess loss. The results are written
as JSON; the defaults take about four minutes on two cores.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from keras_acclip._utils import files
from keras_acclip._utils.commands import Parser, positive, to_path

OUT = Path(__file__).parents[1] / "docs/results/noise_in_training/run.json"
BATCH = 16
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
DIMENSION = 30


def tasks() -> dict[str, tuple[Any, np.ndarray, np.ndarray, str]]:
    """Returns each model with its inputs, targets and loss."""
    import pydoc_data.topics

    import keras

    rng = np.random.default_rng(0)
    keras.utils.set_random_seed(0)
    layers = keras.layers
    x = np.float32(rng.standard_normal((24_000, 20)))
    y = np.float32(np.tanh(x @ rng.standard_normal((20, 3))).sum(1, keepdims=True))
    y += np.float32(rng.standard_normal(y.shape))
    network = keras.Sequential(
        [keras.Input((20,)), layers.Dense(64, activation="tanh"), layers.Dense(1)]
    )
    patterns = rng.standard_normal((10, 12, 12, 1))
    labels = rng.integers(0, 10, 24_000)
    images = np.float32(patterns[labels] + 2 * rng.standard_normal((24_000, 12, 12, 1)))
    convolution = keras.Sequential(
        [
            keras.Input((12, 12, 1)),
            layers.Conv2D(16, 3, activation="relu"),
            layers.Conv2D(16, 3, strides=2, activation="relu"),
            layers.Flatten(),
            layers.Dense(10),
        ]
    )
    text = "".join(pydoc_data.topics.topics.values()).encode("ascii", "replace")
    codes = np.frombuffer(text, np.uint8)
    starts = rng.integers(0, len(codes) - 33, 24_000)
    rows = np.int32(codes[starts[:, None] + np.arange(33)]) % 128
    tokens = keras.Input((32,), dtype="int32")
    hidden = layers.Embedding(128, 48)(tokens)
    attended = layers.MultiHeadAttention(4, 12)(hidden, hidden, use_causal_mask=True)
    hidden = layers.LayerNormalization()(hidden + attended)
    hidden = layers.LayerNormalization()(
        hidden + layers.Dense(48)(layers.Dense(96, activation="relu")(hidden))
    )
    transformer = keras.Model(tokens, layers.Dense(128)(hidden))
    crossentropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return {
        "network": (network, x, y, "mse"),
        "convolution": (convolution, images, labels, crossentropy),
        "Transformer": (transformer, rows[:, :-1], rows[:, 1:], crossentropy),
    }


def compared(name: str, steps: int) -> list[dict[str, Any]]:
    """Trains a model; returns a row a stage."""
    import keras
    import tensorflow as tf

    import keras_acclip
    from keras_acclip.noise import measure_noise

    model, x, y, loss = tasks()[name]
    model.compile(keras_acclip.ACClip(1e-3), loss)
    stage = steps // 2
    window = min(256, stage)
    fresh = x[2 * stage * BATCH :], y[2 * stage * BATCH :]
    measured = []

    class Measure(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            if batch + 1 == stage - window // 2:
                options = {"batch_size": BATCH, "verbose": 0, "seed": len(measured)}
                measured.append(measure_noise(self.model, fresh, window, **options))

    noise = keras_acclip.GradientNoise(num_batches=window, batch_size=BATCH, verbose=0)
    data = tf.data.Dataset.from_tensor_slices((x, y)).take(2 * stage * BATCH).batch(BATCH)
    model.fit(data, epochs=2, steps_per_epoch=stage, verbose=0, callbacks=[noise, Measure()])
    rows = []
    for followed, fixed in zip(noise.samples, measured, strict=True):
        scales = followed.noise_scale(), fixed.noise_scale()
        rows.append(
            {
                "model": name,
                "step": followed.step,
                "verdict": followed.classify().label,
                "verdict_measured": fixed.classify().label,
                "std_ratio": followed.std / fixed.std,
                "scale": str(scales[0]),
                "scale_measured": str(scales[1]),
            }
        )
        print(f"{name}, step {followed.step}: {rows[-1]}", flush=True)
    return rows


def steps_to_goal(batch: int, rate: float, rng: np.random.Generator, most: int) -> int:
    """Steps of SGD until the excess loss is a hundredth of the first; `most` if it takes more."""
    spread = np.geomspace(1, 0.1, DIMENSION)
    left = np.ones(DIMENSION)
    goal = 0.01 * np.sum(spread**2 * left**2)
    for k in range(most):
        if np.sum(spread**2 * left**2) <= goal:
            return k
        x = rng.standard_normal((batch, DIMENSION)) * spread
        left = left - rate * x.T @ (x @ left + rng.standard_normal(batch)) / batch
        if not np.abs(left).max() < 1e3:
            break
    return most


def saved_by_batches() -> tuple[list[dict[str, Any]], dict[str, float]]:
    """Returns the fewest steps by batch, and the critical batch beside the noise scale."""
    from keras_acclip.noise import NoiseSample

    rows, most = [], 60_000
    for batch in BATCHES:
        best = (most, 0.0)
        for rate in 2.0 ** np.arange(0, -9.5, -0.5):
            rng = np.random.default_rng(0)
            found = [steps_to_goal(batch, rate, rng, best[0]) for _ in range(5)]
            best = min(best, (int(np.median(found)), float(rate)))
        rows.append({"batch": batch, "steps": best[0], "rate": best[1]})
        print(f"batches of {batch}: {best[0]:,} steps", flush=True)
    # Relative errors count alike: least squares on 1 = least/steps + least·critical/(batch·steps).
    design = np.array([[1 / r["steps"], 1 / (r["batch"] * r["steps"])] for r in rows])
    least, product = np.linalg.lstsq(design, np.ones(len(rows)), rcond=None)[0]
    rng = np.random.default_rng(1)
    spread = np.geomspace(1, 0.1, DIMENSION)
    left = np.sqrt(0.1) * np.ones(DIMENSION)
    x = rng.standard_normal((2000, BATCH, DIMENSION)) * spread
    errors = x @ left + rng.standard_normal((2000, BATCH))
    gradients = np.einsum("nbd,nb->nd", x, errors) / BATCH
    mean = gradients.mean(0)
    sample = NoiseSample(
        norms=np.linalg.norm(gradients - mean, axis=1),
        gradient_norms=np.linalg.norm(gradients, axis=1),
        losses=np.mean(errors**2, axis=1) / 2,
        batch_sizes=np.full(2000, BATCH),
        mean_gradient_norm=float(np.linalg.norm(mean)),
    )
    scale = sample.noise_scale()
    return rows, {
        "least_steps": float(least),
        "critical_batch": float(product / least),
        "noise_scale": scale.value,
        "low": scale.low,
        "high": scale.high,
    }


def main(arguments: list[str] | None = None) -> int:
    """Trains everything and writes what it came to; returns the exit status."""
    parser = Parser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--steps", type=positive, default=1024, help="steps of each model")
    parser.add_argument("--out", type=to_path, default=OUT, help="the JSON file to write")
    options = parser.parse_args(arguments)
    if options.steps < 40:
        parser.error("--steps: at least 40, so that each stage has a noise scale")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    start = time.perf_counter()
    rows = [
        row
        for name in ("network", "convolution", "Transformer")
        for row in compared(name, options.steps)
    ]
    batches, critical = saved_by_batches()
    content = {"rows": rows, "batches": batches, "critical": [critical]}
    files.write_atomically(options.out, json.dumps(content, indent=1).encode())
    print(f"{options.out}: {critical}, {time.perf_counter() - start:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
