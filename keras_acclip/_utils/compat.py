"""Private names of Keras, `tf_keras`, TensorFlow and the Model Garden, each used here alone.

Each function stands for one private name, and says what for. `tests/unit/_utils/test_compat.py`
calls them all, so that a new release that moves one shows in this file.

Subclasses also override hooks that their base classes call and that are private by name:

- Keras 3's `Optimizer`: `_backend_update_step`, `_apply_weight_decay` and
  `_update_model_variables_moving_average` (`keras_acclip.optimizers.base`);
- Keras 2's `Optimizer`: `_internal_apply_gradients`, `_deduplicate_sparse_grad`,
  `_apply_weight_decay`, `_update_model_variables_moving_average`, `_create_iteration_variable`
  (`keras_acclip.tf_keras.clip`), and those of its legacy optimizers that the Model Garden's moving
  average calls (`keras_acclip.tf_keras.base`);
- Keras 2's `Callback`: the attribute `_supports_tf_logs` (`keras_acclip.noise.callback_tf_keras`);
- the Model Garden's `OrbitExperimentRunner`: `_maybe_build_checkpoint_manager`, which its
  docstring shows as what to override (`keras_acclip.garden.runner`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import itertools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from keras_acclip._utils.typing import Array, Variable

if TYPE_CHECKING:
    import tensorflow as tf

# --- optimizers -------------------------------------------------------------------------------


def variable_index(optimizer: Any, variable: Variable) -> int:
    """A variable's place among those that a Keras 3 optimizer was built with.

    `Optimizer._get_variable_index`: nothing public tells it.

    Raises:
        KeyError: If the optimizer was not built with it.
    """
    return optimizer._get_variable_index(variable)


def untrack(optimizer: Any, variables: Sequence[Variable]) -> None:
    """Takes variables off those of a Keras 3 optimizer.

    `Optimizer._untrack_variable`: nothing public undoes `add_variable`.
    """
    for variable in variables:
        optimizer._untrack_variable(variable)


def decays(optimizer: Any, variable: Variable) -> bool:
    """Whether weight decay applies to a variable, after `exclude_from_weight_decay`.

    `Optimizer._use_weight_decay` of Keras 3 and of Keras 2.
    """
    return optimizer._use_weight_decay(variable)


def trainable_variables(optimizer: Any) -> list[Variable]:
    """The variables that a Keras 3 optimizer was built with.

    `Optimizer._trainable_variables`: `variables` holds the optimizer's own.
    """
    return optimizer._trainable_variables


def knows(optimizer: Any, variable: Variable) -> bool:
    """Whether an optimizer of either Keras was built with a variable; `False` where none tells.

    `Optimizer._trainable_variables` of Keras 3, `._index_dict` and `._var_key` of Keras 2.
    """
    while getattr(optimizer, "inner_optimizer", None) is not None:
        optimizer = optimizer.inner_optimizer
    if hasattr(optimizer, "_index_dict"):
        return optimizer._var_key(variable) in optimizer._index_dict
    return any(variable is own for own in getattr(optimizer, "_trainable_variables", ()))


def learning_rate(optimizer: Any) -> Any:
    """The learning rate as the optimizer holds it: a variable, a schedule or a callable.

    `Optimizer._learning_rate` of Keras 3 and of Keras 2: `learning_rate` is its current value.
    """
    return optimizer._learning_rate


def set_learning_rate(base: Any, optimizer: Any, learning_rate: Any) -> None:
    """Sets the learning rate as the class `base` does it, of an optimizer that checks it first.

    The setter of a property is not to be had through `super()`.
    """
    base.learning_rate.fset(optimizer, learning_rate)


def moving_averages(optimizer: Any) -> list[Variable | None]:
    """The exponential moving averages that an optimizer keeps with `use_ema=True`.

    `Optimizer._model_variables_moving_average` of Keras 3 and of Keras 2.
    """
    return optimizer._model_variables_moving_average


def counter(optimizer: Any) -> Variable:
    """The variable that counts a Keras 3 optimizer's calls of `apply`.

    `Optimizer._iterations`: with gradient accumulation `iterations` is no variable.
    """
    return optimizer._iterations


def layout(variable: Variable) -> Any:
    """How a Keras 3 variable is laid out over devices, or `None`.

    `Variable._layout`, as Keras's `add_variable_from_reference` reads it.
    """
    return getattr(variable, "_layout", None)


def maybe_merge_call(
    function: Callable[..., Any], strategy: Any, *arguments: Array | Sequence[Array] | None
) -> Any:
    """Calls `function(strategy, *arguments)` once for all replicas, where they can be merged.

    `tf.__internal__.distribute.interim.maybe_merge_call`, as Keras's optimizers call it: the
    public `merge_call` fails inside an XLA computation over several GPUs.
    """
    import tensorflow as tf

    merge_call = tf.__internal__.distribute.interim.maybe_merge_call
    return merge_call(function, strategy, *arguments)


def build_learning_rate(optimizer: Any, learning_rate: Any) -> Any:
    """What a Keras 2 optimizer keeps as `_learning_rate`, of a float or a schedule.

    `tf_keras.optimizers.Optimizer._build_learning_rate`, as every subclass of Keras 2 calls it.
    """
    return optimizer._build_learning_rate(learning_rate)


def tf_keras_variable_index(optimizer: Any, variable: Variable) -> int | None:
    """A variable's place among those that a Keras 2 optimizer was built with, or `None`.

    `tf_keras.optimizers.Optimizer._index_dict` and `._var_key`.
    """
    return optimizer._index_dict.get(optimizer._var_key(variable))


def overwrite_with_average(optimizer: Any, variables: Sequence[Variable]) -> None:
    """Puts a Keras 2 optimizer's exponential moving averages into their variables.

    `Optimizer._overwrite_model_variables_with_average_value`: the public
    `finalize_variable_values` does so only for subclasses that don't override it.
    """
    optimizer._overwrite_model_variables_with_average_value(variables)


def mark_built(optimizer: Any) -> None:
    """Tells a Keras 2 optimizer that its slots are made.

    `tf_keras.optimizers.Optimizer._built`, as every subclass of Keras 2 sets it.
    """
    optimizer._built = True


def is_built(optimizer: Any) -> bool:
    """Whether a Keras 2 optimizer's slots are made: `Optimizer._built`, which it sets late."""
    return getattr(optimizer, "_built", False)


