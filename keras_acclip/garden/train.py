"""The Model Garden's training driver with this package's experiments, noise and exact resumption.

    python -m keras_acclip.garden.train --experiment=acclip/bert_pretraining \
        --config_file=bert_tiny --config_file=cpu --config_file=DATA/data.yaml \
        --mode=train_and_eval --model_dir=DIR

takes the flags of `official.nlp.train`, and a few of its own. `--config_file` also finds the
package's files by name (`keras_acclip.garden.configs`).

On one device, a run that was killed and is started again ends with the weights of an unbroken one:
checkpoints hold the position in the training data, and dropout depends on the seed and the step
alone. Where tf.data cannot save the position, a started run goes on with the data in another order:
on several replicas, and where data are changed at random on the way, as in
`acclip/bert_pretraining_text`, whose masks no two runs have alike.
"""

import base64
import contextlib
import difflib
import errno
import functools
import itertools
import json
import os
import pathlib
import shutil
import sys
import tempfile

import gin
import tensorflow as tf
import tf_keras
from absl import app, flags, logging
from official.common import distribute_utils
from official.common import flags as garden_flags
from official.core import base_trainer, task_factory, train_lib, train_utils
from official.modeling import performance
from official.nlp import continuous_finetune_lib
from official.nlp import train as driver  # noqa: F401  (defines flags)
from official.nlp.tasks.question_answering import QuestionAnsweringConfig

from keras_acclip._utils import arguments
from keras_acclip.garden import actions, configs, experiments  # noqa: F401
from keras_acclip.noise.losses import seed_layers

__all__ = ["CheckpointError", "Trainer", "last_checkpoint", "run"]

FLAGS = flags.FLAGS


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be read, or cannot be written."""


class Trainer(base_trainer.Trainer):
    """The Model Garden's trainer, but every step depends on checkpoint, data and seed alone.

    Args:
        config: As the Model Garden's, like all arguments that are not named here.
        task: The task.
        seed: Seed of dropout; a whole number. Defaults to 0.
        **kwargs: See `official.core.base_trainer.Trainer`.
    """

    def __init__(self, config, task, *, seed=0, **kwargs):
        self._seed = seed
        strategy = tf.distribute.get_strategy()
        self._one_device = _is_one_device(strategy)
        self._compiles_on_cpu = (
            config.runtime.enable_xla
            and config.runtime.num_gpus == 0
            and self._one_device
            and not isinstance(strategy, tf.distribute.TPUStrategy)
        )
        super().__init__(config, task, **kwargs)
        if kwargs.get("train", True):
            _build(self.optimizer, self.model.trainable_variables)
        self._position = _InputPosition(config.task.train_data.as_dict())
        if self._one_device:
            self._checkpoint.input_position = self._position

    def distribute_dataset(self, dataset_or_fn, *args, **kwargs):
        """Returns a plain `tf.data.Dataset` on one device, as only its iterator can be saved.

        Args:
            dataset_or_fn: As the Model Garden's.
            *args: For `dataset_or_fn`.
            **kwargs: For `dataset_or_fn`.
        """
        if self._one_device and callable(dataset_or_fn):
            return dataset_or_fn(*args, **kwargs)
        return super().distribute_dataset(dataset_or_fn, *args, **kwargs)

    def train(self, num_steps):
        """Trains for `num_steps`, from the position in the data that the checkpoint holds.

        Args:
            num_steps: Number of steps, a scalar tensor.
        """
        if self._train_iter is None:
            step = int(self.global_step.numpy())
            if self._one_device:
                self._train_iter = self._position.open(self._build_inputs, step)
            elif step:
                self.train_dataset = self.distribute_dataset(self._build_inputs, step)
        return super().train(num_steps)

    def _build_inputs(self, offset, input_context=None):
        """Builds the training data in an order of their own for each `offset` to the seed."""
        data = self.config.task.train_data
        data = data.replace(seed=(data.seed or 0) + offset)
        return self.task.build_inputs(data, input_context)

    def train_step(self, iterator):
        """Runs one step: where `runtime.enable_xla` is set, as one XLA computation, on a CPU too.

        Args:
            iterator: Iterator over the training data.
        """
        self._seed_random_layers()
        if not self._compiles_on_cpu:
            super().train_step(iterator)
            return
        task_train_step = tf.function(self.task.train_step, jit_compile=True)

        def step(inputs):
            logs = task_train_step(
                inputs, model=self.model, optimizer=self.optimizer, metrics=self.train_metrics
            )
            self.train_loss.update_state(logs[self.task.loss])
            self.global_step.assign_add(1)

        self.strategy.run(step, args=(self.next_train_inputs(iterator),))

    @tf.autograph.experimental.do_not_convert
    def _seed_random_layers(self):
        """Lets the model's random layers draw by seed, step, replica and order of their calls."""
        draws = itertools.count()

        def draw():
            context = tf.distribute.get_replica_context()
            replica = context.replica_id_in_sync_group if context else 0
            seed = tf.constant([self._seed, 0])
            for part in (self.global_step.read_value(), replica, next(draws)):
                seed = tf.random.experimental.stateless_fold_in(seed, part)
            return seed

        seed_layers(self.model, draw)


