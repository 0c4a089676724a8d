import collections
import fcntl
import gzip
import itertools
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import yaml
from official.core import exp_factory, task_factory
from official.nlp.tools import tokenization

from keras_acclip.text import corpus as texts
from keras_acclip.garden import data, experiments, pretraining_data, questions, shards, squad_data  # noqa: F401
from keras_acclip.garden.pretraining_data import Recipe, make_pretraining_data
from keras_acclip.garden.shards import DataError
from keras_acclip.text.vocabulary import SPECIAL_TOKENS, read_vocabulary

ROOT = Path(__file__).parents[3]
SMALL = {
    "vocab_size": 600,
    "recipe": Recipe(seq_length=32, dupe_factor=2),
    "num_shards": 3,
    "processes": 1,
}


@pytest.fixture(scope="module")
def corpus(english):
    return texts.text_files([english])


@pytest.fixture(scope="module")
def made(corpus, tmp_path_factory):
    """A finished folder of pretraining data."""
    folder = tmp_path_factory.mktemp("made") / "data"
    return folder, make_pretraining_data(corpus, folder, **SMALL)


def contents(folder):
    """Dict from a shard's name to its examples. (Protobuf hashes maps: bytes differ.)"""
    return {
        path.name: [
            tf.train.Example.FromString(record)
            for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator()
        ]
        for path in folder.glob("*.tfrecord")
    }


def examples(paths):
    for record in tf.data.TFRecordDataset([str(path) for path in sorted(paths)]):
        example = tf.train.Example.FromString(record.numpy())
        yield {
            name: np.array(feature.int64_list.value or feature.float_list.value)
            for name, feature in example.features.feature.items()
        }


def task_of(experiment, *configs):
    params = exp_factory.get_exp_config(experiment)
    for config in configs:
        params.override(config, is_strict=True)
    return params.task


# --- Pretraining -----------------------------------------------------------------------------


def test_examples_are_masked_pairs_of_the_text(made, corpus):
    folder, counts = made
    vocabulary = read_vocabulary(folder / "vocab.txt")
    assert counts["vocabulary"] == len(vocabulary) <= 600
    tokenizer = tokenization.FullTokenizer(str(folder / "vocab.txt"))
    for part in ("train", "validation"):
        documents = [" ".join(tokenizer.tokenize(text)) for text in getattr(corpus, part)]
        documents = [f" {text} " for text in documents]
        found, random_next, together, kept = 0, 0, 0, collections.Counter()
        for example in examples(folder.glob(f"{part}-*.tfrecord")):
            found += 1
            weights = example["masked_lm_weights"].astype(bool)
            assert weights.size == 5
            positions, labels = (example[f"masked_lm_{x}"][weights] for x in ("positions", "ids"))
            seen = example["input_ids"][positions]
            mask = vocabulary.index("[MASK]")
            kept.update(np.where(seen == mask, "mask", np.where(seen == labels, "same", "other")))
            tokens = example["input_ids"].copy()
            tokens[positions] = labels
            length = example["input_mask"].sum()
            assert weights.sum() == min(5, max(1, round(0.15 * length)))
            assert not tokens[length:].any()
            words = [vocabulary[i] for i in tokens[:length]]
            second = int(example["segment_ids"].argmax())
            assert words[0] == "[CLS]" and words[second - 1] == words[-1] == "[SEP]"
            assert example["segment_ids"].sum() == length - second
            pair = words[1 : second - 1], words[second:-1]
            homes = [{i for i, d in enumerate(documents) if f" {' '.join(s)} " in d} for s in pair]
            assert all(homes)
            if example["next_sentence_labels"]:
                random_next += 1
            else:
                together += 1
                assert homes[0] & homes[1]
        assert found == counts[part]
        total = sum(kept.values())
        if part == "train":
            # Half of them, and all that have one sentence.
            assert 0.4 < random_next / found < 0.9
            assert kept["mask"] / total == pytest.approx(0.8, abs=4 * (0.16 / total) ** 0.5)
            assert kept["same"] / total == pytest.approx(0.1, abs=4 * (0.09 / total) ** 0.5)