def callable_list(variables: list[Variable]) -> Any:
    """A list that returns itself when called, as `tf_keras` has its optimizers' variables.

    `tf_keras.src.optimizers.optimizer.CallableList`.
    """
    from tf_keras.src.optimizers import optimizer

    return optimizer.CallableList(variables)


def add_to_variables(optimizer: Any, variable: Variable) -> None:
    """Adds a variable to those that a Keras 2 optimizer saves.

    `tf_keras.optimizers.Optimizer._variables`: its public `add_variable` places none beside
    another.
    """
    optimizer._variables.append(variable)


def uses_dtensor(optimizer: Any) -> bool:
    """Whether a Keras 2 optimizer's variables are laid out over a DTensor mesh.

    `tf_keras.optimizers.Optimizer._mesh` and `._run_with_dtensor`.
    """
    return bool(optimizer._mesh or optimizer._run_with_dtensor)


def untracked(trackable: Any, value: Any) -> Any:
    """A value that `trackable` holds without saving it in checkpoints.

    `AutoTrackable._no_dependency` of TensorFlow.
    """
    return trackable._no_dependency(value)


def shared_name(variable: Any) -> str:
    """A `tf.Variable`'s name without `:0`, the same on all replicas.

    `Variable._shared_name`, as Keras 2 names slots.
    """
    return variable._shared_name


# --- Clip ---------------------------------------------------------------------------------------


def has_an_apply_of_its_own(optimizer: Any) -> bool:
    """Whether a Keras 3 optimizer replaces Keras's way from gradients to steps.

    `Optimizer.apply` and `._backend_apply_gradients`, as the backend defines them.
    """
    import keras

    base = keras.optimizers.Optimizer
    names = ("apply", "_backend_apply_gradients")
    return any(getattr(type(optimizer), name) is not getattr(base, name) for name in names)