def _build(optimizer, variables):
    """Makes the slots before the first step, which is traced a second time if it makes them."""
    if isinstance(optimizer, tf_keras.optimizers.legacy.Optimizer):
        optimizer._create_all_weights(variables)
    else:
        optimizer.build(variables)


def _is_one_device(strategy):
    asynchronous = isinstance(strategy, tf.distribute.experimental.ParameterServerStrategy)
    return strategy.num_replicas_in_sync == 1 and not asynchronous


class _InputPosition(tf.train.experimental.PythonState):
    """The position in the training data, as part of a checkpoint.

    Restoring a checkpoint does not move an open iterator: after a recovery from a diverged loss,
    the Model Garden's trainer must not meet the same batches again.
    """

    def __init__(self, data):
        self._data = data
        self._restored = b""
        self._iterator = None

    def open(self, build, step):
        """Returns an iterator over the training data, at the position restored if there is one.

        Args:
            build: `build(offset)` makes the dataset, in an order of its own for each `offset`.
            step: Steps taken.
        """
        saved = json.loads(self._restored) if self._restored else None
        iterator = iter(build(0))
        self._can_be_saved = _saved(iterator) is not None
        if saved and saved["data"] != self._data:
            logging.warning(
                "The training data differ from those before step %d, so they are read from their "
                "start:\n%s",
                step,
                "\n".join(_differences(saved["data"], self._data)),
            )
        elif saved and saved["iterator"]:
            _restore(iterator, saved["iterator"])
        elif step:
            logging.warning(
                "The checkpoint has no position in the training data, so they come in another "
                "order than without the restart."
            )
            iterator = iter(build(step))
        self._iterator = iterator
        return iterator

    def serialize(self):
        """Returns the position, as bytes."""
        if self._iterator is None:
            return self._restored
        position = {
            "data": self._data,
            "iterator": _saved(self._iterator) if self._can_be_saved else None,
        }
        return json.dumps(position).encode()

    def deserialize(self, string_value):
        """Takes a position, for `open`."""
        self._restored = string_value


def _saved(iterator):
    """Returns the files of an iterator's checkpoint as a dict, or `None` if it has no such."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            tf.train.Checkpoint(iterator=iterator).write(f"{folder}/iterator")
        except (tf.errors.FailedPreconditionError, tf.errors.UnimplementedError):
            return None
        return {
            path.name: base64.b64encode(path.read_bytes()).decode()
            for path in pathlib.Path(folder).iterdir()
        }


def _restore(iterator, files):
    with tempfile.TemporaryDirectory() as folder:
        for name, content in files.items():
            pathlib.Path(folder, name).write_bytes(base64.b64decode(content))
        tf.train.Checkpoint(iterator=iterator).read(f"{folder}/iterator")


def _differences(old, new):
    lines = [json.dumps(data, indent=1, sort_keys=True).splitlines() for data in (old, new)]
    return [line for line in difflib.ndiff(*lines) if line[0] in "+-"]


class _Runner(train_lib.OrbitExperimentRunner):
    """The Model Garden's runner, with our trainer and actions."""

    def __init__(self, *, seed, noise_interval, noise_batches, model_dir, **kwargs):
        self._seed = seed
        self._noise = None
        self._noise_arguments = noise_interval, model_dir, noise_batches
        self._metrics_path = os.path.join(model_dir, "metrics.json")
        # Every worker saves, as variables may synchronize on it, but only the first one's count.
        self._is_chief = kwargs["distribution_strategy"].extended.should_checkpoint
        super().__init__(model_dir=model_dir, save_summary=self._is_chief, **kwargs)

    def run(self):
        """Runs the experiment; returns what the Model Garden's runner does."""
        try:
            return super().run()
        finally:
            manager = self.checkpoint_manager
            if manager:
                manager.sync()  # A checkpoint may still be on its way to the disk.
            if manager and not self._is_chief:
                shutil.rmtree(manager.directory)

    def _build_trainer(self, task, train, evaluate):
        with self.strategy.scope():
            return train_utils.create_trainer(
                self.params,
                task,
                train=train,
                evaluate=evaluate,
                checkpoint_exporter=self._build_best_checkpoint_exporter(),
                trainer_cls=functools.partial(Trainer, seed=self._seed),
            )

    def _maybe_build_checkpoint_manager(self):
        manager = super()._maybe_build_checkpoint_manager()
        if not self._is_chief:
            # The Model Garden's would look into the worker's own folder, which is new.
            manager._latest_checkpoint = tf.train.latest_checkpoint(self.model_dir)
        return manager

    def _build_controller(self, trainer, evaluator, **kwargs):
        train_actions, eval_actions = [], []
        if trainer and self._noise_arguments[0]:
            self._noise = actions.NoiseAction(trainer, *self._noise_arguments)
            train_actions.append(self._noise)
        if self._is_chief:
            train_actions.append(self._metrics_action("training"))
            eval_actions.append(self._metrics_action("validation"))
        kwargs |= {"train_actions": train_actions, "eval_actions": eval_actions}
        controller = super()._build_controller(trainer, evaluator, **kwargs)
        if self._noise:
            self._noise.begin()
        return controller

    def _metrics_action(self, kind):
        return actions.MetricsAction(self._metrics_path, kind, self.trainer.global_step)