@pytest.mark.parametrize("experiment", ["bert/pretraining", "acclip/bert_pretraining"])
def test_the_config_goes_straight_into_an_experiment(made, experiment):
    folder, counts = made
    text = (folder / "data.yaml").read_text()
    assert text.startswith(
        f"# {counts['train']} train examples\n# {counts['validation']} validation examples\n"
    )
    task = task_of(
        experiment, {"task": {"train_data": {"global_batch_size": 4}}}, yaml.safe_load(text)
    )
    assert task.model.encoder.get().vocab_size == counts["vocabulary"]
    batch = next(iter(task_factory.get_task(task).build_inputs(task.train_data)))
    assert batch["input_word_ids"].shape == (4, 32)
    assert batch["masked_lm_ids"].shape == (4, 5)
    task.validation_data.override({"global_batch_size": 1})
    validation = task_factory.get_task(task).build_inputs(task.validation_data)
    assert sum(1 for _ in validation) == counts["validation"]


def test_the_data_depend_on_the_seed_alone(made, corpus, tmp_path):
    folder, counts = made
    again = make_pretraining_data(corpus, tmp_path / "again", **SMALL)
    assert contents(tmp_path / "again") == contents(folder)
    assert again == counts
    recipe = Recipe(seq_length=32, dupe_factor=2, seed=1)
    make_pretraining_data(corpus, tmp_path / "other", **SMALL | {"recipe": recipe})
    other, whole = contents(tmp_path / "other"), contents(folder)
    assert all(other[name] != whole[name] for name in whole)


def test_only_missing_and_damaged_shards_are_made_again(made, corpus, tmp_path, monkeypatch):
    folder = tmp_path / "data"
    whole = contents(made[0])
    shutil.copytree(made[0], folder)
    names = sorted(whole)
    (folder / names[0]).unlink()
    (folder / names[1]).write_bytes((folder / names[1]).read_bytes()[:-7])
    (folder / names[3]).write_bytes(b"")
    stale = folder / f"{names[2]}.77.partial"
    stale.write_bytes(b"half")
    kept = (folder / names[2]).stat().st_mtime_ns
    makers, write = [], pretraining_data._write_examples

    def counted(path, task):
        makers.append(Path(path).name)
        write(path, task)

    monkeypatch.setattr(pretraining_data, "_write_examples", counted)
    make_pretraining_data(corpus, folder, **SMALL)
    assert contents(folder) == whole
    assert [name.split(".")[0] for name in makers] == [names[i].split(".")[0] for i in (0, 1, 3)]
    assert (folder / names[2]).stat().st_mtime_ns == kept
    assert not stale.exists()


def test_an_interrupted_shard_leaves_nothing_behind(made, corpus, tmp_path, monkeypatch):
    folder, write = tmp_path / "data", pretraining_data._write_examples

    def interrupted(path, task):
        write(path, task)
        if "train-00001" in path:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pretraining_data, "_write_examples", interrupted)
        with pytest.raises(KeyboardInterrupt):
            make_pretraining_data(corpus, folder, **SMALL)
    assert list(contents(folder)) == ["train-00000-of-00003.tfrecord"]
    assert not (folder / "data.yaml").exists() and not list(folder.glob("*.partial"))
    make_pretraining_data(corpus, folder, **SMALL)
    assert contents(folder) == contents(made[0])


@pytest.mark.slow
def test_a_killed_command_goes_on_with_the_same_result(made, english, tmp_path):
    folder = tmp_path / "data"
    command = [sys.executable, "-m", "keras_acclip.garden.data", "pretraining", "--input", english]
    command += ["--output", folder, "--vocab_size", "600", "--seq_length", "32"]
    command += ["--dupe_factor", "2", "--num_shards", "3", "--processes", "2"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, env=environment, start_new_session=True)
    deadline = time.monotonic() + 120
    while not contents(folder) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert contents(folder) and not (folder / "data.yaml").exists()
    # The workers die with the command, so that nobody writes here any more.
    while time.monotonic() < deadline:
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            break
        time.sleep(0.05)
    else:
        pytest.fail("a worker outlived the command")
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert "named last" in result.stdout
    assert contents(folder) == contents(made[0])
    assert not list(folder.glob("*.partial"))


