import collections
import json

import pytest
import yaml
from official.core import task_factory
from official.nlp.tools import tokenization

from keras_acclip.garden.data import squad as squad_module
from keras_acclip.garden.data.shards import DataError
from keras_acclip.garden.data.squad_files import count_questions, read_squad
from keras_acclip.text.vocabulary import read_vocabulary
from tests.unit.garden.samples import contents, examples, random_squad, squad, task_of

# The fixtures run once, in one process.
pytestmark = pytest.mark.xdist_group("garden data")


@pytest.fixture(scope="module")
def squad_made(made, english, tmp_path_factory):
    folder = tmp_path_factory.mktemp("squad")
    (folder / "train.json").write_text(json.dumps(random_squad(english, 0, 60)), "utf-8")
    (folder / "dev.json").write_text(json.dumps(random_squad(english, 1, 7)), "utf-8")
    windows = squad_module.Windows(seq_length=64, query_length=16, doc_stride=24)
    output = folder / "made"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(squad_module, "_SHARD", 25)
        counts = squad_module.make_squad_data(
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
        (b"\xff\xfe", "UTF-16 text"),
        (b"{\n\xff", "line 2: not UTF-8"),
        ('{"data": [\n1 2]}', "line 2, column 3: not JSON"),
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
        read_squad(path, one_answer=True)


def test_several_answers_are_allowed_for_evaluation(tmp_path):
    path = tmp_path / "dev.json"
    answers = [{"text": "cat", "answer_start": 4}, {"text": "The cat", "answer_start": 0}]
    path.write_text(changed((*QUESTION, "answers"), answers))
    assert count_questions(read_squad(path)) == 1


@pytest.mark.parametrize(
    "values", [{"seq_length": 67}, {"doc_stride": 0}, {"query_length": 400}, {"seq_length": -1}]
)
def test_windows_without_room_are_refused(values):
    with pytest.raises(ValueError, match="must be above"):
        squad_module.Windows(**values)


def test_a_byte_order_mark_is_no_fault(tmp_path):
    content = json.dumps(squad([("The cat sat.", [("Who sat?", "cat", 4)])]))
    (tmp_path / "plain.json").write_text(content)
    (tmp_path / "mark.json").write_text("\ufeff" + content, "utf-8")
    assert read_squad(tmp_path / "mark.json") == read_squad(tmp_path / "plain.json")


def test_questions_without_an_answer_are_left_out_where_asked(tmp_path):
    content = squad([("The cat sat.", [("Who sat?", "cat", 4)] * 3)])
    questions = content["data"][0]["paragraphs"][0]["qas"]
    questions[0]["answers"] = []
    questions[2] |= {"is_impossible": True, "plausible_answers": [{"text": "x"}]}
    path = tmp_path / "v2.json"
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match="--skip_unanswerable"):
        read_squad(path)
    (article,) = read_squad(path, True, skip_unanswerable=True)
    assert [q["id"] for q in article["paragraphs"][0]["qas"]] == [questions[1]["id"]]
    questions[1]["answers"] = []
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match="holds no question"):
        read_squad(path, skip_unanswerable=True)


def test_all_files_that_cant_be_used_are_named_at_once(tmp_path):
    (tmp_path / "train.json").write_text("{}", "utf-16")
    with pytest.raises(DataError) as error:
        squad_module.make_squad_data(
            *(tmp_path / name for name in ("train.json", "dev.json", "vocab.txt", "made"))
        )
    first, *files = str(error.value).splitlines()
    assert first == "3 input files can't be used:"
    assert [line.partition("/")[2].rpartition("/")[2] for line in files] == [
        "vocab.txt: can't be read: No such file or directory",
        "train.json: UTF-16 text: save it as UTF-8",
        "dev.json: can't be read: No such file or directory",
    ]
    assert not (tmp_path / "made").exists()
