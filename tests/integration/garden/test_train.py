import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import gin
import numpy as np
import pytest
import tensorflow as tf
import yaml
from official.core import base_trainer, task_factory, train_utils

from keras_acclip.garden import CheckpointError, Trainer, actions, flags, last_checkpoint, train
from keras_acclip.garden import run as run_experiment
from keras_acclip.garden.data import Sentences, make_sentence_data
from keras_acclip.garden.errors import ExperimentError
from keras_acclip.garden.experiments import MaskedLMTask
from keras_acclip.noise import NoiseSample
from keras_acclip.text.vocabulary import SPECIAL_TOKENS
from tests.integration.garden.runs import (
    ENCODER,
    LENGTH,
    overrides,
    parse,
    write_records,
    write_text,
)

# The fixtures run once, in one process.
pytestmark = pytest.mark.xdist_group("garden train")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return {"input_path": write_records(tmp_path_factory.mktemp("data"))}


@pytest.fixture(scope="module")
def unbroken(data, tmp_path_factory):
    """The folder of 40 steps by the command, and how often the step was traced."""
    folder = tmp_path_factory.mktemp("unbroken") / "model"
    with traced() as traces:
        train.train(flags.read(command(overrides(data), folder)[2:]))
    return folder, len(traces)


@pytest.fixture(scope="module")
def adamw(data, tmp_path_factory):
    """The folder of 10 steps with AdamW, and how often the step was traced."""
    folder = tmp_path_factory.mktemp("adamw") / "model"
    with traced() as traces:
        run(adamw_changes(data, 10), folder)
    return folder, len(traces)


def adamw_changes(data, steps):
    changes = overrides(data, steps=steps)
    changes["trainer"]["optimizer_config"]["optimizer"] = {"type": "adamw"}
    return changes | {"runtime": {"enable_xla": False}}


@contextlib.contextmanager
def traced():
    """A list that gets an item whenever the training step is traced, as a context."""
    traces, step = [], MaskedLMTask.train_step

    def counted(self, *args, **kwargs):
        traces.append(self)
        return step(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MaskedLMTask, "train_step", counted)
        yield traces


def run(changes, folder, mode="train", experiment="acclip/bert_pretraining", **kwargs):
    run_experiment(parse(changes, experiment), mode, str(folder), **kwargs)


def command(changes, folder, *words, mode="train"):
    folder.mkdir(exist_ok=True)
    file = folder.parent / "changes.yaml"
    file.write_text(yaml.safe_dump(changes))
    return [
        *(sys.executable, "-m", "keras_acclip.garden.train"),
        "--experiment=acclip/bert_pretraining",
        *("--config_file=cpu", f"--config_file={file}", f"--mode={mode}", f"--model_dir={folder}"),
        *words,
    ]


def state(folder):
    """Weights, slots and counts of the newest checkpoint, by name."""
    reader = tf.train.load_checkpoint(last_checkpoint(folder))
    found = {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}
    return {
        name: value
        for name, value in found.items()
        if isinstance(value, np.ndarray | np.generic) and not name.startswith("save_counter")
    }


def assert_equal(folder, other):
    ours, theirs = state(folder), state(other)
    assert set(ours) == set(theirs)
    assert {"global_step", "model", "optimizer"} <= {name.split("/")[0] for name in ours}
    for name, value in ours.items():
        np.testing.assert_array_equal(value, theirs[name], err_msg=name)


def steps(folder):
    names = [path.stem for path in folder.glob("ckpt-*.index")]
    return sorted(int(name.removeprefix("ckpt-")) for name in names)


def start(line, folder):
    log = open(folder.parent / "log.txt", "ab")  # noqa: SIM115
    return subprocess.Popen(line, stdout=log, stderr=log, env=os.environ | {"PYTHONPATH": "."})


def test_the_command_leaves_its_results(unbroken):
    folder, _ = unbroken
    assert json.loads((folder / "metrics.json").read_text())["training"]["step"] == 40
    assert yaml.safe_load((folder / "params.yaml").read_text())["trainer"]["train_steps"] == 40
    assert (folder / "operative_config.train.gin").exists() and list(folder.glob("train/events*"))


@pytest.mark.slow
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
    run(overrides(data), folder)
    assert max(steps(folder)) == 40
    assert_equal(unbroken[0], folder)


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
    run(changes, folder)
    assert_equal(unbroken[0], folder)