def test_a_given_vocabulary_is_used_as_it_stands(made, corpus, tmp_path):
    vocab = tmp_path / "mine.txt"
    tokens = read_vocabulary(made[0] / "vocab.txt")
    vocab.write_text("\r\n".join([tokens[0], *tokens[:0:-1]]))
    make_pretraining_data(corpus, tmp_path / "data", vocab=vocab, **SMALL)
    assert read_vocabulary(tmp_path / "data/vocab.txt") == [tokens[0], *tokens[:0:-1]]
    first = next(examples([tmp_path / "data/train-00000-of-00003.tfrecord"]))
    assert first["input_ids"][0] == len(tokens) - tokens.index("[CLS]")
    with pytest.raises(DataError, match="other settings \\(vocabulary"):
        make_pretraining_data(corpus, tmp_path / "data", **SMALL)


def test_dynamic_data_hold_the_text_for_the_text_experiment(corpus, made, tmp_path):
    vocab = made[0] / "vocab.txt"
    recipe = Recipe(seq_length=32, dynamic=True)
    counts = make_pretraining_data(
        corpus, tmp_path, vocab=vocab, recipe=recipe, num_shards=2, processes=1
    )
    assert counts["train"] == len(corpus.train)
    assert counts["validation"] == len(corpus.validation)
    records = tf.data.TFRecordDataset([str(p) for p in tmp_path.glob("*.tfrecord")])
    found = [
        tf.train.Example.FromString(record.numpy()).features.feature["text"].bytes_list.value[0]
        for record in records
    ]
    words = collections.Counter(text.decode().replace("\n", " ") for text in found)
    assert words == collections.Counter(
        " ".join(text.split()) for text in corpus.train + corpus.validation
    )
    task = task_of("acclip/bert_pretraining_text", yaml.safe_load((tmp_path / "data.yaml").open()))
    task.train_data.override({"global_batch_size": 4})
    batch = next(iter(task_factory.get_task(task).build_inputs(task.train_data)))
    assert batch["input_word_ids"].shape == (4, 32)
    assert batch["masked_lm_ids"].shape == (4, 5)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One. Two! Three?", ["One.", "Two!", "Three?"]),
        (
            "It is 3.5, e.g. Keras, i.e. This\none. And\n  more",
            ["It is 3.5, e.g. Keras, i.e. This one.", "And more"],
        ),
        ('He said "Yes." Then (so.) [It] left.', ['He said "Yes."', "Then (so.)", "[It] left."]),
        (
            "a title\n\n a body. with lower case\n \nend",
            ["a title", "a body. with lower case", "end"],
        ),
        (" \n\n ", []),
    ],
)
def test_sentences(text, expected):
    assert list(pretraining_data.sentences(text)) == expected


@pytest.mark.parametrize("seed", range(5))
def test_documents_are_dealt_evenly(seed):
    rng = random.Random(seed)
    documents = [rng.choice("abc") * rng.randint(0, 1000) for _ in range(rng.randint(1, 200))]
    count = rng.randint(1, 9)
    dealt = pretraining_data.deal(documents, count)
    assert len(dealt) == count
    assert collections.Counter(itertools.chain.from_iterable(dealt)) == collections.Counter(
        documents
    )
    lengths = [sum(map(len, part)) for part in dealt]
    assert max(lengths) - min(lengths) <= max(map(len, documents))


def test_default_shards():
    million = "x" * 1_000_000
    assert pretraining_data.default_shards([million] * 8) == 4
    assert pretraining_data.default_shards([million[:100_000]] * 81) == 9
    assert pretraining_data.default_shards(["x"]) == 1


