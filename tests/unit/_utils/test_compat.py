"""Each private name that `compat` stands for is there, and does what it is used for."""

import keras
import numpy as np
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


# --- noise ------------------------------------------------------------------------------------


def test_a_copy_of_a_dataset_leaves_its_order_alone():
    def make():
        return tf.data.Dataset.range(20).cache().shuffle(20, seed=3).batch(4)

    def read(dataset):
        return [batch.numpy().tolist() for batch in dataset]

    untouched, copied = make(), make()
    copy = compat.copy_dataset(copied, seed=0)
    assert read(copy) == read(compat.copy_dataset(make(), seed=0))
    for _ in range(2):
        assert read(copied) == read(untouched)
    assert sorted(x for batch in read(copy) for x in batch) == list(range(20))


def test_states_of_seed_generators():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dropout(0.5), keras.layers.Dense(1)])
    (state,) = compat.seed_states(model)
    assert state.shape == (2,)


def test_seeds_of_keras_2_layers():
    layer = tf_keras.layers.Dropout(0.5)
    model = tf_keras.Sequential([tf_keras.Input((50,)), layer])
    x = tf.ones((1, 50))

    def outcome(seed):
        with compat.seeded_layers(model, tf.constant([seed, 0])):
            return model(x, training=True).numpy().tolist()

    own = layer._random_generator
    assert outcome(1) == outcome(1) != outcome(2)
    assert layer._random_generator is own
    before = compat.seed_layers(model, lambda: tf.constant([7, 7]))
    assert before[layer] is own
    first, second = (model(x, training=True).numpy().tolist() for _ in range(2))
    assert first == second
