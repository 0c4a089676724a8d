"""Trains a ResNet with SGD, Adam and ACClip and compares them: Figure 1 (a) and Appendix I.

    python examples/resnet.py
    python examples/resnet.py --tune
    python examples/resnet.py --scale paper --tfds imagenet2012

The claim: where the gradient noise is concentrated, as for a ResNet on images, SGD with momentum is
as good as adaptive methods or better; clipping is of no use there.

By default a ResNet-8 (three stages of one residual block) learns scikit-learn's handwritten digits;
`--images` takes a folder of class folders, `--tfds` a data set of TensorFlow Datasets, and with
either the images are mirrored and shifted at random. `--scale paper` is ResNet-50 for 90 passes
over ImageNet; its rates are not tuned. With one seed, every optimizer gets the same initial
weights, the same batches and the same linear warm-up and decay. The gradient noise is measured
along the first optimizer's first run.

Stopped by whatever means and started again with the same `--output`, it goes on after the last
finished epoch, with the result that it would have had.

Where the default rates come from: `--tune --seeds 2 --rates acclip=0.01`, five rates √10 apart.
Validation loss, mean over seeds 0 and 1 (TensorFlow 2.20):

    sgd     0.01: 0.069    0.032: 0.041   0.1: 0.030    0.32: 0.056    1: 0.035
    adam    0.001: 0.064   0.0032: 0.040  0.01: 0.023   0.032: 0.026   0.1: 0.037
    acclip  0.001: 0.039   0.0032: 0.021  0.01: 0.022   0.032: 0.090   0.1: 0.090

The first command, seeds 0 to 4, 360 images held out: mean ± standard deviation, and the 95%
interval of the difference to Adam with the same seed:

    sgd     loss 0.040 ± 0.015  (-0.004 to +0.021)  accuracy 0.988 ± 0.005  (-0.005 to +0.006)
    adam    loss 0.032 ± 0.009                      accuracy 0.987 ± 0.004
    acclip  loss 0.030 ± 0.019  (-0.022 to +0.019)  accuracy 0.990 ± 0.008  (-0.009 to +0.014)

So the three end alike, as the claim has it: on images adaptivity gains nothing that five seeds can
show. SGD's noise (seed 0) was concentrated at steps 0 and 120 (Hill's index 30 and 8.8), and then,
once the digits were known by heart, undecided or heavy-tailed (1.2 and 1.05 at steps 240 and 360,
2.2 and 2.5 at the end): a few batches still have a gradient and most hardly any.
"""

import sys

import comparison
import experiment
import images
import keras
import script

import keras_acclip

SCALES = {
    "small": {
        "steps": 600,
        "warmup": 60,
        "epochs": 10,
        "batch_size": 32,
        "blocks": 1,
        "width": 16,
        "seeds": 5,
        "noise_batches": 512,
    },
    "smoke": {
        "steps": 20,
        "warmup": 2,
        "epochs": 2,
        "batch_size": 16,
        "blocks": 1,
        "width": 4,
        "seeds": 1,
        "noise_batches": 100,
    },
    "paper": {
        "steps": 450_000,
        "warmup": 25_000,
        "epochs": 90,
        "batch_size": 256,
        "blocks": 3,
        "width": 16,
        "seeds": 3,
        "noise_batches": 512,
    },
}
OPTIMIZERS = {
    "sgd": lambda rate: keras.optimizers.SGD(rate, momentum=0.9),
    "adam": lambda rate: keras.optimizers.Adam(rate),
    "acclip": lambda rate: keras_acclip.ACClip(rate),
}
RATES = {"sgd": 0.1, "adam": 1e-2, "acclip": 3.2e-3}
GRID = (1 / 10, 1 / 10**0.5, 1, 10**0.5, 10)  # Times the rate above, for --tune.
COLUMNS = {
    "train loss": ("loss", 3),
    "validation loss": ("val_loss", 3),
    "validation accuracy": ("val_accuracy", 4),
    "images/s": ("images_per_second", 0),
    "seconds": ("seconds", 1),
}
NOISE_SEED = 2**30  # The noise is measured on batches in an order that no run trains in.
MEASURES = {"val_loss": "validation loss", "val_accuracy": "validation accuracy"}