def test_files_of_sentences_are_taken_line_by_line(tmp_path):
    lines = "First line. Still the first.\nsecond line\n\n \nother document {}\n\n"
    path = tmp_path / "a.txt.gz"
    path.write_bytes(gzip.compress("".join(lines.format(i) for i in range(30)).encode()))
    corpus = pretraining_data.sentence_files([path])
    assert (len(corpus.train), len(corpus.validation)) == (57, 3)
    assert corpus.validation == ("First line. Still the first.\nsecond line",) * 3
    own = pretraining_data.sentence_files([path], [path])
    assert len(own.train) == len(own.validation) == 60
    task = pretraining_data._Task(corpus.train[:2], True, "", Recipe(), 1, "")
    assert list(task.lines()) == ["First line. Still the first.\nsecond line", "other document 0"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"seq_length": 7}, "`seq_length` must be at least 8. Received: 7"),
        ({"dupe_factor": 0}, "`dupe_factor` must be at least 1. Received: 0"),
        ({"max_predictions_per_seq": 0}, "`max_predictions_per_seq` must be at least 1"),
        ({"masked_lm_prob": 1.5}, r"`masked_lm_prob` must be in \[0, 1\]. Received: 1.5"),
        ({"short_seq_prob": -1.0}, r"`short_seq_prob` must be in \[0, 1\]"),
    ],
)
def test_a_bad_recipe_is_refused(values, message):
    with pytest.raises(ValueError, match=message):
        Recipe(**values)


@pytest.mark.parametrize(("length", "most"), [(128, 20), (512, 77), (8, 2)])
def test_the_number_of_predictions_follows_the_length(length, most):
    assert Recipe(seq_length=length).max_predictions_per_seq == most


# --- The output folder -----------------------------------------------------------------------


def test_a_folder_of_other_settings_is_refused(made, corpus, tmp_path):
    before = contents(made[0])
    with pytest.raises(DataError, match=r"other settings \(num_shards: 3 → 4\)"):
        make_pretraining_data(corpus, made[0], **SMALL | {"num_shards": 4})
    assert contents(made[0]) == before
    (tmp_path / "old.tfrecord").write_bytes(b"")
    with pytest.raises(DataError, match=r"holds TFRecords, but no settings.json"):
        make_pretraining_data(corpus, tmp_path, **SMALL)


def test_a_broken_settings_file_is_named(made, corpus, tmp_path):
    (tmp_path / "settings.json").write_text("{")
    with pytest.raises(DataError, match=r"settings.json: can't be read"):
        make_pretraining_data(corpus, tmp_path, **SMALL)


