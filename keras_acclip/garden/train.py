"""The Model Garden's training driver with this package's experiments, noise and exact resumption.

    python -m keras_acclip.garden.train --experiment=acclip/bert_pretraining \\
        --config_file=bert_tiny --config_file=cpu --config_file=DATA/data.yaml \\
        --mode=train_and_eval --model_dir=DIR

takes the flags of `official.nlp.train`, and a few of its own. `--config_file` also finds the
package's files by name (`keras_acclip.garden.configs`).

On one device, a run that was killed and is started again ends with the weights of an unbroken one:
checkpoints hold the position in the training data, and dropout depends on the seed and the step
alone. Where tf.data cannot save the position, a started run goes on with the data in another order:
on several replicas, and where data are changed at random on the way, as in
`acclip/bert_pretraining_text`, whose masks no two runs have alike.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from typing import Any

from absl import app
from absl.flags import FlagValues

from keras_acclip._utils.commands import quiet_tensorflow
from keras_acclip.garden import flags


def main(argv: Sequence[str] | None = None) -> None:
    """Reads the command line and trains; ends the process as `sys.exit` does.

    Args:
        argv: The command line, the program's name first. Default: the process's.
    """
    argv = list(sys.argv if argv is None else argv)
    values = flags.read(argv, __doc__ or "")
    flags.check_data(values)
    if not values.debug:
        quiet_tensorflow()
    # Loads TensorFlow and the Model Garden, and with them their flags.
    from keras_acclip.garden import runner  # noqa: F401

    app.run(lambda _: train(values), argv, flags_parser=lambda _: flags.hand_on(values))


def train(values: FlagValues) -> None:
    """Does what the flags say.

    Args:
        values: What `keras_acclip.garden.flags.read` returned.

    Raises:
        SystemExit: With status 2, after one line on stderr, where the experiment can't be run: with
            a checkpoint that can't be read, another experiment's folder, missing data or devices, a
            value out of range. With `--debug` the exception itself.
    """
    from official.core import train_utils
    from official.nlp import continuous_finetune_lib

    from keras_acclip.garden import model_dirs, runner
    from keras_acclip.garden.checkpoints import CheckpointError
    from keras_acclip.garden.errors import ExperimentError

    params = configured(values)
    try:
        if values.mode == "continuous_train_and_eval":
            params = _ready_for_continuous(params, values)
            train_utils.serialize_config(params, values.model_dir)
            model_dirs.keep_data(params.as_dict(), values.model_dir)
            continuous_finetune_lib.run_continuous_finetune(
                values.mode, params, values.model_dir, pretrain_steps=values.pretrain_steps
            )
        else:
            runner.run(
                params,
                values.mode,
                values.model_dir,
                seed=values.seed,
                noise_interval=values.noise_interval,
                noise_batches=values.noise_batches,
                enable_async_checkpointing=values.enable_async_checkpointing,
                fresh=values.fresh,
                allow_changed=values.allow_changed or (),
            )
    except Exception as error:
        if values.debug:
            raise
        # Objects of TensorFlow complain as they are taken down, after what a person is to read.
        logging.getLogger("tensorflow").setLevel(logging.ERROR)
        foreseen = isinstance(error, CheckpointError | ExperimentError)
        hint = "" if foreseen else f" ({type(error).__name__}; --debug shows the traceback)"
        flags.fail(f"{in_one_line(error)}{hint}")
    train_utils.save_gin_config(values.mode, values.model_dir)
    print(where(values.model_dir, values.noise_interval))
    if noise := last_noise(values.model_dir):
        print(noise)


def _ready_for_continuous(params: Any, values: FlagValues) -> Any:
    """The parameters that the Model Garden's own trainer is to run, after the runner's checks.

    It removes the checkpoints that `model_dir` holds, each time it begins.
    """
    from keras_acclip.garden import checks, data_checks, model_dirs
    from keras_acclip.garden.errors import ExperimentError

    steps = getattr(params.trainer, "gradient_accumulation_steps", 1)
    if steps != 1:
        raise ExperimentError(
            f"trainer.gradient_accumulation_steps={steps} is not for "
            "--mode=continuous_train_and_eval"
        )
    if not getattr(params.task, "init_checkpoint", None):
        raise ExperimentError(
            "--mode=continuous_train_and_eval needs task.init_checkpoint, the folder of the "
            "pretraining's checkpoints"
        )
    checks.check_intervals(params.trainer)
    checks.check_schedule(params.trainer)
    if params.runtime.distribution_strategy != "multi_worker_mirrored":
        checks.check_optimizer(params.trainer)
    params = params.replace(runtime=checks.available(params.runtime))
    if values.fresh:
        checks.check_outside(params.task, values.model_dir)
    else:
        allowed = values.allow_changed or ()
        model_dirs.check(params.as_dict(), values.model_dir, values.mode, allowed)
    data_checks.check_data(params.task, values.mode)
    if values.fresh:
        model_dirs.clear(values.model_dir, model_dirs.summaries(params.trainer))
    return params


def configured(values: FlagValues) -> Any:
    """The experiment's parameters, after files and overrides.

    Args:
        values: What `keras_acclip.garden.flags.read` returned.

    Raises:
        SystemExit: With status 2, after one line on stderr, where they can't be had: an experiment,
            a key or a Gin binding that isn't there, a value of the wrong kind. With `--debug` the
            exception itself.
    """
    import gin
    from official.core import train_utils

    from keras_acclip.garden import parameters

    try:
        gin.parse_config_files_and_bindings(values.gin_file, values.gin_params)
        options = train_utils.ParseConfigOptions(
            values.experiment,
            values.config_file,
            values.tpu,
            values.tf_data_service,
            values.params_override,
        )
        return parameters.parse(options)
    # Gin, YAML and the Model Garden raise exceptions of a dozen classes here.
    except Exception as error:
        if values.debug:
            raise
        message = in_one_line(error)
        if "never registered" in message:
            message = flags.no_such_experiment(values.experiment)
        flags.fail(message)


def in_one_line(error: Exception) -> str:
    """An exception's message without line breaks; a `KeyError`'s without its quotes.

    Gin adds the functions that were being called: they are left out.
    """
    message = str(error.args[0]) if len(error.args) == 1 else str(error)
    message = message.partition("\n  In call to configurable")[0]
    return " ".join(message.split()) or type(error).__name__


def where(model_dir: str, noise_interval: int | None = None) -> str:
    """The last line of a run: where its results are."""
    names = {"checkpoints": "ckpt-*", "summaries": "", "final metrics": "metrics.json"}
    if noise_interval:
        names["noise"] = os.path.join("noise", "*.npz")
    places = (f"{what}: {os.path.join(model_dir, name)}" for what, name in names.items())
    return f"Done. {'; '.join(places)}"


def last_noise(model_dir: str) -> str | None:
    """What the last measurement of the gradient noise has found, in one line, if there is one."""
    from keras_acclip.garden.summaries import read_noise
    from keras_acclip.noise.recorder import line

    sample = None if "://" in model_dir else read_noise(model_dir)
    return f"Gradient noise at {line(sample)}" if sample else None


if __name__ == "__main__":
    main()
