from keras_acclip._utils import compat

# --- garden


def test_slots_are_made_before_the_first_step():
    import tensorflow as tf
    import tf_keras

    trained = tf.Variable([1.0, 2.0])
    optimizer, legacy = tf_keras.optimizers.Adam(), tf_keras.optimizers.legacy.Adam()
    for slots in (lambda: optimizer.variables, legacy.variables):
        assert not [v for v in slots() if v.shape == trained.shape]
    compat.create_slots(optimizer, [trained])
    compat.create_slots(legacy, [trained])
    for slots in (lambda: optimizer.variables, legacy.variables):
        assert len([v for v in slots() if v.shape == trained.shape]) == 2


def test_a_manager_restores_the_checkpoint_that_it_is_told(tmp_path):
    import tensorflow as tf

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