def test_two_processes_do_not_share_a_folder(corpus, tmp_path):
    with (tmp_path / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(DataError, match="another process is making data here"):
            make_pretraining_data(corpus, tmp_path, **SMALL)


def test_an_output_that_cannot_be_written_is_named(corpus, tmp_path):
    (tmp_path / "file").write_text("")
    for output in (tmp_path / "file", tmp_path / "file" / "folder"):
        with pytest.raises(DataError, match=r"file.*: can't be written"):
            make_pretraining_data(corpus, output, **SMALL)
    with pytest.raises(DataError, match="read , "):
        make_pretraining_data(corpus, tmp_path / "a,b", **SMALL)


def test_a_full_disk_leaves_no_half_shard(made, corpus, tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(DataError, match=r"train-00000-of-00003.tfrecord: can't be written"):
            make_pretraining_data(corpus, tmp_path, **SMALL)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not contents(tmp_path) and not list(tmp_path.glob("*.partial"))
    make_pretraining_data(corpus, tmp_path, **SMALL)
    assert contents(tmp_path) == contents(made[0])


# --- SQuAD -----------------------------------------------------------------------------------


def squad(contexts, title="t"):
    """A SQuAD file's content: `contexts` are pairs of a context and (question, answer, start)s."""
    number = iter(range(10**6))
    paragraphs = [
        {
            "context": context,
            "qas": [
                {
                    "id": f"{title}{next(number)}",
                    "question": question,
                    "answers": [{"text": answer, "answer_start": start}],
                }
                for question, answer, start in asked
            ],
        }
        for context, asked in contexts
    ]
    return {"version": "1.1", "data": [{"title": title, "paragraphs": paragraphs}]}


def random_squad(english, seed, count):
    """Questions whose answers are random runs of words of random passages."""
    rng, words = random.Random(seed), english.read_text("utf-8").split()
    contexts = []
    for _ in range(count):
        at = rng.randrange(len(words) - 200)
        passage = words[at : at + rng.randint(5, 200)]
        first = rng.randrange(len(passage))
        last = min(len(passage), first + rng.randint(1, 5))
        start = len(" ".join(passage[:first])) + (first > 0)
        answer = " ".join(passage[first:last])
        contexts.append((" ".join(passage), [("What is it?", answer, start)]))
    return squad(contexts)


@pytest.fixture(scope="module")
def squad_made(made, english, tmp_path_factory):
    folder = tmp_path_factory.mktemp("squad")
    (folder / "train.json").write_text(json.dumps(random_squad(english, 0, 60)), "utf-8")
    (folder / "dev.json").write_text(json.dumps(random_squad(english, 1, 7)), "utf-8")
    windows = squad_data.Windows(seq_length=64, query_length=16, doc_stride=24)
    output = folder / "made"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(squad_data, "_SHARD", 25)
        counts = squad_data.make_squad_data(
            folder / "train.json",
            folder / "dev.json",
            made[0] / "vocab.txt",
            output,
            windows,
            processes=1,
        )
    return output, counts


def test_squad_examples_mark_the_answers(squad_made, english):
    output, counts = squad_made
    assert counts["train questions"] == 60 and counts["dev questions"] == 7
    assert len(contents(output)) == 3
    tokenizer = tokenization.FullTokenizer(str(output / "vocab.txt"))
    vocabulary = read_vocabulary(output / "vocab.txt")
    answers = collections.Counter(
        " ".join(tokenizer.tokenize(question["answers"][0]["text"]))
        for paragraph in random_squad(english, 0, 60)["data"][0]["paragraphs"]
        for question in paragraph["qas"]
    )
    found = collections.Counter()
    for example in examples(output.glob("*.tfrecord")):
        first, last = example["start_positions"][0], example["end_positions"][0]
        if example["is_impossible"][0]:
            assert first == last == 0  # The window doesn't hold the answer.
        else:
            found[" ".join(vocabulary[i] for i in example["input_ids"][first : last + 1])] += 1
    assert sum(found.values()) >= 60
    assert set(found) == set(answers)


def test_the_squad_config_goes_straight_into_an_experiment(squad_made, tmp_path):
    output, counts = squad_made
    text = (output / "data.yaml").read_text()
    assert text.startswith(f"# {counts['train']} train examples\n")
    batches = {"task": {p: {"global_batch_size": 4} for p in ("train_data", "validation_data")}}
    params = task_of("acclip/bert_squad", batches, yaml.safe_load(text))
    task = task_factory.get_task(params, logging_dir=str(tmp_path))
    inputs, labels = next(iter(task.build_inputs(params.train_data)))
    assert inputs["input_word_ids"].shape == (4, 64)
    assert labels["start_positions"].shape == (4,)
    assert len(task._eval_examples) == 7
    windows = [
        i for inputs, _ in task.build_inputs(params.validation_data) for i in inputs["unique_ids"]
    ]
    assert {f.unique_id for f in task._eval_features} <= {int(i) for i in windows}


GOOD = squad([("The cat sat.", [("Who sat?", "cat", 4)])])


def changed(path, value):
    """`GOOD` with the value at `path` replaced, or removed."""
    content = json.loads(json.dumps(GOOD))
    *parents, last = path
    item = content
    for name in parents:
        item = item[name]
    if value is None:
        del item[last]
    else:
        item[last] = value
    return json.dumps(content)


PARAGRAPH = ("data", 0, "paragraphs", 0)
QUESTION = (*PARAGRAPH, "qas", 0)
ANSWER = (*QUESTION, "answers", 0)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "can't be read: No such file"),
        (b"\xff\xfe", "line 1: not UTF-8"),
        ('{"data": [\n1,]}', "line 2, column 3: not JSON"),
        (json.dumps(GOOD)[:-20], "line 1, column .*: not JSON"),
        ("[]", "the file: must be an object"),
        ("{}", "the file: has no 'data'"),
        ('{"data": []}', "holds no question"),
        (changed(("data", 0, "paragraphs"), None), r"data\[0\]: has no 'paragraphs'"),
        (changed((*PARAGRAPH, "context"), 3), r"paragraphs\[0\]: 'context' must be a string"),
        (changed((*PARAGRAPH, "context"), " \n"), r"paragraphs\[0\]: the context is empty"),
        (
            changed((*QUESTION, "question"), None),
            r"question t0 \(data\[0\]\..*\): has no 'question'",
        ),
        (changed((*QUESTION, "answers"), []), "question t0 .*: has no answer; SQuAD v1.1"),
        (changed((*QUESTION, "is_impossible"), True), "question t0 .*: has no answer"),
        (
            changed((*ANSWER, "answer_start"), 5),
            "t0 .*: the answer 'cat' does not stand at 5 in the context; it stands at 4",
        ),
        (changed((*ANSWER, "answer_start"), -8), "does not stand at -8"),
        (changed((*ANSWER, "answer_start"), "4"), "'answer_start' must be a whole number"),
        (
            changed((*ANSWER, "text"), "dog"),
            "'dog' does not stand at 4 in the context; it is nowhere",
        ),
        (changed((*ANSWER, "text"), " "), "the answer is empty"),
        (
            json.dumps(squad([("a b", [("?", "a", 0)]), ("a", [("?", "a", 0)])])).replace(
                "t1", "t0"
            ),
            r"t0 \(data\[0\].paragraphs\[1\].qas\[0\]\): question t0 .* has the same id",
        ),
        (
            changed((*QUESTION, "answers"), [{"text": "cat", "answer_start": 4}] * 2),
            "has 2 answers; for training",
        ),
    ],
)
def test_a_bad_squad_file_is_named_with_the_place(tmp_path, content, message):
    path = tmp_path / "train.json"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match="train.json.*" + message):
        squad_data.read_squad(path, one_answer=True)


