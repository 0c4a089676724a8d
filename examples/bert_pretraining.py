"""Pretrains a small BERT on real text, once with each optimizer, and compares them.

    python examples/bert_pretraining.py
    python examples/bert_pretraining.py --text 'books/*.txt.gz' --optimizers acclip,adam --tune

A 2-layer post-LN BERT learns to fill in masked words. Every optimizer gets the same initial
weights, the same batches with the same masks, and the same linear warm-up and decay; only the
update rule and its learning rate differ. Along the first optimizer's first run the gradient noise
is measured. At the end stands a table (mean ± standard deviation over seeds) and the paired
difference to Adam; `results.json`, `loss.png` and `noise.png` hold the rest.

Stopped by whatever means and started again with the same `--output`, it goes on after the last
finished epoch, with the result that it would have had.

The default rates are the best of those tried by `--tune`, five for each on both seeds; those of
adamw, gclip and cclip are not tuned. What came out stands in docs/results/bert_pretraining.md.
"""

import argparse
import functools
import sys

from paper.lab import options as shared
from paper.lab import plans, script

SCALES = {
    "small": {
        "steps": 1000,
        "warmup": 500,
        "epochs": 5,
        "batch_size": 16,
        "sequence_length": 64,
        "layers": 2,
        "hidden": 128,
        "vocabulary_size": 4096,
        "validation_rows": 1024,
        "seeds": 2,
        "noise_batches": 200,
    },
    "smoke": {
        "steps": 20,
        "warmup": 5,
        "epochs": 2,
        "batch_size": 8,
        "sequence_length": 32,
        "layers": 1,
        "hidden": 64,
        "vocabulary_size": 512,
        "validation_rows": 16,
        "seeds": 1,
        "noise_batches": 16,
    },
}
RATES = {"acclip": 2e-3, "adam": 2e-3, "adamw": 2e-3, "sgd": 0.28, "gclip": 0.3, "cclip": 1.0}
GRID = (1 / 2, 1 / 2**0.5, 1, 2**0.5, 2)  # Times the rate above, for --tune.


def parse_arguments(arguments=None):
    """The command line, checked."""
    parser = script.parser(__doc__, SCALES, "out/bert_pretraining")
    shared.add_text(parser)
    shared.add_jobs(parser)
    plans.add_arguments(parser, RATES, ["acclip", "adam", "sgd"], GRID)
    parser.add_argument(
        "--noise",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="measure the gradient noise along the first optimizer's first run (the default)",
    )
    options = script.parse(parser, SCALES, arguments)
    shared.check_text(parser, options)
    shared.check_schedule(parser, options)
    shared.check_width(parser, options)
    return options


# --- One run ---------------------------------------------------------------------------------


def make_optimizer(spec, rate):
    """The optimizer of a spec.

    Args:
        spec: Its optimizer, a key of `RATES`, and its betas count.
        rate: A learning rate or its schedule.
    """
    import keras

    import keras_acclip

    def adamw():
        """As BERT uses it: no decay of biases and layer normalizations."""
        optimizer = keras.optimizers.AdamW(rate, weight_decay=0.01, **spec.betas)
        optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
        return optimizer

    makers = {
        "acclip": lambda: keras_acclip.ACClip(rate, **spec.betas),
        "adam": lambda: keras.optimizers.Adam(rate, **spec.betas),
        "adamw": adamw,
        "sgd": lambda: keras.optimizers.SGD(rate, momentum=spec.momentum()),
        "gclip": lambda: keras_acclip.GClip(rate, threshold=0.5, momentum=spec.momentum()),
        "cclip": lambda: keras_acclip.CClip(rate, threshold=1e-3, momentum=spec.momentum()),
    }
    return makers[spec.optimizer]()


