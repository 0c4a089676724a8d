import subprocess
import sys

import pytest
import yaml

from keras_acclip.garden import flags, input_paths


@pytest.fixture
def data(tmp_path):
    """Writes a data.yaml with these values of `task.train_data` and returns its path."""
    (tmp_path / "vocab.txt").write_text("[PAD]\n")
    (tmp_path / "train-0.tfrecord").write_text("")

    def write(name="data.yaml", part="train_data", **values):
        path = tmp_path / name
        path.write_text(yaml.safe_dump({"task": {part: values}}))
        return str(path)

    return write


@pytest.mark.parametrize(
    "values",
    [
        {"input_path": "{}/train-*.tfrecord"},
        {"input_path": "{}/train-0.tfrecord,{}/train-*.tfrecord", "vocab_file": "{}/vocab.txt"},
        {"input_path": ["{}/train-0.tfrecord"]},
        {"input_path": "gs://bucket/a.tfrecord"},
        {"input_path": "dummy"},
        {"input_path": {"one": "a", "another": "b"}},
        {"tfds_name": "glue/mrpc"},
    ],
)
def test_data_that_may_be_there_are_no_fault(data, tmp_path, values):
    def placed(value):
        if isinstance(value, list):
            return [placed(each) for each in value]
        return value.replace("{}", str(tmp_path)) if isinstance(value, str) else value

    path = data(**{name: placed(value) for name, value in values.items()})
    assert input_paths.missing([path], "train") is None


@pytest.mark.parametrize("mode", ["train", "eval", "train_and_eval"])
def test_data_that_no_file_names_are_a_fault(data, mode):
    part = "train_data" if "train" in mode else "validation_data"
    message = f"task.{part}.input_path is not set."
    for files in ([], [data(global_batch_size=8)], [data(input_path="")]):
        assert (input_paths.missing(files, mode) or "").startswith(message)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("input_path", "{}/nowhere-*.tfrecord"),
        ("input_path", "{}/train-0.tfrecord,{}/train-1.tfrecord"),
        ("vocab_file", "{}/words.txt"),
    ],
)
def test_data_that_arent_there_are_named(data, tmp_path, name, value):
    good = {"input_path": f"{tmp_path}/train-0.tfrecord"}
    value = value.replace("{}", str(tmp_path))
    fault = input_paths.missing([data(**good | {name: value})], "train")
    shown = value.split(",")[-1]
    assert fault == f"task.train_data.{name}={shown}: no such file"


def test_the_last_file_counts_and_overrides_may_name_other_data(data, tmp_path):
    bad = data("bad.yaml", input_path="nowhere.tfrecord")
    good = data("good.yaml", input_path=f"{tmp_path}/train-0.tfrecord")
    assert input_paths.missing([bad, good], "train") is None
    assert input_paths.missing([good, bad], "train")
    assert input_paths.missing([bad], "train", "trainer.train_steps=1")
    for overrides in ("task.train_data.input_path=x", "{task: {train_data: {}}}", "over.yaml"):
        assert input_paths.missing([bad], "train", overrides) is None
    assert input_paths.missing(["gs://bucket/data.yaml"], "train") is None


def test_missing_data_are_told_before_tensorflow_loads():
    code = (
        "import sys; sys.modules['tensorflow'] = None;"
        "from keras_acclip.garden import train; train.main(sys.argv)"
    )
    words = ["--experiment=acclip/bert_squad", "--mode=train", "--model_dir=runs/a"]
    run = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True)
    assert run.returncode == 2
    assert run.stderr.startswith("error: task.train_data.input_path is not set.")
    assert run.stderr.count("\n") == 1


def test_only_this_packages_bert_needs_data_of_files():
    for name in ("acclip/resnet_imagenet", "bert/sentence_prediction"):
        words = [f"--experiment={name}", "--mode=train", "--model_dir=runs/a"]
        flags.check_data(flags.read(["train", *words]))