def test_several_answers_are_allowed_for_evaluation(tmp_path):
    path = tmp_path / "dev.json"
    answers = [{"text": "cat", "answer_start": 4}, {"text": "The cat", "answer_start": 0}]
    path.write_text(changed((*QUESTION, "answers"), answers))
    assert squad_data.count_questions(squad_data.read_squad(path)) == 1


@pytest.mark.parametrize(
    "values", [{"seq_length": 67}, {"doc_stride": 0}, {"query_length": 400}, {"seq_length": -1}]
)
def test_windows_without_room_are_refused(values):
    with pytest.raises(ValueError, match="must be above"):
        squad_data.Windows(**values)


# --- Questions -------------------------------------------------------------------------------

ARGUMENTS = """Args:
  rate: A small number. Defaults to `0.5`.
  momentum: Decay of the mean (see above). Defaults to 0.9.
  name: Name of the optimizer, a string.
Raises:
  ValueError: If the rate is negative.
  TypeError: if the name is
    no string."""
NUMPY = "x : array_like\n    Input.\naxis : int or None, optional\n    Axis to sum over."
PROSE = "Returns the sum of squares, as a float.\nThe mean value is a biased estimate. It was."


@pytest.mark.parametrize(
    ("passage", "expected"),
    [
        (
            ARGUMENTS,
            {
                ("What is rate?", "A small number"),
                ("What is momentum?", "Decay of the mean"),
                ("What is name?", "Name of the optimizer"),
                ("What is called A small number?", "rate"),
                ("What is called Decay of the mean?", "momentum"),
                ("What is called Name of the optimizer?", "name"),
                ("What does rate default to?", "`0.5`"),
                ("What does momentum default to?", "0"),
                ("What is raised if the rate is negative?", "ValueError"),
                ("What is raised if the name is no string?", "TypeError"),
            },
        ),
        (NUMPY, {("What is x?", "array_like"), ("What is axis?", "int or None, optional")}),
        (NUMPY.split("\naxis")[0], set()),  # A single statement of its kind.
        (
            PROSE,
            {
                ("What is returned?", "the sum of squares"),
                ("What is The mean value?", "a biased estimate"),
            },
        ),
        ("Nothing to ask about here", set()),
    ],
)
def test_templates_ask_for_what_the_text_states(passage, expected):
    context, asked = questions.ask(passage)
    assert context == " ".join(passage.split())
    assert {(q.text, q.answer) for q in asked} == expected
    for question in asked:
        assert context[question.start :].startswith(question.answer)


