import math
import shutil
from pathlib import Path

import pytest
import tensorflow as tf
from official.core import exp_factory

from keras_acclip.garden import checks
from keras_acclip.garden.errors import ExperimentError
from tests.integration.garden import runs


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def records(folder):
    return runs.write_records(folder, files=2, examples=4)


def task(data, experiment="acclip/bert_pretraining", **encoder):
    changes = runs.overrides(data)
    if experiment != "acclip/bert_pretraining":
        for part in ("train_data", "validation_data"):
            del changes["task"][part]["max_predictions_per_seq"]
    changes["task"]["model"]["encoder"]["bert"] = runs.ENCODER | encoder
    return runs.parse(changes, experiment).task


def test_data_that_fit_pass(records):
    for mode in ("train", "eval", "train_and_eval"):
        checks.check_data(task({"input_path": records}), mode)


@pytest.mark.parametrize(
    ("data", "encoder", "message"),
    [
        ({}, {"vocab_size": 40}, r"encoder.bert.vocab_size=40, but .*0.tfrecord holds the token"),
        ({"seq_length": 8}, {}, r"train_data.seq_length=8, but the examples of .* have 16 tokens"),
        ({"seq_length": 32}, {}, r"seq_length=32 is above .*bert.max_position_embeddings=16"),
        ({"max_predictions_per_seq": 4}, {}, r"max_predictions_per_seq=4, but .* have 3 masked"),
        ({"global_batch_size": 0}, {}, r"task.train_data.global_batch_size must be at least 1"),
        ({}, {"hidden_size": 0}, r"encoder.bert.hidden_size must be at least 1. Received: 0"),
        ({}, {"type_vocab_size": 1}, r"bert.type_vocab_size=1, but .* has segments up to 1"),
        ({"input_path": ""}, {}, r"task.train_data.input_path is not set. The data.yaml of"),
        ({"input_path": "/nowhere/*.tfrecord"}, {}, r"/nowhere/\*.tfrecord does not match any"),
        ({"input_path": "/nowhere/a.tfrecord"}, {}, r"/nowhere/a.tfrecord: no such file"),
    ],
)
def test_data_that_dont_fit_are_named(records, data, encoder, message):
    with pytest.raises(ExperimentError, match=message):
        checks.check_data(task({"input_path": records} | data, **encoder), "train")


def test_another_experiments_data_are_named_by_the_field_they_lack(records, tmp_path):
    data = {"input_path": records}
    with pytest.raises(ExperimentError, match=r"have no 'label_ids'; they have .*masked_lm_ids"):
        checks.check_data(task(data, "acclip/bert_sentence_prediction"), "train")
    squad = runs.parse({"task": {"train_data": data | {"seq_length": 16}}}, "acclip/bert_squad")
    with pytest.raises(ExperimentError, match=r"have no 'start_positions'"):
        checks.check_data(squad.task, "train")
    images = runs.parse({"task": {"train_data": data}}, "acclip/resnet_imagenet")
    with pytest.raises(ExperimentError, match=r"task.train_data.input_path: .*'image/encoded'"):
        checks.check_data(images.task, "train")


def test_each_of_several_encoders_is_checked(records):
    bert = {"type": "bert", "bert": runs.ENCODER}
    data = {"input_path": records, "seq_length": runs.LENGTH, "global_batch_size": 4}
    data["max_predictions_per_seq"] = runs.MASKED

    def check(**discriminator):
        model = {
            "generator_encoder": bert,
            "discriminator_encoder": {"type": "bert", "bert": runs.ENCODER | discriminator},
        }
        changes = {"task": {"model": model, "train_data": data}}
        checks.check_data(runs.parse(changes, "electra/pretraining").task, "train")

    check()
    with pytest.raises(ExperimentError, match=r"discriminator_encoder.bert.vocab_size=40, but"):
        check(vocab_size=40)


def test_files_of_any_task_must_be_there():
    data = {"task": {"train_data": {"input_path": "/nowhere/a*"}}}
    for name in ("acclip/resnet_imagenet", "resnet_imagenet", "bert/squad"):
        with pytest.raises(ExperimentError, match=r"task.train_data.input_path: /nowhere/a\*"):
            checks.check_data(runs.parse(data, name).task, "train")


def test_rare_words_of_the_data_count(records, tmp_path):
    """They may stand in none of the examples that are looked at."""
    path = tmp_path / "0.tfrecord"
    shutil.copy(sorted(Path(records).parent.glob("*.tfrecord"))[0], path)
    checks.check_data(task({"input_path": str(path)}), "train")
    (tmp_path / "vocab.txt").write_text("\n".join(map(str, range(1 + runs.VOCABULARY))))
    with pytest.raises(ExperimentError, match=r"vocab_size=64, but .*vocab.txt holds 65 tokens"):
        checks.check_data(task({"input_path": str(path)}), "train")