def take_step(
    optimizer: Any, variables: Sequence[Variable], gradients: Sequence[Any], learning_rate: Any
) -> None:
    """What a Keras 3 optimizer's `apply` does once the gradient is whole.

    `Optimizer._clip_gradients`, `._apply_weight_decay`, `._backend_update_step` and `._iterations`,
    which counts every call, also those that only accumulate.
    """
    learning_rate = _at_its_step(optimizer, learning_rate)
    gradients = optimizer._clip_gradients(list(gradients))
    optimizer._apply_weight_decay(variables)
    optimizer._backend_update_step(gradients, variables, learning_rate)
    optimizer._iterations.assign_add(1)


def _at_its_step(optimizer: Any, learning_rate: Any) -> Any:
    """The learning rate after the calls that only accumulate, which a schedule counts."""
    import keras

    earlier = (optimizer.gradient_accumulation_steps or 1) - 1
    if earlier:
        optimizer._iterations.assign_add(earlier)
    scheduled = keras.optimizers.schedules.LearningRateSchedule
    return (
        optimizer.learning_rate
        if isinstance(optimizer._learning_rate, scheduled)
        else learning_rate
    )


def take_summed_step(
    optimizer: Any, variables: Sequence[Variable], gradients: Sequence[Any], learning_rate: Any
) -> None:
    """`take_step` on a replica, of gradients that are summed over the replicas already.

    `Optimizer._distributed_tf_update_step`, which its `_backend_update_step` calls after the sum.
    An optimizer with a `_backend_update_step` of its own gets its part of the gradient, to sum it.
    """
    import keras
    import tensorflow as tf

    base = keras.optimizers.Optimizer
    strategy = tf.distribute.get_strategy()
    if type(optimizer)._backend_update_step is not base._backend_update_step:
        count = strategy.num_replicas_in_sync
        take_step(optimizer, variables, [g / count for g in gradients], learning_rate)
        return
    learning_rate = _at_its_step(optimizer, learning_rate)
    gradients = optimizer._clip_gradients(list(gradients))
    optimizer._apply_weight_decay(variables)
    held = [v.value if isinstance(v, keras.Variable) else v for v in variables]
    pairs = list(zip(gradients, held, strict=True))
    maybe_merge_call(optimizer._distributed_tf_update_step, strategy, pairs, learning_rate)
    optimizer._iterations.assign_add(1)


def fingerprint(optimizer: Any) -> tuple[tuple[str, Any], ...]:
    """The plain hyperparameters of an optimizer, which a compiled step of it holds."""
    plain = (bool, int, float, str, type(None))
    return tuple((k, v) for k, v in vars(optimizer).items() if isinstance(v, plain))


# --- noise ------------------------------------------------------------------------------------

# Datasets whose order moves on with each pass, and the input that names the state they share.
_SHUFFLES = {"ShuffleDatasetV3": 4, "ShuffleAndRepeatDatasetV2": 5}
_CACHES = ("CacheDataset", "CacheDatasetV2")


