"""Draws the pictures of the pages in this folder.

    python docs/api/make.py [--output FOLDER] [NAME ...]

The gradient noise is that of a small regression, measured here: with targets whose errors are
heavy-tailed (Student's t with 1.5 degrees of freedom), and with Gaussian errors. The comparison is
of two trainings of a very small BERT on this repository's pages, which takes minutes.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ["CUDA_VISIBLE_DEVICES"] = ""

import keras
import numpy as np

import keras_acclip
from keras_acclip import noise
from keras_acclip._utils.commands import Parser
from keras_acclip.noise import plots

HERE = Path(__file__).parent
PAGES = HERE.parent
HEAVY, GAUSSIAN = "heavy-tailed errors", "Gaussian errors"
EXAMPLES, BATCH, STEPS = 16_384, 16, 400


def regression(errors):
    """The data of a regression with such errors, and a model for it."""
    keras.utils.set_random_seed(1)
    rng = np.random.default_rng(1)
    x = rng.normal(size=(EXAMPLES, 8)).astype("float32")
    draw = rng.standard_t(1.5, (EXAMPLES, 1)) if errors == HEAVY else rng.normal(size=(EXAMPLES, 1))
    layers = [keras.layers.Dense(16, "tanh"), keras.layers.Dense(1)]
    model = keras.Sequential(layers, name="regression")
    model.compile(keras_acclip.ACClip(0.01), loss="mse")
    return model, x, (x.sum(axis=1, keepdims=True) + draw).astype("float32")


def measured(errors):
    """A sample of the gradient noise with such errors."""
    model, x, y = regression(errors)
    return noise.measure_noise(
        model, (x, y), num_batches=EXAMPLES // BATCH, batch_size=BATCH, verbose=0
    )


def followed():
    """The callback after a training along which the noise becomes smaller and heavier-tailed."""
    model, x, y = regression(HEAVY)
    # Targets far from 0 at first: what every example adds to the gradient then hides the errors.
    callback = keras_acclip.GradientNoise(
        (x, y + 30), num_batches=256, every=EXAMPLES // BATCH, batch_size=BATCH, verbose=0
    )
    model.fit(x, y + 30, batch_size=BATCH, epochs=5, callbacks=[callback], verbose=0)
    return callback


def comparison(folder):
    """The picture of two trainings in the Model Garden, by the commands of its page."""
    from keras_acclip.garden import compare

    def module(name, *arguments):
        command = [sys.executable, "-m", f"keras_acclip.garden.{name}", *map(str, arguments)]
        subprocess.run(command, check=True)

    data = folder / "data"
    text = sorted(str(path) for path in PAGES.rglob("*.md"))
    sizes = ("--vocab_size", 1024, "--seq_length", 64, "--output", data)
    module("data", "pretraining", "--input", *text, *sizes)
    counts = (
        f"trainer.train_steps={STEPS},trainer.steps_per_loop=20,trainer.summary_interval=20,"
        "trainer.validation_interval=50,trainer.validation_steps=10,"
        f"trainer.checkpoint_interval={STEPS},task.train_data.global_batch_size=16,"
        "task.validation_data.global_batch_size=16,"
        "trainer.optimizer_config.warmup.polynomial.warmup_steps=50,"
        "trainer.optimizer_config.learning_rate.polynomial.initial_learning_rate=0.001,"
        f"trainer.optimizer_config.learning_rate.polynomial.decay_steps={STEPS}"
    )
    runs = [folder / name for name in ("adamw", "acclip")]
    for run in runs:
        module(
            *("train", "--experiment=acclip/bert_pretraining", "--mode=train_and_eval"),
            *("--config_file=bert_tiny", "--config_file=cpu", f"--config_file={run.name}"),
            *(f"--config_file={data / 'data.yaml'}", f"--model_dir={run}"),
            f"--params_override={counts}",
        )
    compare.compare(runs, folder)
    return (folder / "comparison.png").read_bytes()


def both():
    """The two samples and what they are called."""
    return [measured(HEAVY), measured(GAUSSIAN)], [HEAVY, GAUSSIAN]


PICTURES = {
    "histogram": lambda: plots.histogram(measured(HEAVY), HEAVY),
    "variance_growth": lambda: plots.variance_growth(measured(HEAVY), HEAVY),
    "tail": lambda: plots.tail(measured(HEAVY), HEAVY),
    "hill_plot": lambda: plots.hill_plot(measured(HEAVY), HEAVY),
    "panel": lambda: measured(HEAVY).plot(HEAVY),
    "grid": lambda: plots.grid(*both()),
    "side_by_side": lambda: plots.side_by_side(*both()),
    "evolution": lambda: followed().plot_evolution(),
}
LONG = "comparison"


def main(arguments=None):
    """Draws the pictures of these names, or all."""
    parser = Parser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"default: all, {LONG} too")
    parser.add_argument("--output", type=Path, default=HERE / "pictures")
    options = parser.parse_args(arguments)
    for name in options.names:
        if name not in (*PICTURES, LONG):
            parser.error(f"{name!r} is none of {', '.join((*PICTURES, LONG))}")
    options.output.mkdir(exist_ok=True)
    for name in options.names or (*PICTURES, LONG):
        path = options.output / f"{name}.png"
        if name == LONG:
            with tempfile.TemporaryDirectory() as folder:
                path.write_bytes(comparison(Path(folder)))
        else:
            plots.save(PICTURES[name](), path)
        print(f"Written: {path}")


if __name__ == "__main__":
    main()
