import shutil
from pathlib import Path

import pytest
import tensorflow as tf

from keras_acclip.garden import data_checks
from keras_acclip.garden.errors import ExperimentError
from tests.integration.garden import runs


def task(data, experiment="acclip/bert_pretraining", **encoder):
    changes = runs.overrides(data)
    if experiment != "acclip/bert_pretraining":
        for part in ("train_data", "validation_data"):
            del changes["task"][part]["max_predictions_per_seq"]
    changes["task"]["model"]["encoder"]["bert"] = runs.ENCODER | encoder
    return runs.parse(changes, experiment).task


def test_data_that_fit_pass(records):
    for mode in ("train", "eval", "train_and_eval"):
        data_checks.check_data(task({"input_path": records}), mode)


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
        data_checks.check_data(task({"input_path": records} | data, **encoder), "train")


def test_another_experiments_data_are_named_by_the_field_they_lack(records, tmp_path):
    data = {"input_path": records}
    with pytest.raises(ExperimentError, match=r"have no 'label_ids'; they have .*masked_lm_ids"):
        data_checks.check_data(task(data, "acclip/bert_sentence_prediction"), "train")
    squad = runs.parse({"task": {"train_data": data | {"seq_length": 16}}}, "acclip/bert_squad")
    with pytest.raises(ExperimentError, match=r"have no 'start_positions'"):
        data_checks.check_data(squad.task, "train")
    images = runs.parse({"task": {"train_data": data}}, "acclip/resnet_imagenet")
    with pytest.raises(ExperimentError, match=r"task.train_data.input_path: .*'image/encoded'"):
        data_checks.check_data(images.task, "train")


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
        data_checks.check_data(runs.parse(changes, "electra/pretraining").task, "train")

    check()
    with pytest.raises(ExperimentError, match=r"discriminator_encoder.bert.vocab_size=40, but"):
        check(vocab_size=40)


def test_files_of_any_task_must_be_there():
    data = {"task": {"train_data": {"input_path": "/nowhere/a*"}}}
    for name in ("acclip/resnet_imagenet", "resnet_imagenet", "bert/squad"):
        with pytest.raises(ExperimentError, match=r"task.train_data.input_path: /nowhere/a\*"):
            data_checks.check_data(runs.parse(data, name).task, "train")


def test_rare_words_of_the_data_count(records, tmp_path):
    """They may stand in none of the examples that are looked at."""
    path = tmp_path / "0.tfrecord"
    shutil.copy(sorted(Path(records).parent.glob("*.tfrecord"))[0], path)
    data_checks.check_data(task({"input_path": str(path)}), "train")
    (tmp_path / "vocab.txt").write_text("\n".join(map(str, range(1 + runs.VOCABULARY))))
    with pytest.raises(ExperimentError, match=r"vocab_size=64, but .*vocab.txt holds 65 tokens"):
        data_checks.check_data(task({"input_path": str(path)}), "train")


def test_validation_data_are_checked_where_they_are_read(records):
    good = task({"input_path": records})
    broken = good.replace(validation_data={"input_path": "/nowhere/a"})
    data_checks.check_data(broken, "train")
    with pytest.raises(ExperimentError, match=r"task.validation_data.input_path: /nowhere/a"):
        data_checks.check_data(broken, "train_and_eval")


def test_what_is_no_record_is_named(tmp_path):
    (tmp_path / "text.tfrecord").write_text("Not a record, but a text of some length.\n" * 9)
    with tf.io.TFRecordWriter(str(tmp_path / "other.tfrecord")) as writer:
        writer.write(b"\xff\xff\xff")
    for name, message in (("text", "text.tfrecord can't be read"), ("other", "holds no examples")):
        with pytest.raises(ExperimentError, match=message):
            data_checks.check_data(
                task({"input_path": str(tmp_path / f"{name}.tfrecord")}), "train"
            )


def test_text_to_be_masked_is_checked(tmp_path):
    text, vocabulary = runs.write_text(tmp_path)
    data = {"input_path": text, "vocab_file_path": vocabulary}
    name = "acclip/bert_pretraining_text"

    def check(changes, size=runs.VOCABULARY):
        changed = task({"input_path": text}, vocab_size=size).model
        config = runs.parse({"task": {"train_data": data | changes}}, name).task
        data_checks.check_data(config.replace(model=changed.as_dict()), "train")

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
        data_checks.check_data(data.replace(model={"num_classes": 2}), "train")


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
    data_checks.check_data(good.replace(model={"num_classes": 3}), "train")
    with pytest.raises(ExperimentError, match=r"num_classes=2, but .* holds the label 2"):
        data_checks.check_data(good.replace(model={"num_classes": 2}), "train")