@pytest.mark.slow
def test_another_seed_gives_other_weights(data, unbroken, tmp_path):
    run(overrides(data), tmp_path, seed=1)
    ours, theirs = state(unbroken[0]), state(tmp_path)
    assert any(not np.array_equal(value, theirs[name]) for name, value in ours.items())


@pytest.mark.slow
@pytest.mark.parametrize("stop", [5, 20, 35])
def test_stopped_after_any_loop_it_goes_on_alike(data, unbroken, stop, tmp_path):
    # The driver's default.
    kwargs = {"enable_async_checkpointing": True}
    run(overrides(data, steps=stop), tmp_path, **kwargs)
    run(overrides(data), tmp_path, mode="train_and_eval", **kwargs)
    assert_equal(unbroken[0], tmp_path)


@pytest.mark.slow
def test_text_is_masked_on_the_way_and_goes_on(tmp_path):
    text, vocabulary = write_text(tmp_path)
    shape = {"input_path": text, "vocab_file_path": vocabulary, "doc_batch_size": 4}
    for stop in (15, 40):
        experiment = "acclip/bert_pretraining_text"
        run(overrides(shape, steps=stop), tmp_path / "model", experiment=experiment)
        metrics = json.loads((tmp_path / "model/metrics.json").read_text())["training"]
        assert metrics["step"] == stop and np.isfinite(metrics["training_loss"])


@pytest.mark.slow
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
    variables = [*trainer.model.variables, *trainer.optimizer.variables]
    before = [v.numpy() for v in variables]
    action._last_step = 0
    action({})
    for variable, value in zip(variables, before, strict=True):
        np.testing.assert_array_equal(variable, value)
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
        task = task_factory.get_task(params.task)
        trainer = train_utils.create_trainer(
            params, task, train=True, evaluate=False, trainer_cls=Trainer
        )
    assert isinstance(trainer, base_trainer.Trainer)
    return trainer


def test_a_dataset_that_is_given_is_trained_on(data):
    params = parse(overrides(data))
    task = task_factory.get_task(params.task)
    dataset = task.build_inputs(params.task.train_data)
    optimizer = task.create_optimizer(params.trainer.optimizer_config)
    given = Trainer(
        params, task, task.build_model(), optimizer, evaluate=False, train_dataset=dataset
    )
    assert given.train_dataset is dataset


def test_the_step_is_traced_once(unbroken, adamw):
    """With ACClip, and with an optimizer that Keras 2 calls legacy."""
    assert (unbroken[1], adamw[1]) == (1, 1)


def test_a_folder_belongs_to_one_experiment(data, adamw, tmp_path):
    folder = shutil.copytree(adamw[0], tmp_path / "model")
    params = (folder / "params.yaml").read_bytes()
    with pytest.raises(ExperimentError, match=r"optimizer.type 'adamw' → 'acclip'.*--fresh"):
        run(overrides(data, steps=10), folder)
    assert (folder / "params.yaml").read_bytes() == params and steps(folder) == steps(adamw[0])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": {"train_data": {"input_path": "/nowhere"}}}, "/nowhere"),
        ({"runtime": {"num_gpus": 99}}, "num_gpus=99"),
        ({"trainer": {"gradient_accumulation_steps": 3}}, "gradient_accumulation_steps=3"),
        ({"trainer": {"optimizer_config": {"optimizer": {"acclip": {"alpha": 9.0}}}}}, "alpha"),
        ({"task": {"init_checkpoint": "{}/ckpt-10"}}, "which --fresh clears"),
        ({"trainer": {"steps_per_loop": 0}}, "steps_per_loop"),
    ],
)
def test_a_mistake_beside_fresh_removes_nothing(data, unbroken, tmp_path, changes, message):
    folder = shutil.copytree(unbroken[0], tmp_path / "model")
    before = sorted(folder.rglob("*"))
    changes = json.loads(json.dumps(changes).replace("{}", str(folder)))
    with pytest.raises((ExperimentError, ValueError), match=message):
        params = parse(overrides(data, steps=5))
        params = params.replace(**changes)
        run_experiment(params, "train", str(folder), fresh=True)
    assert sorted(folder.rglob("*")) == before