def train(spec, rows, work, noisy, alone):
    """One run, from its start or from where it was.

    Args:
        spec: The optimizer, a key of `RATES`, and its betas; the schedule's peak; the seed of the
            initial weights, the order of the rows and the masks.
        rows: `token_rows.TokenRows`.
        work: The `resuming.Work` of the whole comparison; its settings are the numbers to use.
        noisy: The spec of the run whose gradient noise is measured.
        alone: Whether no other run is trained at the same time; else it says a line an epoch.

    Returns:
        The run, as `comparison` takes it.
    """
    import keras
    from paper.lab import bert, masked_lm, training

    import keras_acclip

    settings, name = work.settings, plans.name_of(spec)
    epochs, batch_size = settings["epochs"], settings["batch_size"]
    steps_per_epoch = settings["steps"] // epochs
    tokens = batch_size * settings["sequence_length"]
    label = None if alone else plans.described(spec)
    verbose = (1 if sys.stdout.isatty() else 2) if alone else 0

    if len(work.rows(name)) == epochs:
        return plans.run_of(spec, work.finish(name))
    keras.backend.clear_session()
    keras.utils.set_random_seed(spec.seed)
    vocabulary = len(rows.vocabulary)
    model = bert.build_model(vocabulary, settings)
    schedule = training.WarmupLinearDecay(spec.rate, settings["warmup"], settings["steps"])
    model.compile(
        optimizer=make_optimizer(spec, schedule),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        weighted_metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
        jit_compile=False,  # Compiling takes longer than it saves in so short a training.
    )
    progress = training.Progress(work, name, steps_per_epoch, tokens, label=label)
    done = progress.restore(model)
    batches = functools.partial(masked_lm.training_batches, rows.train, vocabulary, batch_size)
    callbacks = [progress]
    if spec == noisy:
        count = settings["noise_batches"]
        kept = {"num_batches": count, "save_dir": work.folder(name) / "noise", "verbose": verbose}
        if hasattr(model.optimizer, "watch"):
            # It follows the training's own gradients.
            noise = keras_acclip.GradientNoise(batch_size=batch_size, **kept)
        else:
            noise = training.StagedNoise(
                batches(masked_lm.NOISE_SEED, 0, count),  # That no run trains on.
                epochs=noise_epochs(epochs),
                at_start=done == 0,
                **kept,
            )
        callbacks.insert(0, noise)
    model.fit(
        batches(spec.seed, done * steps_per_epoch, settings["steps"]),
        validation_data=masked_lm.validation_batches(
            rows.validation, vocabulary, 4 * batch_size, settings["validation_rows"]
        ),
        initial_epoch=done,
        epochs=epochs,
        steps_per_epoch=steps_per_epoch,
        callbacks=callbacks,
        shuffle=False,  # The batches are shuffled already.
        verbose=verbose,
    )
    return plans.run_of(spec, work.finish(name))


def noise_epochs(epochs):
    """The epochs after which the noise is measured, beside the start: half way and the last."""
    return {(epochs + 1) // 2, epochs}


# --- The command -----------------------------------------------------------------------------


def report(runs, options, work):
    """Prints and saves what came out."""
    from paper.lab import figures, reports

    runs, results = reports.report(runs, options.tune)
    title = f"{options.layers}-layer BERT, {options.steps} steps, {options.seeds} seeds"
    figures.plot_losses(runs, options.output / "loss.png", title)
    if options.noise:
        spec = plans.first_untuned(options, RATES)
        title = f"Gradient noise, {spec.optimizer}, batches of {options.batch_size}"
        found = reports.report_noise(
            work.folder(plans.name_of(spec)), options.output / "noise.png", title, options.steps
        )
        results["noise"] = found and {"run": [part for part in spec if part is not None]} | found
    work.write_results(results, ("keras", "tensorflow"))
    print(
        f"\nWritten under {options.output}: results.json, loss.png" + ", noise.png" * options.noise
    )


def main(arguments=None):
    """Reads the command line, trains what it asks for and reports. Returns the exit status."""
    options = parse_arguments(arguments)
    plan = plans.plan(options, RATES, GRID)
    print(f"{len(plan)} trainings of {options.steps:,} steps; reading the text", flush=True)
    from paper.lab import resuming, runs, token_rows

    from keras_acclip._utils import processes

    settings = script.settings_of(options, SCALES, without=("seeds",)) | {"noise": options.noise}
    noisy = plans.first_untuned(options, RATES) if options.noise else None
    # Where there are several processes, they load TensorFlow meanwhile, and this one never does.
    modules = ("paper.lab.bert", "paper.lab.masked_lm", "paper.lab.training")
    with runs.pool(options.jobs or processes.available_cpus(), modules) as pool:
        try:
            text = token_rows.load_text(options)
            with runs.killing_reported():
                rows = pool.call(token_rows.make, text, options)
                jobs = options.jobs or (1 if pool.call(runs.has_gpu) else pool.size)
            work = resuming.Work(options.output, settings | {"text": rows.source})
        except ValueError as error:
            return script.failed(error)
        except KeyboardInterrupt:
            return script.stopped(options.output)
        print(rows, flush=True)
        one = functools.partial(train, rows=rows, work=work, noisy=noisy, alone=jobs == 1)
        pool_of_runs = pool if jobs > 1 else runs.pool(1)
        trained = runs.start_missing(one, plan, work, options.epochs, pool_of_runs)
        return runs.conduct(
            plan, options.output, trained, lambda found: report(found, options, work)
        )


if __name__ == "__main__":
    sys.exit(main())
