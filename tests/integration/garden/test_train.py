import errno
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf
import yaml
from official.core import base_trainer
from official.nlp.tasks.masked_lm import MaskedLMTask

from keras_acclip.garden import actions, train
from keras_acclip.noise import NoiseSample
from tests.integration.garden.runs import ENCODER, overrides, parse, write_records, write_text

# The fixtures run once, in one process.
pytestmark = pytest.mark.xdist_group("garden train")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return {"input_path": write_records(tmp_path_factory.mktemp("data"))}


@pytest.fixture(scope="module")
def unbroken(data, tmp_path_factory):
    """Weights after 40 steps."""
    return run(overrides(data), tmp_path_factory.mktemp("unbroken"))


def run(changes, folder, mode="train", experiment="acclip/bert_pretraining", **kwargs):
    params = parse(changes, experiment)
    return train.run(params, mode, str(folder), **kwargs).get_weights()


def command(changes, folder, *flags, mode="train"):
    folder.mkdir(exist_ok=True)
    file = folder.parent / "changes.yaml"
    file.write_text(yaml.safe_dump(changes))
    return [
        *(sys.executable, "-m", "keras_acclip.garden.train"),
        "--experiment=acclip/bert_pretraining",
        *("--config_file=cpu", f"--config_file={file}", f"--mode={mode}", f"--model_dir={folder}"),
        *flags,
    ]


def assert_equal(weights, others):
    assert len(weights) == len(others)
    for a, b in zip(weights, others, strict=True):
        np.testing.assert_array_equal(a, b)


def steps(folder):
    names = [path.stem for path in folder.glob("ckpt-*.index")]
    return sorted(int(name.removeprefix("ckpt-")) for name in names)


def start(line, folder):
    log = open(folder.parent / "log.txt", "ab")  # noqa: SIM115
    return subprocess.Popen(line, stdout=log, stderr=log, env=os.environ | {"PYTHONPATH": "."})


def test_killed_and_started_again_it_ends_with_the_same_weights(data, unbroken, tmp_path):
    folder = tmp_path / "model"
    line = command(overrides(data), folder, "--noise_interval=10", "--noise_batches=4")
    process = start(line, folder)
    while process.poll() is None and not (folder / "ckpt-15.index").exists():
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    # Noise was measured before the checkpoint, and has left the training as it was.
    sample = NoiseSample.load(folder / "noise/noise-00000010.npz")
    assert (sample.step, len(sample), sample.nonfinite) == (10, 4, 0)
    assert list(folder.glob("noise/events*"))
    assert_equal(unbroken, run(overrides(data), folder))
    assert max(steps(folder)) == 40


@pytest.mark.slow
def test_killed_at_any_moment_it_ends_with_the_same_weights(data, unbroken, tmp_path):
    folder = tmp_path / "model"
    changes = overrides(data, checkpoint_interval=5)
    line = command(changes, folder)
    rng = random.Random(0)
    patience = 4
    while not steps(folder) or patience < 16:
        process = start(line, folder)
        while process.poll() is None and not (folder / "train").exists():
            time.sleep(0.01)
        try:
            process.wait(rng.uniform(2, patience))
        except subprocess.TimeoutExpired:
            process.kill()
        process.wait()
        # Longer each time, as a slow machine may need it to come to a checkpoint.
        patience *= 2
    assert_equal(unbroken, run(changes, folder))