def copy_dataset(dataset: tf.data.Dataset, seed: int) -> tf.data.Dataset:
    """Returns a dataset that starts where `dataset` started when it was made.

    Stands for the serialized graph of a dataset, whose operators and inputs are documented nowhere.
    Shuffles share the state of their seeds through a handle, and caches their contents: the copy
    gets fresh handles and reads past the caches.

    Nothing public reads a shuffled dataset and leaves its next passes as they were. `save`,
    `snapshot`, `with_options`, `tf.data.experimental.from_variant` and serializing without a change
    share the shuffles' state; restoring a checkpoint of an iterator puts that back to after the
    iterator was made, not before. `tf.data.experimental.service` does keep it, but a shuffle
    without a seed then gives other batches each time, a cache in a file that is not read to its end
    fails the training that follows, and the process listens on two ports.

    Args:
        dataset: A `tf.data.Dataset`.
        seed: Seed of shuffles that have none, a whole number.

    Raises:
        tf.errors.OpError: If TensorFlow cannot serialize the dataset.
    """
    import tensorflow as tf

    graph = tf.compat.v1.GraphDef.FromString(
        tf.raw_ops.DatasetToGraphV2(
            input_dataset=tf.data.experimental.to_variant(dataset), external_state_policy=1
        ).numpy()
    )
    nodes = {node.name: node for node in graph.node}

    def own(node: Any, position: int, suffix: str) -> Any:
        constant = graph.node.add()
        constant.CopyFrom(nodes[node.input[position]])
        constant.name = f"{node.name}/{suffix}"
        node.input[position] = constant.name
        return constant.attr["value"].tensor

    for node in list(graph.node):
        for position, name in enumerate(node.input):
            # Names after a caret are of nodes that must run before, such as a table's loading.
            while name in nodes and nodes[name].op in _CACHES:
                name = nodes[name].input[0]
            node.input[position] = name
        if node.op in _SHUFFLES:
            handle = own(node, _SHUFFLES[node.op], "handle").resource_handle_val[0]
            handle.name = f"{node.name}/{os.urandom(8).hex()}"
            seeds = [tf.make_ndarray(nodes[node.input[i]].attr["value"].tensor) for i in (2, 3)]
            if not any(seeds):
                own(node, 2, "seed").CopyFrom(tf.make_tensor_proto(seed + 1, tf.int64))
    variant = tf.raw_ops.DatasetFromGraph(graph_def=graph.SerializeToString())
    return tf.data.experimental.from_variant(variant, dataset.element_spec)


def flat_layers(model: Any) -> list[Any]:
    """All layers of a Keras 3 or Keras 2 model, those inside others too.

    `Layer._flatten_layers`: `layers` holds the outer ones.
    """
    return list(model._flatten_layers())


def seed_states(model: Any) -> list[Variable]:
    """Returns the states of a Keras 3 model's seed generators, as variables.

    Stands for the name that Keras gives to them: a model lists its variables, but not which of them
    belong to a `keras.random.SeedGenerator`.
    """
    return [v for v in model.variables if v.name == "seed_generator_state"]


def seed_layers(model: Any, draw: Callable[[], Array]) -> dict[Any, Any]:
    """Lets a Keras 2 model's random layers draw stateless numbers, from now on.

    Stands for the `_random_generator` of a `tf_keras` layer. Its public arguments and
    `tf.random.set_seed` choose where a sequence begins, but not which numbers a given step draws.

    Args:
        model: A `tf_keras.Model`.
        draw: A function without arguments that returns a seed, an int32 tensor of shape `(2,)`.

    Returns:
        A dict from the layers to the random generators that they had.
    """
    before = {m: m._random_generator for m in model.submodules if hasattr(m, "_random_generator")}
    for layer, generator in before.items():
        stateless = type(generator)(seed=0, rng_type=generator.RNG_STATELESS)
        stateless.make_seed_for_stateless_op = draw
        # Past Keras, which would track it.
        object.__setattr__(layer, "_random_generator", stateless)
    return before


@contextlib.contextmanager
def seeded_layers(model: Any, seed: Array) -> Iterator[None]:
    """Lets a Keras 2 model's random layers draw stateless numbers from `seed`, inside the context.

    Stands for the same as `seed_layers`, and puts it back.

    Args:
        model: A `tf_keras.Model`.
        seed: An int32 tensor of shape `(2,)`.
    """
    import tensorflow as tf

    draws = itertools.count()

    def draw() -> Array:
        return tf.random.fold_in(seed, next(draws))

    before = seed_layers(model, draw)
    try:
        yield
    finally:
        for layer, generator in before.items():
            object.__setattr__(layer, "_random_generator", generator)


# --- garden ------------------------------------------------------------------------------------


