"""Training by `train.run` on two replicas and on two workers against one device.

The order of the data: replicas of one machine share a pipeline, and a step's global batch is the
one of one device, shuffled or not. Workers have the records (or, of at least as many files as
workers, the files) in turns and shuffle their own: a step's global batch is that of one device only
in the order of a single file, which the runs here have for that reason.

The masked-LM loss is a mean over the predictions of each replica, and its gradient the mean over
replicas, so that training is the same as on one device only where all replicas have equally many;
the records here do.
"""

import functools
import json
import shutil

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from keras_acclip.garden import runner
from keras_acclip.garden.precision import metrics_in_full_precision
from keras_acclip.noise import NoiseSample
from tests import paths, reference
from tests.integration.garden import workers
from tests.integration.garden.runs import overrides, parse, write_records
from tests.integration.test_distribution import run_processes
from tests.tiers import some

# The fixtures run once, in one process.
pytestmark = pytest.mark.xdist_group("garden distribution")
SLOW = pytest.mark.slow


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_records(folder, files=1, examples=60)
    return f"{folder}/0.tfrecord"


@pytest.fixture(scope="module")
def on_one_device(data, tmp_path_factory):
    """A function from case to its weights and model directory after training on one device."""

    @functools.cache
    def trained(case):
        folder = tmp_path_factory.mktemp("one")
        return run(case, data, folder), folder

    return trained


def run(case, data, folder):
    return workers.run(workers.parameters(case, data), folder).get_weights()


def assert_same(weights, others):
    # Each of 20 steps rounds anew, and XLA, which compiles the one device's, in other places.
    assert reference.relative_error(weights, others) <= 5e-5


def assert_same_metrics(folder, other):
    ours, theirs = (json.loads((f / "metrics.json").read_text()) for f in (folder, other))
    assert set(ours) == set(theirs)
    for kind, metrics in ours.items():
        assert metrics == pytest.approx(theirs[kind], rel=1e-5)


@pytest.mark.parametrize(
    "case",
    some(workers.CASES, ("huge gradient",)),
)
def test_two_replicas_equal_one_device(case, data, on_one_device, tmp_path, monkeypatch):
    weights, folder = on_one_device(case)
    strategy = paths.two_replicas()
    monkeypatch.setattr(runner.checks, "strategy", lambda _: strategy)
    assert_same(run(case, data, tmp_path), weights)
    assert_same_metrics(tmp_path, folder)


@SLOW
def test_two_workers_follow_the_noise_of_one_device(data, tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "NoiseAction", runner.FollowAction)
    params = workers.parameters("acclip", data)
    runner.run(params, "train", str(tmp_path / "one"), noise_interval=10)
    of_two_workers("acclip", data, tmp_path / "two")
    for step in (10, 20):
        one, two = (
            NoiseSample.load(tmp_path / folder / f"noise/noise-{step:08d}.npz")
            for folder in ("one", "two")
        )
        assert len(one) == len(two) == step and one.step == two.step == step
        np.testing.assert_allclose(two.norms, one.norms, rtol=1e-3)
        np.testing.assert_allclose(two.gradient_norms, one.gradient_norms, rtol=1e-3)
        assert set(two.batch_sizes) == {4}


def of_two_workers(case, data, folder, steps=20):
    """The weights that each of two workers ends with; it goes on where `folder` has a checkpoint.

    Each case has processes of its own, as a second strategy in a process would reuse the first
    one's collective keys.
    """
    run_processes(
        "tests.integration.garden.workers", lambda _: [data, case, str(steps), str(folder)]
    )
    return [list(np.load(folder / f"weights-{worker}.npz").values()) for worker in range(2)]


@SLOW
@pytest.mark.parametrize("case", workers.CASES)
def test_two_workers_equal_one_device(case, data, on_one_device, tmp_path):
    weights, folder = on_one_device(case)
    for of_worker in of_two_workers(case, data, tmp_path):
        assert_same(of_worker, weights)
    assert_same_metrics(tmp_path, folder)
    # The first worker alone writes.
    assert len(list((tmp_path / "train").glob("events*"))) == 1


@SLOW
def test_workers_go_on_from_the_shared_checkpoint(data, tmp_path):
    """As one device does from the workers' checkpoint, which has no position in the data."""
    of_two_workers("acclip", data, tmp_path / "workers", steps=10)
    shutil.copytree(tmp_path / "workers", tmp_path / "alone")
    weights = run("acclip", data, tmp_path / "alone")
    for of_worker in of_two_workers("acclip", data, tmp_path / "workers"):
        assert_same(of_worker, weights)


def batches(params, count, **context):
    task = runner.task_factory.get_task(params.task)
    context = tf.distribute.InputContext(**context)
    dataset = task.build_inputs(params.task.train_data, context).take(count)
    return [batch["input_word_ids"].numpy() for batch in dataset]


@pytest.mark.parametrize("shuffled", [False, True])
def test_the_order_of_the_data(shuffled, data):
    """Of replicas, and of workers."""
    buffer = 20 if shuffled else 1
    changes = overrides({"input_path": data, "shuffle_buffer_size": buffer, "seed": 0})
    params = parse(changes)
    alone = batches(params, 15)
    halves = batches(params, 30, num_replicas_in_sync=2)
    for i, batch in enumerate(alone):
        np.testing.assert_array_equal(np.concatenate(halves[2 * i : 2 * i + 2]), batch)
    pairs = zip(
        *(
            batches(params, 15, num_input_pipelines=2, input_pipeline_id=i, num_replicas_in_sync=2)
            for i in range(2)
        ),
        strict=True,
    )
    same = [
        {tuple(row) for row in np.concatenate(pair)} == {tuple(row) for row in batch}
        for pair, batch in zip(pairs, alone, strict=True)
    ]
    assert not any(same) if shuffled else all(same)


def test_workers_do_not_score_answers(tmp_path):
    strategy = object.__new__(tf.distribute.MultiWorkerMirroredStrategy)
    task = parse({}, "acclip/bert_squad", ("squad",)).task
    with pytest.raises(ValueError, match="--mode=eval on one machine"):
        runner.check_evaluation(task, "train_and_eval", strategy)
    runner.check_evaluation(task, "train", strategy)


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "mixed_float16"])
def test_metrics_of_two_classes_are_taken_under_mixed_precision(dtype):
    """AUC is among them, whose variables Keras 2 would cast as those of layers."""
    policy = tf_keras.mixed_precision.global_policy()
    tf_keras.mixed_precision.set_global_policy(dtype)
    try:
        with paths.two_replicas().scope() as strategy, metrics_in_full_precision():
            auc = tf_keras.metrics.AUC(curve="PR")
        assert tf_keras.mixed_precision.global_policy().name == dtype

        @tf.function
        def step():
            strategy.run(lambda: auc.update_state([0, 1], [0.25, 0.75]))

        step()
        assert float(auc.result()) == pytest.approx(1.0, abs=1e-4)
    finally:
        tf_keras.mixed_precision.set_global_policy(policy)