@pytest.mark.slow
def test_another_seed_gives_other_weights(data, unbroken, tmp_path):
    weights = run(overrides(data), tmp_path, seed=1)
    assert any(not np.array_equal(a, b) for a, b in zip(unbroken, weights, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("stop", [5, 20, 35])
def test_stopped_after_any_loop_it_goes_on_alike(data, unbroken, stop, tmp_path):
    # The driver's default.
    kwargs = {"enable_async_checkpointing": True}
    run(overrides(data, steps=stop), tmp_path, **kwargs)
    assert_equal(unbroken, run(overrides(data), tmp_path, mode="train_and_eval", **kwargs))


@pytest.mark.slow
def test_text_is_masked_on_the_way_and_goes_on(tmp_path):
    text, vocabulary = write_text(tmp_path)
    shape = {"input_path": text, "vocab_file_path": vocabulary, "doc_batch_size": 4}
    for stop in (15, 40):
        experiment = "acclip/bert_pretraining_text"
        run(overrides(shape, steps=stop), tmp_path / "model", experiment=experiment)
        metrics = json.loads((tmp_path / "model/metrics.json").read_text())["training"]
        assert metrics["step"] == stop and np.isfinite(metrics["training_loss"])


def test_data_whose_position_cannot_be_saved_go_on_in_another_order():
    def build(offset):
        data = tf.data.Dataset.range(100).shuffle(100, seed=offset)
        return data.map(lambda x: x + tf.random.uniform((), 0, 1, tf.int64))

    position = train._InputPosition({})
    iterator = position.open(build, 0)
    first = [int(next(iterator)) for _ in range(10)]
    later = train._InputPosition({})
    later.deserialize(position.serialize())
    iterator = later.open(build, 10)
    np.testing.assert_array_equal(
        [int(next(iterator)) for _ in range(10)], list(build(10).take(10).as_numpy_iterator())
    )
    assert first == list(build(0).take(10).as_numpy_iterator())


def test_the_position_is_saved_with_the_iterator(data):
    def build(offset):
        assert offset == 0
        return tf.data.Dataset.range(100).shuffle(10, seed=0).repeat(2).batch(2).prefetch(4)

    whole = [batch.numpy().tolist() for batch in build(0)]
    position = train._InputPosition({"seed": 0})
    iterator = position.open(build, 0)
    for expected in whole[:7]:
        assert next(iterator).numpy().tolist() == expected
    saved = position.serialize()
    for later in (train._InputPosition({"seed": 0}), train._InputPosition({"seed": 0})):
        later.deserialize(saved)
        assert later.serialize() == saved
        assert [b.numpy().tolist() for b in later.open(build, 7)] == whole[7:]
    # A restored checkpoint leaves an open iterator where it is.
    next(iterator)
    position.deserialize(saved)
    assert next(iterator).numpy().tolist() == whole[8]


def test_other_data_start_from_their_beginning(caplog):
    def build(offset):
        assert offset == 0
        return tf.data.Dataset.range(10)

    position = train._InputPosition({"seq_length": 128})
    next(position.open(build, 0))
    other = train._InputPosition({"seq_length": 512})
    other.deserialize(position.serialize())
    iterator = other.open(build, 1)
    assert next(iterator).numpy() == 0
    again = train._InputPosition({"seq_length": 512})
    again.deserialize(other.serialize())
    assert next(again.open(build, 2)).numpy() == 1


def test_noise_is_that_of_the_gradients_that_the_optimizer_gets(data, tmp_path):
    """Against gradients by hand, dropout being off."""
    changes = overrides(data, steps=5)
    encoder = ENCODER | {"dropout_rate": 0, "attention_dropout_rate": 0}
    changes["task"]["model"] = {
        "encoder": {"bert": encoder},
        "cls_heads": [{"dropout_rate": 0.0}],
    }
    params = parse(changes).replace(task={"train_data": {"seed": 0}})
    trainer = make_trainer(params)
    trainer.train(tf.constant(5))
    action = actions.NoiseAction(trainer, 5, str(tmp_path), num_batches=6)
    action.begin()
    before = [v.numpy() for v in (*trainer.model.variables, *trainer.optimizer.variables)]
    action._last_step = 0
    action({})
    after = [v.numpy() for v in (*trainer.model.variables, *trainer.optimizer.variables)]
    assert_equal(before, after)
    (sample,) = action.samples
    gradients, losses = [], []
    model = trainer.model
    for batch in trainer.task.build_inputs(params.task.train_data).take(6):
        with tf.GradientTape() as tape:
            outputs = model(batch, training=True)
            each = tf.keras.losses.sparse_categorical_crossentropy
            masked = each(batch["masked_lm_ids"], outputs["mlm_logits"], from_logits=True)
            pairs = each(batch["next_sentence_labels"], outputs["next_sentence"], from_logits=True)
            loss = tf.reduce_mean(masked) + tf.reduce_mean(pairs)
        gradient = tape.gradient(loss, model.trainable_variables, unconnected_gradients="zero")
        gradients.append(
            np.concatenate([tf.convert_to_tensor(g).numpy().ravel() for g in gradient])
        )
        losses.append(loss.numpy())
    gradients = np.array(gradients, np.float64)
    noise = np.linalg.norm(gradients - gradients.mean(0), axis=1)
    np.testing.assert_allclose(sample.losses, losses, rtol=1e-4)
    np.testing.assert_allclose(sample.norms, noise, rtol=1e-3)
    assert (sample.step, sample.parameters) == (5, gradients.shape[1])


def make_trainer(params):
    strategy = tf.distribute.OneDeviceStrategy("CPU:0")
    with strategy.scope():
        task = train.task_factory.get_task(params.task)
        trainer = train.train_utils.create_trainer(
            params, task, train=True, evaluate=False, trainer_cls=train.Trainer
        )
    assert isinstance(trainer, base_trainer.Trainer)
    return trainer


@pytest.mark.parametrize("optimizer", ["adamw", "acclip"])
def test_the_step_is_traced_once(optimizer, data, tmp_path, monkeypatch):
    changes = overrides(data, steps=10)
    changes["trainer"]["optimizer_config"]["optimizer"] = {"type": optimizer}
    traces, step = [], MaskedLMTask.train_step

    def counted(self, *args, **kwargs):
        traces.append(optimizer)
        return step(self, *args, **kwargs)

    monkeypatch.setattr(MaskedLMTask, "train_step", counted)
    run(changes, tmp_path)
    assert len(traces) == 1


def test_noise_needs_whole_loops(data, tmp_path):
    with pytest.raises(ValueError, match=r"multiple of trainer.steps_per_loop, 5.*=12"):
        run(overrides(data), tmp_path, noise_interval=12)


def test_noise_refuses_several_workers():
    class Trainer:
        strategy = object.__new__(tf.distribute.MultiWorkerMirroredStrategy)

    with pytest.raises(NotImplementedError, match="not by several workers"):
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


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A directory with checkpoints at steps 10 and 20."""
    folder = tmp_path_factory.mktemp("finished")
    checkpoint = tf.train.Checkpoint(v=tf.Variable(np.random.default_rng(0).random(5000)))
    manager = tf.train.CheckpointManager(checkpoint, str(folder), max_to_keep=5)
    for number in (10, 20):
        manager.save(number)
    return folder


@pytest.mark.parametrize("damage", ["flipped", "truncated", "no data", "no index", "state"])
def test_an_unreadable_checkpoint_is_named(finished, damage, tmp_path):
    folder = pathlib.Path(shutil.copytree(finished, tmp_path / "model"))
    assert train.last_checkpoint(folder) == str(folder / "ckpt-20")
    shards, index = folder / "ckpt-20.data-00000-of-00001", folder / "ckpt-20.index"
    if damage == "flipped":
        content = bytearray(shards.read_bytes())
        content[1000] ^= 1
        shards.write_bytes(content)
    elif damage == "truncated":
        shards.write_bytes(shards.read_bytes()[:-9])
    elif damage == "state":
        (folder / "checkpoint").write_bytes(b"\x00\x01broken")
    else:
        (shards if damage == "no data" else index).unlink()
    content = {path: path.read_bytes() for path in folder.iterdir()}
    good = "ckpt-20" if damage == "state" else "ckpt-10"
    what = "checkpoint, which names" if damage == "state" else "ckpt-20 cannot be read: "
    with pytest.raises(train.CheckpointError, match=what) as error:
        train.run(None, "train", str(folder))
    assert f"last good checkpoint is {folder / good}." in str(error.value)
    assert {path: path.read_bytes() for path in folder.iterdir()} == content
    # The way out that the message shows.
    (folder / "checkpoint").write_text(str(error.value).splitlines()[-1])
    assert train.last_checkpoint(folder) == str(folder / good)


def test_without_any_good_checkpoint_it_says_so(finished, tmp_path):
    folder = pathlib.Path(shutil.copytree(finished, tmp_path / "model"))
    for shard in folder.glob("*.data-*"):
        shard.unlink()
    with pytest.raises(train.CheckpointError, match="no other checkpoint"):
        train.last_checkpoint(folder)


def test_there_may_be_no_checkpoint(tmp_path):
    assert train.last_checkpoint(tmp_path) is None


@pytest.mark.parametrize(
    "error",
    [
        tf.errors.ResourceExhaustedError(None, None, f"x; {os.strerror(errno.ENOSPC)}"),
        OSError(errno.ENOSPC, "x"),
        OSError(errno.EDQUOT, "x"),
    ],
)
def test_a_full_disk_is_told_from_other_errors(error):
    assert train._is_full_disk(error)
    assert not train._is_full_disk(tf.errors.ResourceExhaustedError(None, None, "OOM"))
    assert not train._is_full_disk(OSError(errno.EACCES, "x"))


def test_a_full_disk_leaves_the_last_good_checkpoint(data, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no file system of limited size can be mounted")
    try:
        run(overrides(data, steps=10), disk / "model")
        filler = disk / "filler"
        with pytest.raises(OSError, match="No space"), filler.open("wb") as file:
            while True:
                file.write(bytes(1000))
                file.flush()
        with pytest.raises(train.CheckpointError) as error:
            run(overrides(data, steps=20), disk / "model")
        assert f"last good checkpoint is {disk}/model/ckpt-10." in str(error.value)
        assert not list(disk.glob("model/*_temp"))
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.fixture(scope="module")
def parsed_flags():
    train._define_flags()
    yield train.FLAGS
    train.FLAGS.unparse_flags()


def test_a_bad_argument_ends_with_a_line(parsed_flags, data, tmp_path):
    line = command(overrides(data), tmp_path / "model", "--config_file=bert_tyni")
    parsed_flags(line[2:])
    with pytest.raises(SystemExit, match=r"^error: There is no file 'bert_tyni'"):
        train._main(None)


def test_the_last_line_says_where_things_are(tmp_path):
    line = train._where("there", 10)
    for place in ("there/ckpt-*", "summaries: there/;", "there/metrics.json", "there/noise/*.npz"):
        assert place in line