def build_model(data, options):
    """ResNet-50 at the paper's scale, the ResNet for small images otherwise."""
    augmentation = images.photo_augmentation() if options.images or options.tfds else ()
    if options.scale == "paper":
        return images.resnet50(data.shape, data.classes, augmentation)
    return images.small_resnet(
        data.shape, data.classes, options.blocks, options.width, augmentation
    )


def train(optimizer, rate, seed, data, options):
    """One run, from its start or from the last epoch that it finished.

    Args:
        optimizer: A name in `OPTIMIZERS`.
        rate: The schedule's peak.
        seed: Of the initial weights and the order of the images.
        data: The `images.Images`.
        options: The command line's.

    Returns:
        The run, as `comparison` takes it.
    """
    folder = experiment.folder(options.output, optimizer, rate, seed)
    per_epoch = options.steps // options.epochs
    progress = experiment.Progress(folder, per_epoch, options.batch_size, "images")
    run = {"optimizer": optimizer, "learning_rate": rate, "seed": seed}
    run["history"] = progress.history
    done = len(progress.history)
    if done == options.epochs:
        return run

    verbose = 1 if sys.stdout.isatty() else 2
    keras.backend.clear_session()
    keras.utils.set_random_seed(seed)
    model = build_model(data, options)
    schedule = experiment.WarmupLinearDecay(rate, options.warmup, options.steps)
    model.compile(
        optimizer=OPTIMIZERS[optimizer](schedule),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    progress.restore(model)
    callbacks = [progress]
    if (optimizer, rate, seed) == measured_run(options):
        count = options.noise_batches
        noise = experiment.StagedNoise(
            images.training_batches(data, options.batch_size, NOISE_SEED, 0, count),
            num_batches=count,
            at_start=done == 0,
            save_dir=folder / "noise",
            verbose=verbose,
        )
        callbacks.insert(0, noise)
    batches = images.training_batches(
        data, options.batch_size, seed, done * per_epoch, options.steps
    )
    model.fit(
        batches,
        validation_data=images.validation_batches(data, options.batch_size),
        initial_epoch=done,
        epochs=options.epochs,
        steps_per_epoch=per_epoch,
        callbacks=callbacks,
        shuffle=False,  # The batches are shuffled already.
        verbose=verbose,
    )
    progress.history.finish()
    return run


# --- The command -----------------------------------------------------------------------------


def parse_arguments(arguments=None):
    """The command line, checked."""
    parser = script.parser(__doc__, SCALES, "out/resnet")
    images.add_options(parser)
    experiment.add_arguments(parser, RATES, list(RATES), GRID)
    options = script.parse(parser, SCALES, arguments)
    experiment.check_schedule(parser, options)
    return options


def measured_run(options):
    """The run whose gradient noise is measured: the first optimizer's, untuned, seed 0."""
    name = options.optimizers[0]
    return name, (RATES | options.rates)[name], 0


def report(runs, options, settings):
    """Prints and saves what came out."""
    runs, results = experiment.report(runs, options.tune, columns=COLUMNS, measures=MEASURES)
    spec = measured_run(options)
    title = f"Gradient noise, ResNet, {spec[0]}, batches of {options.batch_size}"
    folder = experiment.folder(options.output, *spec)
    path = options.output / "noise.png"
    results["noise"] = experiment.report_noise(folder, path, title, options.steps)
    curves = {
        "loss": ("Training", "cross-entropy (nats)"),
        "val_loss": ("Validation", "cross-entropy (nats)"),
        "val_accuracy": ("Validation", "accuracy"),
    }
    title = f"ResNet, {settings['images']}, {options.steps:,} steps, seeds 0 to {options.seeds - 1}"
    comparison.plot_curves(runs, options.output / "curves.png", title, curves)
    parts = script.Parts(options.output, settings)
    parts.finish(results, ("keras", "tensorflow", "scikit-learn"))
    print(f"\nWritten under {options.output}: results.json, curves.png, noise.png")


def main(arguments=None):
    """Reads the command line, trains what it asks for and reports. Returns the exit status."""
    options = parse_arguments(arguments)
    settings = {name: getattr(options, name) for name in SCALES["small"] if name != "seeds"}

    def prepare():
        data = images.load(options)
        settings["images"] = data.name
        script.claim_output(options.output, settings)
        print(data.name)
        return lambda *spec: train(*spec, data, options)

    plan = experiment.plan(options, RATES, GRID)
    return experiment.conduct(
        plan, options.output, prepare, lambda runs: report(runs, options, settings)
    )


if __name__ == "__main__":
    sys.exit(main())
