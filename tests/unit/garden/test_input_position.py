import numpy as np
import tensorflow as tf

from keras_acclip.garden.input_position import InputPosition


def test_data_whose_position_cannot_be_saved_go_on_in_another_order():
    def build(offset):
        data = tf.data.Dataset.range(100).shuffle(100, seed=offset)
        return data.map(lambda x: x + tf.random.uniform((), 0, 1, tf.int64))

    position = InputPosition({})
    iterator = position.open(build, 0)
    first = [int(next(iterator)) for _ in range(10)]
    later = InputPosition({})
    later.deserialize(position.serialize())
    iterator = later.open(build, 10)
    np.testing.assert_array_equal(
        [int(next(iterator)) for _ in range(10)], list(build(10).take(10).as_numpy_iterator())
    )
    assert first == list(build(0).take(10).as_numpy_iterator())


def test_the_position_is_saved_with_the_iterator():
    def build(offset):
        assert offset == 0
        return tf.data.Dataset.range(100).shuffle(10, seed=0).repeat(2).batch(2).prefetch(4)

    whole = [batch.numpy().tolist() for batch in build(0)]
    position = InputPosition({"seed": 0})
    iterator = position.open(build, 0)
    for expected in whole[:7]:
        assert next(iterator).numpy().tolist() == expected
    saved = position.serialize()
    for later in (InputPosition({"seed": 0}), InputPosition({"seed": 0})):
        later.deserialize(saved)
        assert later.serialize() == saved
        assert [b.numpy().tolist() for b in later.open(build, 7)] == whole[7:]
    # A restored checkpoint leaves an open iterator where it is.
    next(iterator)
    position.deserialize(saved)
    assert next(iterator).numpy().tolist() == whole[8]


def test_other_data_start_from_their_beginning():
    def build(offset):
        assert offset == 0
        return tf.data.Dataset.range(10)

    position = InputPosition({"seq_length": 128})
    next(position.open(build, 0))
    other = InputPosition({"seq_length": 512})
    other.deserialize(position.serialize())
    iterator = other.open(build, 1)
    assert next(iterator).numpy() == 0
    again = InputPosition({"seq_length": 512})
    again.deserialize(other.serialize())
    assert next(again.open(build, 2)).numpy() == 1