def test_an_optimizers_values_are_checked_by_itself():
    def trainer(**optimizer):
        changes = {"trainer": {"optimizer_config": {"optimizer": optimizer}}}
        return runs.parse(changes, files=("cpu", "acclip")).trainer

    checks.check_optimizer(trainer())
    checks.check_optimizer(trainer(type="adamw"))
    with pytest.raises(ExperimentError, match=r"trainer.optimizer_config: Argument `alpha`"):
        checks.check_optimizer(trainer(type="acclip", acclip={"alpha": -1.0}))
    with pytest.raises(ExperimentError, match=r"optimizer.type is not set"):
        checks.check_optimizer(trainer(type=None))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "TF_CONFIG does not describe this worker: Expecting"),
        ("[]", "TF_CONFIG does not describe"),
        ('{"cluster": {"worker": ["a:1"]}}', "it has no 'task'"),
        (
            '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 7}}',
            "there is no worker 7 in its cluster",
        ),
    ],
)
def test_a_cluster_must_be_described(monkeypatch, text, message):
    monkeypatch.setenv("TF_CONFIG", text)
    runtime = runs.parse({"runtime": {"distribution_strategy": "multi_worker_mirrored"}}).runtime
    with pytest.raises(ExperimentError, match=message):
        checks.strategy(runtime)


def test_batches_must_be_whole_micro_batches(records):
    params = runs.parse(runs.overrides({"input_path": records}))
    strategy = checks.strategy(params.runtime)
    checks.check_accumulation(params, strategy)
    params = params.replace(trainer={"gradient_accumulation_steps": 3})
    with pytest.raises(ExperimentError, match=r"gradient_accumulation_steps=3 micro-batches"):
        checks.check_accumulation(params, strategy)


def test_fresh_does_not_remove_what_a_training_starts_from(tmp_path):
    config = runs.parse({}).task
    for inside in (tmp_path / "runs/a", tmp_path / "runs/a/ckpt-10"):
        with pytest.raises(ExperimentError, match="which --fresh clears"):
            checks.check_outside(
                config.replace(init_checkpoint=str(inside)), str(tmp_path / "runs/a")
            )
    for outside in ("", tmp_path / "runs", tmp_path / "runs/ab/ckpt-1"):
        checks.check_outside(config.replace(init_checkpoint=str(outside)), str(tmp_path / "runs/a"))


def test_validation_data_are_checked_where_they_are_read(records):
    good = task({"input_path": records})
    broken = good.replace(validation_data={"input_path": "/nowhere/a"})
    checks.check_data(broken, "train")
    with pytest.raises(ExperimentError, match=r"task.validation_data.input_path: /nowhere/a"):
        checks.check_data(broken, "train_and_eval")


def test_what_is_no_record_is_named(tmp_path):
    (tmp_path / "text.tfrecord").write_text("Not a record, but a text of some length.\n" * 9)
    with tf.io.TFRecordWriter(str(tmp_path / "other.tfrecord")) as writer:
        writer.write(b"\xff\xff\xff")
    for name, message in (("text", "text.tfrecord can't be read"), ("other", "holds no examples")):
        with pytest.raises(ExperimentError, match=message):
            checks.check_data(task({"input_path": str(tmp_path / f"{name}.tfrecord")}), "train")


def test_text_to_be_masked_is_checked(tmp_path):
    text, vocabulary = runs.write_text(tmp_path)
    data = {"input_path": text, "vocab_file_path": vocabulary}
    name = "acclip/bert_pretraining_text"

    def check(changes, size=runs.VOCABULARY):
        changed = task({"input_path": text}, vocab_size=size).model
        config = runs.parse({"task": {"train_data": data | changes}}, name).task
        checks.check_data(config.replace(model=changed.as_dict()), "train")

    shape = {"seq_length": runs.LENGTH, "max_predictions_per_seq": runs.MASKED}
    check(shape)
    for changes, message in (
        ({"vocab_file_path": "/nowhere"}, "vocab_file_path=/nowhere: no such file"),
        ({"text_field_names": ["story"]}, r"have no 'story'; they have text"),
    ):
        with pytest.raises(ExperimentError, match=message):
            check(shape | changes)
    with pytest.raises(ExperimentError, match=r"vocab_size=32, but .* holds 64 tokens"):
        check(shape, size=32)


def test_every_file_is_looked_into(tmp_path):
    """A long first file does not hide what the last one holds."""
    for part, label, count in (("a", 0, 1500), ("b", 2, 1)):
        with tf.io.TFRecordWriter(str(tmp_path / f"{part}.tfrecord")) as writer:
            for _ in range(count):
                features = {
                    name: runs._integers([1] * runs.LENGTH)
                    for name in ("input_ids", "input_mask", "segment_ids")
                }
                runs._write(writer, features | {"label_ids": runs._integers([label])})
    data = task({"input_path": str(tmp_path / "*.tfrecord")}, "acclip/bert_sentence_prediction")
    with pytest.raises(ExperimentError, match=r"num_classes=2, but .*b.tfrecord holds the label 2"):
        checks.check_data(data.replace(model={"num_classes": 2}), "train")