@pytest.mark.slow
def test_a_finished_run_says_so_and_starts_anew_where_asked(data, adamw, tmp_path, capsys):
    folder = shutil.copytree(adamw[0], tmp_path / "model")
    run(adamw_changes(data, 10), folder)
    assert f"{folder} is trained to the end: 10 steps" in capsys.readouterr().out
    run(overrides(data, steps=5), folder, fresh=True)
    assert steps(folder) == [5]
    assert "acclip" in (folder / "params.yaml").read_text()


def test_there_must_be_a_checkpoint_to_evaluate(data, tmp_path):
    with pytest.raises(ExperimentError, match="holds no checkpoint to evaluate"):
        run(overrides(data), tmp_path, mode="eval")
    with pytest.raises(ExperimentError, match="--fresh starts a training anew, and --mode=eval"):
        run(overrides(data), tmp_path, mode="eval", fresh=True)


def test_a_mistake_of_a_run_is_one_line_and_status_2(data, tmp_path, capsys):
    line = command(overrides({"input_path": "/nowhere/a"}), tmp_path / "model")[2:]
    gin.clear_config()  # Of another test in this process.
    with pytest.raises(SystemExit) as status:
        train.train(flags.read(line))
    assert status.value.code == 2
    error = capsys.readouterr().err
    assert "\nerror: task.train_data.input_path: /nowhere/a: no such file\n" in f"\n{error}"
    gin.clear_config()
    with pytest.raises(ExperimentError, match="no such file"):
        train.train(flags.read([*line, "--debug"]))


@pytest.mark.slow
@pytest.mark.parametrize("labels", [("yes", "no"), ("0.5", "2")])
def test_sentence_prediction_trains_from_a_table(labels, tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join([*SPECIAL_TOKENS, "a", "cat", "dog"]))
    rows = [f"a {word}\t{label}" for word, label in zip(("cat", "dog"), labels, strict=True)]
    table = tmp_path / "rows.tsv"
    table.write_text("\n".join(["text\tlabel", *rows * 20]))
    made, length = tmp_path / "data", Sentences(seq_length=LENGTH)
    make_sentence_data(table, table, tmp_path / "vocab.txt", made, length, processes=1)
    every = dict.fromkeys(("steps_per_loop", "summary_interval", "checkpoint_interval"), 50)
    changes = overrides({"input_path": ""}, steps=300, validation_interval=100, **every)
    changes["task"] = yaml.safe_load((made / "data.yaml").read_text())["task"]
    changes["task"]["model"]["encoder"]["bert"] |= ENCODER | {
        "vocab_size": 8,
        "hidden_size": 32,
        "intermediate_size": 64,
        "dropout_rate": 0.0,
        "attention_dropout_rate": 0.0,
    }
    for part in ("train_data", "validation_data"):
        changes["task"][part]["global_batch_size"] = 8
    changes["trainer"]["validation_steps"] = 5
    optimizer = changes["trainer"]["optimizer_config"]
    optimizer["optimizer"] = {"type": "adamw"}
    optimizer["learning_rate"]["polynomial"] = {"initial_learning_rate": 1e-3, "decay_steps": 1000}
    folder = tmp_path / "model"
    run(changes, folder, "train_and_eval", experiment="acclip/bert_sentence_prediction")
    metrics = json.loads((folder / "metrics.json").read_text())["validation"]
    if labels[0] == "yes":
        assert metrics["cls_accuracy"] == 1
    else:
        assert metrics["validation_loss"] < 0.1


def test_noise_needs_whole_loops(data, tmp_path):
    with pytest.raises(ValueError, match=r"multiple of trainer.steps_per_loop, 5.*=12"):
        run(overrides(data), tmp_path, noise_interval=12)


def test_a_full_disk_leaves_the_last_good_checkpoint(data, adamw, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no file system of limited size can be mounted")
    try:
        shutil.copytree(adamw[0], disk / "model")
        filler = disk / "filler"
        with pytest.raises(OSError, match="No space"), filler.open("wb") as file:
            while True:
                file.write(bytes(1000))
                file.flush()
        with pytest.raises(CheckpointError) as error:
            run(adamw_changes(data, 20), disk / "model")
        assert f"last good checkpoint is {disk}/model/ckpt-10." in str(error.value)
        assert not list(disk.glob("model/*_temp"))
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)
