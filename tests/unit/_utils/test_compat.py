"""Each private name that `compat` stands for is there, and does what it is used for."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from keras_acclip._utils import compat
from tests import paths

# --- optimizers -------------------------------------------------------------------------------


def test_keras_3_optimizers():
    first, second, unknown = (keras.Variable(np.zeros(2), name=n) for n in ("a", "b", "c"))
    adam = keras.optimizers.Adam(0.25, use_ema=True)
    adam.exclude_from_weight_decay(var_names=["b"])
    adam.build([first, second])
    assert [compat.variable_index(adam, v) for v in (first, second)] == [0, 1]
    with np.testing.assert_raises(KeyError):
        compat.variable_index(adam, unknown)
    assert [compat.decays(adam, v) for v in (first, second)] == [True, False]
    assert compat.trainable_variables(adam) == [first, second]
    assert float(compat.learning_rate(adam)) == 0.25
    assert [average.shape for average in compat.moving_averages(adam)] == [(2,), (2,)]
    adam.apply([tf.ones(2), tf.ones(2)], [first, second])
    assert int(compat.counter(adam)) == 1
    compat.set_learning_rate(keras.optimizers.Optimizer, adam, 0.5)
    assert float(adam.learning_rate) == 0.5
    assert compat.layout(first) is None


def test_a_step_from_outside():
    values, gradients = [np.float32([1.0, 2.0])], [tf.constant([3.0, 4.0])]
    results = []
    for take in (None, compat.take_step):
        variables = [keras.Variable(v, name="v") for v in values]
        adam = keras.optimizers.AdamW(0.1, clipnorm=1.0, weight_decay=0.1)
        adam.build(variables)
        if take is None:
            adam.apply(gradients, variables)
        else:
            take(adam, variables, gradients, adam.learning_rate)
        assert int(adam.iterations) == 1
        results.append(np.asarray(variables[0]))
    np.testing.assert_array_equal(*results)
    assert not compat.has_an_apply_of_its_own(adam)
    assert compat.has_an_apply_of_its_own(keras.optimizers.LossScaleOptimizer(adam))
    before = compat.fingerprint(adam)
    adam.beta_1 = 0.5
    assert compat.fingerprint(adam) != before


def test_a_step_from_outside_on_replicas():
    """It takes the sum as it is: one replica's gradient moves by the rate."""
    strategy = paths.two_replicas()
    for maker in (keras.optimizers.SGD, keras.optimizers.Nadam):
        with strategy.scope():
            v, optimizer = keras.Variable(np.float32([1.0])), maker(0.1)
            optimizer.build([v])
        alone, other = keras.Variable(np.float32([1.0])), maker(0.1)
        other.build([alone])

        @tf.function
        def replica():
            g = [tf.constant([3.0])]
            compat.take_summed_step(optimizer, [v], g, optimizer.learning_rate)  # noqa: B023

        strategy.run(replica)
        other.apply([tf.constant([3.0])], [alone])
        np.testing.assert_allclose(v.value.numpy(), alone, rtol=1e-6)


def test_keras_2_optimizers():
    class Plain(tf_keras.optimizers.Optimizer):
        def __init__(self):
            super().__init__(name="plain")
            self._learning_rate = compat.build_learning_rate(self, 0.5)

        def update_step(self, gradient, variable):
            variable.assign_sub(gradient)

    optimizer = Plain()
    known, unknown = tf.Variable([1.0]), tf.Variable([1.0])
    optimizer.build([known])
    assert compat.tf_keras_variable_index(optimizer, known) == 0
    assert compat.tf_keras_variable_index(optimizer, unknown) is None
    assert float(compat.learning_rate(optimizer)) == 0.5
    assert compat.decays(optimizer, known)
    assert not compat.is_built(optimizer)
    compat.mark_built(optimizer)
    assert compat.is_built(optimizer)
    assert compat.callable_list([known])() == [known]
    with np.testing.assert_raises_regex(ValueError, "before the optimizer is built"):
        optimizer.exclude_from_weight_decay(var_names=["x"])
    compat.add_to_variables(optimizer, unknown)
    assert any(v is unknown for v in optimizer.variables)
    assert not compat.uses_dtensor(optimizer)
    optimizer.held = compat.untracked(optimizer, {})
    optimizer.held[0] = 1
    assert type(optimizer.held) is dict
    assert compat.shared_name(tf.Variable([1.0], name="kernel")) == "kernel"


def test_keras_2_averages_take_their_variables_place():
    optimizer = tf_keras.optimizers.SGD(1.0, use_ema=True, ema_momentum=0.5)
    variable = tf.Variable([1.0])
    optimizer.apply_gradients([(tf.constant([1.0]), variable)])
    averages = [float(v[0]) for v in optimizer.variables if "average" in v.name]
    variable.assign([5.0])
    compat.overwrite_with_average(optimizer, [variable])
    assert [float(variable[0])] == averages


