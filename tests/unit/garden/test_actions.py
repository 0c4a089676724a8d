import json

import numpy as np
import pytest
import tensorflow as tf

from keras_acclip.garden import actions


def test_noise_refuses_several_workers():
    class Trainer:
        strategy = object.__new__(tf.distribute.MultiWorkerMirroredStrategy)

    with pytest.raises(NotImplementedError, match="several workers follow it"):
        actions.NoiseAction(Trainer(), 5, "nowhere")


@pytest.mark.parametrize("folder", [None, "ram://metrics"], ids=["a disk", "another file system"])
def test_metrics_are_kept(folder, tmp_path):
    step = tf.Variable(3, dtype=tf.int64)
    path = f"{folder or tmp_path}/metrics.json"
    actions.MetricsAction(path, "training", step)({"loss": tf.constant(0.5)})
    step.assign(4)
    action = actions.MetricsAction(path, "validation", step)
    action({"accuracy": np.float32(0.25), "image": tf.zeros((2, 2)), "inner": {"f1": 90.0}})
    with tf.io.gfile.GFile(path) as file:
        content = json.load(file)
    assert content == {
        "training": {"step": 3, "loss": 0.5},
        "validation": {"step": 4, "accuracy": 0.25, "inner": {"f1": 90.0}},
    }