def run(
    params,
    mode,
    model_dir,
    *,
    seed=0,
    noise_interval=None,
    noise_batches=256,
    enable_async_checkpointing=False,
):
    """Runs an experiment, or goes on with it where `model_dir` holds a checkpoint.

    Args:
        params: An `ExperimentConfig`; not changed.
        mode: `"train"`, `"eval"`, `"train_and_eval"`, `"continuous_eval"` or
            `"train_and_post_eval"`.
        model_dir: Folder for checkpoints, summaries, `params.yaml` and `metrics.json`.
        seed: Seed of initial weights and dropout, and of the data's order where the experiment
            names none. Defaults to 0.
        noise_interval: `None`, or the steps between measurements of the gradient noise.
        noise_batches: Most batches a measurement. Defaults to 256.
        enable_async_checkpointing: Whether training goes on while a checkpoint is written. Not on
            one device, as such checkpoints cannot hold the position in the data, and not on
            several workers, as saving may synchronize variables, in which all take part.

    Returns:
        The trained `tf_keras.Model`.

    Raises:
        CheckpointError: If the newest checkpoint cannot be read, or the disk is full.
        ValueError: If an argument or a parameter is out of range, or `mode` lets several workers
            score answers to questions.
    """
    if noise_interval is not None:
        noise_interval = arguments.positive_integer("noise_interval", noise_interval)
        if noise_interval % params.trainer.steps_per_loop:
            raise ValueError(
                "Argument `noise_interval` must be a multiple of trainer.steps_per_loop, "
                f"{params.trainer.steps_per_loop}. Received: noise_interval={noise_interval}"
            )
    last_checkpoint(model_dir)
    tf_keras.utils.set_random_seed(seed)
    if params.task.train_data.seed is None:
        params = params.replace(task={"train_data": {"seed": seed}})
    try:
        if "train" in mode:
            _remove_halves(model_dir)
        if params.runtime.mixed_precision_dtype:
            performance.set_mixed_precision_policy(params.runtime.mixed_precision_dtype)
        strategy = distribute_utils.get_distribution_strategy(
            distribution_strategy=params.runtime.distribution_strategy,
            all_reduce_alg=params.runtime.all_reduce_alg,
            num_gpus=params.runtime.num_gpus,
            tpu_address=params.runtime.tpu,
            **params.runtime.model_parallelism(),
        )
        _check_evaluation(params.task, mode, strategy)
        if "train" in mode and strategy.extended.should_checkpoint:
            train_utils.serialize_config(params, model_dir)
        with strategy.scope():
            task = task_factory.get_task(params.task, logging_dir=model_dir)
        model, _ = _Runner(
            distribution_strategy=strategy,
            task=task,
            mode=mode,
            params=params,
            model_dir=model_dir,
            seed=seed,
            noise_interval=noise_interval,
            noise_batches=noise_batches,
            enable_async_checkpointing=enable_async_checkpointing
            and not _is_one_device(strategy)
            and not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy),
        ).run()
    except (tf.errors.OpError, OSError) as error:
        if not _is_full_disk(error):
            raise
        _remove_halves(model_dir)
        raise CheckpointError(
            f"The disk of {model_dir} is full: {_first_line(error)}\nThe last good checkpoint is "
            f"{last_checkpoint(model_dir) or 'none'}. Make room and start again: training goes on "
            "from it."
        ) from error
    return model


def _check_evaluation(task, mode, strategy):
    several = isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)
    if several and "eval" in mode and isinstance(task, QuestionAnsweringConfig):
        raise ValueError(
            "Answers to questions are scored by one process, and each worker has a part of them. "
            "Train the workers with --mode=train, then run --mode=eval on one machine with the "
            f"same model_dir. Received: mode={mode!r}"
        )