def test_merge_call():
    strategy = paths.two_replicas()
    with strategy.scope():
        v = tf.Variable([0.0], aggregation=tf.VariableAggregation.SUM)

    def replica():
        def merged(strategy, value):
            strategy.extended.update(v, lambda v, x: v.assign_add(x), args=(value,))

        value = tf.constant([2.0])
        value = tf.distribute.get_replica_context().all_reduce("sum", value)
        compat.maybe_merge_call(merged, strategy, value)

    strategy.run(replica)
    np.testing.assert_array_equal(v.numpy(), [4.0])


# --- noise ------------------------------------------------------------------------------------


def shuffled(seed=1):
    return tf.data.Dataset.range(20).shuffle(20, seed)


def looked_up():
    numbers = tf.range(20, dtype=tf.int64)
    table = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(numbers, 2 * numbers), -1)
    return shuffled().map(table.lookup)


def generated():
    signature = tf.TensorSpec((), tf.int64)
    dataset = tf.data.Dataset.from_generator(lambda: iter(range(20)), output_signature=signature)
    return dataset.shuffle(20, seed=1)


KINDS_OF_DATASETS = {
    "seeded": lambda folder: shuffled(),
    "with the global seed": lambda folder: shuffled(None),
    "repeated": lambda folder: shuffled().repeat(2),
    "in memory": lambda folder: shuffled().cache().shuffle(20, seed=2),
    "in a file": lambda folder: shuffled().cache(str(folder / "cache")).shuffle(20, seed=2),
    "with a table": lambda folder: looked_up(),
    "from a generator": lambda folder: generated(),
    "with Python": lambda folder: shuffled().map(
        lambda n: tf.numpy_function(lambda a: 3 * a, [n], tf.int64)
    ),
}


@pytest.mark.parametrize("name", KINDS_OF_DATASETS)
def test_datasets_are_copied(name, tmp_path):
    def epochs(measured):
        tf.random.set_seed(3)
        (tmp_path / str(measured)).mkdir()
        dataset = KINDS_OF_DATASETS[name](tmp_path / str(measured))
        read = []
        for _ in range(3):
            if measured:
                copy = compat.copy_dataset(dataset, seed=5).as_numpy_iterator()
                # Not to its end, as a cache in a file would then be broken.
                copies.append([int(n) for n in itertools.islice(copy, 7)])
            read.append([int(n) for n in dataset.as_numpy_iterator()])
        return read

    copies = []
    assert epochs(False) == epochs(True)
    assert copies[0] == copies[1] == copies[2] != sorted(copies[0])


def test_a_copy_s_shuffle_without_a_seed_gets_one():
    tf.random.set_seed(None)
    dataset = tf.data.Dataset.range(50).shuffle(50)
    same, again, other = (
        list(compat.copy_dataset(dataset, s).as_numpy_iterator()) for s in (1, 1, 2)
    )
    assert same == again != other


def test_keras_3_seed_generators():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dropout(0.5, seed=2)])
    (state,) = compat.seed_states(model)
    np.testing.assert_array_equal(state, [2, 0])


def test_keras_2_random_layers():
    layers = [tf_keras.layers.Dropout(0.5, seed=1), tf_keras.layers.GaussianNoise(1.0)]
    model = tf_keras.Sequential([tf_keras.Input((50,)), *layers])
    before = [layer._random_generator for layer in layers]
    x = tf.ones((4, 50))

    def drawn(seed):
        with compat.seeded_layers(model, tf.constant([seed, 0])):
            return model(x, training=True).numpy()

    first, again, other = drawn(1), drawn(1), drawn(2)
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    assert [layer._random_generator for layer in layers] == before
    assert before[0]._seed == 1
    held = compat.seed_layers(model, lambda: tf.constant([7, 8]))
    assert held == dict(zip(layers, before, strict=True))
    np.testing.assert_array_equal(model(x, training=True), model(x, training=True))


# --- garden ------------------------------------------------------------------------------------


def test_slots_are_made_before_the_first_step():
    trained = tf.Variable([1.0, 2.0])
    optimizer, legacy = tf_keras.optimizers.Adam(), tf_keras.optimizers.legacy.Adam()
    for slots in (lambda: optimizer.variables, legacy.variables):
        assert not [v for v in slots() if v.shape == trained.shape]
    compat.create_slots(optimizer, [trained])
    compat.create_slots(legacy, [trained])
    for slots in (lambda: optimizer.variables, legacy.variables):
        assert len([v for v in slots() if v.shape == trained.shape]) == 2


def test_a_manager_restores_the_checkpoint_that_it_is_told(tmp_path):
    variable = tf.Variable(1.0)
    checkpoint = tf.train.Checkpoint(variable=variable)
    path = tf.train.CheckpointManager(checkpoint, str(tmp_path / "shared"), 1).save()
    variable.assign(2.0)
    manager = tf.train.CheckpointManager(checkpoint, str(tmp_path / "own"), 1)
    assert manager.latest_checkpoint is None
    compat.set_latest_checkpoint(manager, path)
    assert manager.latest_checkpoint == path
    assert manager.restore_or_initialize() == path
    assert variable.numpy() == 1.0