def docstrings(seed, count):
    """Documents like docstrings, with random words."""
    rng = random.Random(seed)

    def words(number):
        return " ".join(
            "".join(rng.choices("abcdefgh", k=rng.randint(2, 7))) for _ in range(number)
        )

    return tuple(
        words(40)
        + "\nArgs:\n"
        + "".join(f"  {words(1)}: {words(5)}. {words(3)}\n" for _ in range(9))
        for _ in range(count)
    )


@pytest.mark.parametrize("seed", range(3))
def test_questions_are_squad_with_a_part_that_is_held_out(tmp_path, seed):
    corpus = texts.Corpus(
        "random", docstrings(seed, 40), docstrings(seed + 9, 9) + docstrings(seed, 2)
    )
    counts = questions.make_questions(corpus, tmp_path, 50, 1000, seed)
    parts = {
        name: squad_data.read_squad(tmp_path / f"{name}.json", True) for name in ("train", "dev")
    }
    assert counts == {f"{n} questions": squad_data.count_questions(p) for n, p in parts.items()}
    assert counts["train questions"] == 50 and 0 < counts["dev questions"] < 100
    asked = {
        name: {
            (q["question"], q["answers"][0]["text"])
            for a in part
            for p in a["paragraphs"]
            for q in p["qas"]
        }
        for name, part in parts.items()
    }
    assert not asked["train"] & asked["dev"]
    for name, documents in (("train", corpus.train), ("dev", corpus.validation)):
        plain = [" ".join(document.split()) for document in documents]
        for article in parts[name]:
            for paragraph in article["paragraphs"]:
                assert any(paragraph["context"] in document for document in plain)
                assert len(paragraph["qas"]) <= 4
    again = tmp_path / "again"
    questions.make_questions(corpus, again, 50, 1000, seed)
    for name in ("train.json", "dev.json"):
        assert (again / name).read_bytes() == (tmp_path / name).read_bytes()


def test_a_statement_is_asked_for_once():
    passage = docstrings(0, 1)[0]
    _, asked = questions.ask(passage)
    assert len(asked) > 9
    for seed in range(20):
        chosen = questions.choose(asked, 4, random.Random(seed))
        assert len(chosen) == 4
        assert len({question.statement for question in chosen}) == 4
        assert len({question.kind for question in chosen}) > 1


def test_text_without_statements_gives_no_questions(tmp_path):
    corpus = texts.Corpus("plain", ("word " * 999,), ("word " * 999,))
    with pytest.raises(DataError, match="plain: the train part has no passage"):
        questions.make_questions(corpus, tmp_path)


# --- The command -----------------------------------------------------------------------------


def test_the_command_makes_everything(english, tmp_path, capsys):
    text = ["--input", str(english)]
    small = ["--vocab_size", "500", "--seq_length", "32", "--dupe_factor", "1", "--processes", "1"]
    folder = tmp_path / "data"
    assert data.main(["pretraining", *text, *small, "--cased", "--output", str(folder)]) == 0
    out = capsys.readouterr().out
    assert re.search(r"data: [\d,]+ train, \d+ validation, \d+ vocabulary\n", out)
    assert f"--config_file={folder / 'data.yaml'}" in out
    assert json.loads((folder / "settings.json").read_text())["lower_case"] is False
    parts = {}
    for seed, name in enumerate(("train", "dev")):
        parts[name] = str(tmp_path / f"{name}.json")
        Path(parts[name]).write_text(json.dumps(random_squad(english, seed, 3)))
    command = ["squad", "--train", parts["train"], "--dev", parts["dev"], "--cased"]
    command += ["--vocab", str(folder / "vocab.txt"), "--output", str(tmp_path / "squad")]
    assert data.main([*command, "--processes", "1"]) == 0
    config = yaml.safe_load((tmp_path / "squad/data.yaml").read_text())
    assert config["task"]["validation_data"]["do_lower_case"] is False
    for name, seed in (("a.txt", 0), ("b.txt", 1)):
        (tmp_path / name).write_text("\n\n".join(docstrings(seed, 30)))
    text = ["--input", str(tmp_path / "a.txt"), "--validation_input", str(tmp_path / "b.txt")]
    assert data.main(["questions", *text, "--output", str(tmp_path / "questions")]) == 0
    assert "train questions" in capsys.readouterr().out