def last_checkpoint(model_dir):
    """Returns the prefix of the newest checkpoint, after having read it through.

    Args:
        model_dir: The model directory.

    Returns:
        The prefix, or `None` if there is no checkpoint.

    Raises:
        CheckpointError: If a checkpoint is named, and cannot be read.
    """
    state_file = os.path.join(model_dir, "checkpoint")
    if not tf.io.gfile.exists(state_file):
        return None
    state = tf.train.get_checkpoint_state(model_dir)
    if state is None:
        raise CheckpointError(
            f"{state_file}, which names the newest checkpoint, cannot be read.\n"
            + _way_out(model_dir, None)
        )
    newest = state.model_checkpoint_path
    problem = _problem(newest)
    if problem:
        raise CheckpointError(
            f"The checkpoint {newest} cannot be read: {problem}\n" + _way_out(model_dir, newest)
        )
    return newest


def _problem(prefix):
    """Returns why a checkpoint cannot be read, or `None`."""
    try:
        reader = tf.train.load_checkpoint(prefix)
        for name in reader.get_variable_to_shape_map():
            reader.get_tensor(name)
    except (tf.errors.OpError, ValueError, RuntimeError, IndexError) as error:
        return _first_line(error)
    return None


def _way_out(model_dir, newest):
    indices = tf.io.gfile.glob(os.path.join(model_dir, "ckpt-*.index"))
    prefixes = {path.removesuffix(".index") for path in indices} - {newest}
    by_step = sorted(prefixes, key=lambda prefix: int(prefix.rpartition("-")[2]), reverse=True)
    for prefix in by_step:
        if not _problem(prefix):
            name = os.path.basename(prefix)
            return (
                f"The last good checkpoint is {prefix}. To go on from it, put this line alone into "
                f'{os.path.join(model_dir, "checkpoint")}:\nmodel_checkpoint_path: "{name}"'
            )
    return "There is no other checkpoint that can be read. To start over, take another directory."


def _remove_halves(model_dir):
    """Removes what a killed or failed run has left of a checkpoint that it was writing."""
    for path in tf.io.gfile.glob(os.path.join(model_dir, "ckpt-*_temp")):
        with contextlib.suppress(tf.errors.NotFoundError):
            tf.io.gfile.rmtree(path)


def _is_full_disk(error):
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return any(os.strerror(number) in str(error) for number in (errno.ENOSPC, errno.EDQUOT))


def _first_line(error):
    return str(error).splitlines()[0]


def _define_flags():
    garden_flags.define_flags()
    flags.DEFINE_integer(
        "seed", 0, "Seed of initial weights, of dropout, and of the data's order if not configured."
    )
    flags.DEFINE_integer(
        "noise_interval",
        None,
        "Steps between measurements of the gradient noise; a multiple of trainer.steps_per_loop. "
        "They go into MODEL_DIR/noise. Default: none.",
        lower_bound=1,
    )
    flags.DEFINE_integer(
        "noise_batches", 256, "Most batches of a measurement of the gradient noise.", lower_bound=2
    )
    flags.mark_flags_as_required(["experiment", "mode", "model_dir"])


def _main(_):
    gin.parse_config_files_and_bindings(FLAGS.gin_file, FLAGS.gin_params)
    try:
        FLAGS.config_file = [configs.find(name) for name in FLAGS.config_file or []]
        params = train_utils.parse_configuration(FLAGS)
        if FLAGS.mode == "continuous_train_and_eval":
            train_utils.serialize_config(params, FLAGS.model_dir)
            continuous_finetune_lib.run_continuous_finetune(
                FLAGS.mode, params, FLAGS.model_dir, pretrain_steps=FLAGS.pretrain_steps
            )
        else:
            run(
                params,
                FLAGS.mode,
                FLAGS.model_dir,
                seed=FLAGS.seed,
                noise_interval=FLAGS.noise_interval,
                noise_batches=FLAGS.noise_batches,
                enable_async_checkpointing=FLAGS.enable_async_checkpointing,
            )
    except (CheckpointError, FileNotFoundError, NotImplementedError) as error:
        sys.exit(f"error: {error}")
    train_utils.save_gin_config(FLAGS.mode, FLAGS.model_dir)
    print(_where(FLAGS.model_dir, FLAGS.noise_interval))


def _where(model_dir, noise_interval):
    names = {"checkpoints": "ckpt-*", "summaries": "", "final metrics": "metrics.json"}
    if noise_interval:
        names["noise"] = os.path.join("noise", "*.npz")
    places = (f"{what}: {os.path.join(model_dir, name)}" for what, name in names.items())
    return f"Done. {'; '.join(places)}"


if __name__ == "__main__":
    _define_flags()
    app.run(_main)