def test_labels_are_among_the_classes(folder):
    path = str(folder / "labels.tfrecord")
    with tf.io.TFRecordWriter(path) as writer:
        for label in (0, 1, 2):
            features = {
                name: runs._integers([1] * runs.LENGTH)
                for name in ("input_ids", "input_mask", "segment_ids")
            }
            runs._write(writer, features | {"label_ids": runs._integers([label])})
    good = task({"input_path": path}, "acclip/bert_sentence_prediction")
    checks.check_data(good.replace(model={"num_classes": 3}), "train")
    with pytest.raises(ExperimentError, match=r"num_classes=2, but .* holds the label 2"):
        checks.check_data(good.replace(model={"num_classes": 2}), "train")


def test_gpus_that_arent_there_stop_the_run():
    if tf.config.list_physical_devices("GPU"):
        pytest.skip("there are GPUs")
    for name, count in (("gpu", 1), ("gpus", 8), ("multi_worker", 8)):
        runtime = runs.parse({}, files=[name]).runtime
        with pytest.raises(ExperimentError, match=rf"num_gpus={count} .*has no GPU.*allow_cpu"):
            checks.available(runtime)
        allowed = runtime.replace()
        allowed.override({"allow_cpu": True}, is_strict=False)
        assert checks.available(allowed).num_gpus == 0
    runtime = runs.parse({}).runtime
    assert checks.available(runtime) == runtime


def test_a_strategy_that_isnt_there_is_named():
    runtime = runs.parse({"runtime": {"distribution_strategy": "mirorred"}}).runtime
    with pytest.raises(ExperimentError, match=r"distribution_strategy='mirorred': Unrecogni"):
        checks.strategy(runtime)


def test_a_checkpoint_to_start_from_must_be_there(tmp_path):
    (tmp_path / "empty").mkdir()
    checkpoint = tf.train.Checkpoint(v=tf.Variable(0.0)).save(str(tmp_path / "some/ckpt"))
    config = runs.parse({}).task
    for good in ("", checkpoint, str(tmp_path / "some")):
        checks.check_initial(config.replace(init_checkpoint=good))
    (tmp_path / "broken").mkdir()
    for name in ("checkpoint", "ckpt-1.data-00000-of-00001"):
        (tmp_path / "broken" / name).write_bytes((tmp_path / "some" / name).read_bytes())
    (tmp_path / "broken/ckpt-1.index").touch()
    for bad, message in (
        ("empty", "holds no checkpoint"),
        ("nowhere", "neither such a folder"),
        ("some/ckpt-1.index", f"a file of a checkpoint; the checkpoint is {checkpoint}"),
        ("some/ckpt-1.data-00000-of-00001", f"the checkpoint is {checkpoint}"),
        ("broken/ckpt-1", "broken/ckpt-1 can't be read"),
        ("broken", "can't be read"),
    ):
        path = str(tmp_path / bad)
        with pytest.raises(ExperimentError, match=rf"task.init_checkpoint={path}: .*{message}"):
            checks.check_initial(config.replace(init_checkpoint=path))


def test_intervals_are_whole_loops():
    def trainer(loop, summary):
        return runs.parse(
            {"trainer": {"steps_per_loop": loop, "summary_interval": summary}}
        ).trainer

    for loop, summary in ((1, 1), (10, 10), (10, 30)):
        checks.check_intervals(trainer(loop, summary))
    for loop, summary in ((10, 5), (10, 15), (10, 0), (10, -10)):
        with pytest.raises(
            ExperimentError,
            match=rf"trainer.summary_interval must be a multiple of trainer.steps_per_loop={loop}. "
            rf"Received: {summary}$",
        ):
            checks.check_intervals(trainer(loop, summary))
    for name in ("train_steps", "checkpoint_interval", "validation_interval"):
        broken = runs.parse({"trainer": {name: 0}}).trainer
        with pytest.raises(ExperimentError, match=rf"trainer.{name} must be at least 1"):
            checks.check_intervals(broken)
    for loop in (0, -1):
        with pytest.raises(ExperimentError, match=rf"steps_per_loop must .* Received: {loop}$"):
            checks.check_intervals(trainer(loop, 10))


def test_a_number_that_a_schedule_needs_is_named():
    checks.check_schedule(runs.parse({}).trainer)
    stock = exp_factory.get_exp_config("bert/sentence_prediction").trainer
    with pytest.raises(ExperimentError, match=r"decay_steps and .*warmup_steps are not set$"):
        checks.check_schedule(stock)
    for value in (math.inf, -math.inf, math.nan):
        rate = {"polynomial": {"initial_learning_rate": value}}
        changes = {"trainer": {"optimizer_config": {"learning_rate": rate}}}
        with pytest.raises(ExperimentError, match=r"initial_learning_rate must be a finite number"):
            checks.check_schedule(runs.parse(changes).trainer)
    schedule = {"polynomial": {"initial_learning_rate": None}}
    changes = {"trainer": {"optimizer_config": {"learning_rate": schedule}}}
    with pytest.raises(ExperimentError, match=r"learning_rate.polynomial.initial_learning_rate "):
        checks.check_schedule(runs.parse(changes).trainer)