SQUAD = ["squad", "--train", "dev.json", "--dev", "dev.json", "--vocab", "vocab.txt"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pretraining", "--input", "none.txt"], "none.txt: no such file"),
        (["pretraining", "--input", "empty.txt"], "empty.txt: the file is empty"),
        (
            ["pretraining", "--input", "binary.txt"],
            "binary.txt: not a text file: it holds a zero byte at 2",
        ),
        (
            ["pretraining", "--input", "control.txt", "--vocab", "vocab.txt"],
            "train-00000-of-00001.tfrecord: no example",
        ),
        (["pretraining", "--input", "control.txt"], "control.txt: there is no word to learn"),
        (
            ["pretraining", "--input", "short.txt"],
            "short.txt: too short: there is no validation text",
        ),
        (
            ["pretraining", "--input", "good.txt", "--vocab", "short.txt"],
            "short.txt: the vocabulary lacks [PAD], [CLS], [SEP], [UNK], [MASK]",
        ),
        (["pretraining", "--input", "good.txt", "--vocab", "none.txt"], "none.txt: can't be read"),
        (
            ["pretraining", "--input", "good.txt", "--vocab_size", "5"],
            "`vocab_size` must be above 5",
        ),
        (
            ["pretraining", "--input", "good.txt", "--seq_length", "4"],
            "`seq_length` must be at least 8",
        ),
        (
            ["pretraining", "--input", "good.txt", "--output", "good.txt"],
            "good.txt: can't be written",
        ),
        (["pretraining", "--one_sentence_per_line"], "need --input"),
        (["questions", "--input", "good.txt"], "the train part has no passage"),
        (
            ["squad", "--train", "good.txt", "--dev", "dev.json", "--vocab", "vocab.txt"],
            "good.txt, line 1, column 1: not JSON",
        ),
        (
            ["squad", "--train", "dev.json", "--dev", "none.json", "--vocab", "vocab.txt"],
            "none.json: can't be read",
        ),
        (
            ["squad", "--train", "dev.json", "--dev", "dev.json", "--vocab", "short.txt"],
            "the vocabulary lacks",
        ),
        (
            [*SQUAD, "--seq_length", "9"],
            "`seq_length` must be above",
        ),
    ],
)
def test_errors_are_one_line_and_status_2(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    Path("empty.txt").write_text("")
    Path("binary.txt").write_bytes(b"ab\0")
    Path("control.txt").write_bytes(b"\x01 \x02\n\n" * 200)
    Path("short.txt").write_text("word\n")
    Path("good.txt").write_text("Some words stand here.\n\n" * 200)
    Path("vocab.txt").write_text("\n".join([*SPECIAL_TOKENS, "cat"]))
    Path("dev.json").write_text(json.dumps(GOOD))
    if "--output" not in arguments:
        arguments = [*arguments, "--output", "out"]
    assert data.main([*arguments, *["--processes", "1"] * (arguments[0] != "questions")]) == 2
    error = capsys.readouterr().err
    assert re.search(rf"^error: .*{re.escape(message)}", error, re.MULTILINE)
    assert "Traceback" not in error
    assert not list(Path().glob("out/*.yaml"))


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["pretraining"],
        ["squad", "--output", "x"],
        ["pretraining", "--output", "x", "--dupe_factor", "0"],
    ],
)
def test_a_bad_command_line_is_refused(arguments):
    with pytest.raises(SystemExit) as status:
        data.parse_arguments(arguments)
    assert status.value.code == 2


@pytest.mark.slow
def test_a_dead_worker_is_reported(tmp_path):
    tasks = {tmp_path / f"{i}.tfrecord": None for i in range(2)}
    with pytest.raises(DataError, match="a process was killed while it made a shard"):
        shards.make_missing(_die, tasks, 2, "train")


def _die(path, task):
    os.kill(os.getpid(), signal.SIGKILL)