def create_slots(optimizer: Any, variables: Sequence[Any]) -> None:
    """Makes the variables that a Keras 2 optimizer keeps, before its first step.

    A legacy optimizer has `_create_all_weights` for it, and nothing public; it would make them in
    its first step, which is then traced a second time. All others have `build`.

    Args:
        optimizer: A `tf_keras.optimizers.Optimizer` or `tf_keras.optimizers.legacy.Optimizer`.
        variables: What it trains.
    """
    import tf_keras

    if isinstance(optimizer, tf_keras.optimizers.legacy.Optimizer):
        optimizer._create_all_weights(variables)
    else:
        optimizer.build(variables)


def set_latest_checkpoint(manager: tf.train.CheckpointManager, path: str | None) -> None:
    """Has a checkpoint manager restore another checkpoint than its own directory's newest.

    `tf.train.CheckpointManager.latest_checkpoint` can only be read. A worker that is not the chief
    saves in a directory of its own, where the Model Garden's manager would look for checkpoints.

    Args:
        manager: The manager.
        path: The checkpoint's prefix, or `None` for none.
    """
    manager._latest_checkpoint = path


def set_checkpoint_exporter(trainer: Any, exporter: Any) -> None:
    """Has a trainer of the Model Garden keep its best checkpoint.

    The Model Garden's takes the exporter where it is made, and making an exporter reads and writes
    the model directory: nothing could be wrong with the trainer any more by then.

    Args:
        trainer: The trainer.
        exporter: What keeps the best checkpoint, or `None`.
    """
    trainer._checkpoint_exporter = exporter


def add_fields(config: Any, fields: Mapping[str, tuple[Any, Callable[[], Any]]]) -> None:
    """Adds fields to a class of the Model Garden's configs, its subclasses, and instances of them.

    `Config._override` and the generated methods of a dataclass: a field of a config can be
    overridden by its name, and the Model Garden's own experiments name their configs' classes, so
    that a subclass would change none of them.

    Instances made before get the fields where they are first read. A field that is there stays.

    Args:
        config: A subclass of `base_config.Config`.
        fields: From the name of a field to its type and a function that makes its default.
    """
    new = {name: field for name, field in fields.items() if name not in _dataclass_fields(config)}
    for name, (kind, default) in new.items():
        config.__annotations__[name] = kind
        setattr(config, name, dataclasses.field(default_factory=default))
    if new:
        _make_dataclass_again(config)
        _complete_older_instances(config, {name: default for name, (_, default) in new.items()})


def _dataclass_fields(config: Any) -> dict[str, Any]:
    # Those of `dataclasses.fields`, and the arguments that only `__init__` takes.
    return config.__dataclass_fields__


def _make_dataclass_again(config: Any) -> None:
    """Generates a dataclass's methods anew, and its subclasses', as their fields have changed."""
    chosen = vars(config).get("__dataclass_params__")
    if chosen is not None:
        for name, field in _dataclass_fields(config).items():
            if name in inspect.get_annotations(config):
                setattr(config, name, field)
        for name in ("__init__", "__repr__", "__eq__"):
            method = vars(config).get(name)
            if inspect.isfunction(method) and _is_generated(method):
                delattr(config, name)
        arguments = ("init", "repr", "eq", "unsafe_hash", "frozen")
        dataclasses.dataclass(**{a: getattr(chosen, a) for a in arguments})(config)
    for subclass in config.__subclasses__():
        _make_dataclass_again(subclass)


def _is_generated(method: Any) -> bool:
    return inspect.unwrap(method).__code__.co_filename == "<string>"


def _complete_older_instances(config: Any, defaults: Mapping[str, Callable[[], Any]]) -> None:
    def complete(instance: Any) -> None:
        for name in defaults.keys() - vars(instance).keys():
            vars(instance)[name] = defaults[name]()

    def completing(method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def completed(self: Any, *args: Any, **kwargs: Any) -> Any:
            complete(self)
            return method(self, *args, **kwargs)

        return completed

    for name in ("_override", "as_dict", "get", "__contains__"):
        setattr(config, name, completing(getattr(config, name)))
    missing = config.__getattr__

    def __getattr__(self: Any, name: str) -> Any:
        if name not in defaults:
            return missing(self, name)
        complete(self)
        return vars(self)[name]

    config.__getattr__ = __getattr__
