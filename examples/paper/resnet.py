"""Trains a ResNet with SGD, Adam and ACClip and compares them: Figure 1 (a) and Appendix I.

    python examples/paper/resnet.py
    python examples/paper/resnet.py --tune
    python examples/paper/resnet.py --scale paper --tfds imagenet2012

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

The default rates are the best of `--tune --seeds 2 --rates acclip=0.01`, five rates √10 apart. What
came out stands in docs/results/resnet.md.
"""

import sys

from lab import options as shared
from lab import plans, script

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


def parse_arguments(arguments=None):
    """The command line, checked."""
    parser = script.parser(__doc__, SCALES, "out/resnet")
    shared.add_images(parser)
    plans.add_arguments(parser, RATES, list(RATES), GRID)
    options = script.parse(parser, SCALES, arguments)
    shared.check_images(parser, options)
    shared.check_schedule(parser, options)
    return options


# --- One run ---------------------------------------------------------------------------------


def make_optimizer(spec, rate):
    """The optimizer of a spec's name, a key of `RATES`, and betas, at a rate or its schedule."""
    import keras

    import keras_acclip

    makers = {
        "sgd": lambda: keras.optimizers.SGD(rate, momentum=spec.momentum()),
        "adam": lambda: keras.optimizers.Adam(rate, **spec.betas),
        "acclip": lambda: keras_acclip.ACClip(rate, **spec.betas),
    }
    return makers[spec.optimizer]()


def build_model(data, options):
    """ResNet-50 at the paper's scale, the ResNet for small images otherwise."""
    from lab import resnets

    augmentation = resnets.photo_augmentation() if options.images or options.tfds else ()
    if options.scale == "paper":
        return resnets.resnet50(data.shape, data.classes, augmentation)
    return resnets.small_resnet(
        data.shape, data.classes, options.blocks, options.width, augmentation
    )


def train(spec, data, options, work):
    """One run, from its start or from the last epoch that it finished.

    Args:
        spec: The optimizer, a key of `RATES`, and its betas; the schedule's peak; the seed of the
            initial weights and the order of the images.
        data: The `images.Images`.
        options: The command line's.
        work: The `resuming.Work` of the whole comparison.

    Returns:
        The run, as `comparison` takes it.
    """
    import keras
    from lab import images, training

    name = plans.name_of(spec)
    if len(work.rows(name)) == options.epochs:
        return plans.run_of(spec, work.finish(name))

    per_epoch, size = options.steps // options.epochs, options.batch_size
    verbose = 1 if sys.stdout.isatty() else 2
    keras.backend.clear_session()
    keras.utils.set_random_seed(spec.seed)
    model = build_model(data, options)
    schedule = training.WarmupLinearDecay(spec.rate, options.warmup, options.steps)
    model.compile(
        optimizer=make_optimizer(spec, schedule),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        # Compiling takes longer than a few dozen steps.
        jit_compile="auto" if options.steps > 100 else False,
    )
    progress = training.Progress(work, name, per_epoch, size, "images")
    done = progress.restore(model)
    callbacks = [progress]
    if spec == plans.first_untuned(options, RATES):
        count = options.noise_batches
        noise = training.StagedNoise(
            images.training_batches(data, size, NOISE_SEED, 0, count),
            epochs=range(2, options.epochs + 1, 2),
            num_batches=count,
            at_start=done == 0,
            save_dir=work.folder(name) / "noise",
            verbose=verbose,
        )
        callbacks.insert(0, noise)
    model.fit(
        images.training_batches(data, size, spec.seed, done * per_epoch, options.steps),
        validation_data=images.validation_batches(data, size),
        initial_epoch=done,
        epochs=options.epochs,
        steps_per_epoch=per_epoch,
        callbacks=callbacks,
        shuffle=False,  # The batches are shuffled already.
        verbose=verbose,
    )
    return plans.run_of(spec, work.finish(name))


# --- The command -----------------------------------------------------------------------------


def report(runs, options, work):
    """Prints and saves what came out."""
    from lab import figures, reports

    runs, results = reports.report(runs, options.tune, columns=COLUMNS, measures=MEASURES)
    spec = plans.first_untuned(options, RATES)
    title = f"Gradient noise, ResNet, {spec.optimizer}, batches of {options.batch_size}"
    results["noise"] = reports.report_noise(
        work.folder(plans.name_of(spec)), options.output / "noise.png", title, options.steps
    )
    curves = {
        "loss": ("Training", "cross-entropy (nats)"),
        "val_loss": ("Validation", "cross-entropy (nats)"),
        "val_accuracy": ("Validation", "accuracy"),
    }
    images, seeds = work.settings["images"], f"seeds 0 to {options.seeds - 1}"
    title = f"ResNet, {images}, {options.steps:,} steps, {seeds}"
    figures.plot_curves(runs, options.output / "curves.png", title, curves)
    work.write_results(results, ("keras", "tensorflow", "scikit-learn"))
    print(f"\nWritten under {options.output}: results.json, curves.png, noise.png")


def main(arguments=None):
    """Reads the command line, trains what it asks for and reports. Returns the exit status."""
    options = parse_arguments(arguments)
    from lab import images, resuming, runs

    settings = script.settings_of(options, SCALES, without=("seeds",))
    try:
        data = images.load(options)
        work = resuming.Work(options.output, settings | {"images": data.name})
    except ValueError as error:
        return script.failed(error)
    print(data.name)
    return runs.conduct(
        plans.plan(options, RATES, GRID),
        options.output,
        lambda spec: train(spec, data, options, work),
        lambda found: report(found, options, work),
    )


if __name__ == "__main__":
    sys.exit(main())
