import gzip
import json

import numpy as np
import pytest
import yaml
from official.core import task_factory
from official.nlp.tools import tokenization

from keras_acclip.garden.data import command
from keras_acclip.garden.data.classification import Sentences, label_classes, make_sentence_data
from keras_acclip.garden.data.labelled_files import Labelled, read_labelled
from keras_acclip.garden.data.shards import DataError
from keras_acclip.text.vocabulary import SPECIAL_TOKENS
from tests.unit.garden.samples import examples, task_of

WORDS = ("a", "cat", "sat", "dog", "ran", ".", "not")


@pytest.fixture
def vocab(tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join([*SPECIAL_TOKENS, *WORDS]))
    return path


def write(path, rows, fields=("sentence1", "sentence2", "label")):
    if path.suffix == ".jsonl":
        lines = [json.dumps(dict(zip(fields, row, strict=True))) for row in rows]
    else:
        mark = "\t" if path.suffix == ".tsv" else ","
        lines = [mark.join(map(str, row)) for row in (fields, *rows)]
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


PAIRS = [("A cat sat.", "A dog ran.", "no"), ("A dog ran.", "Not a cat.", "yes")] * 5


@pytest.mark.parametrize("form", ["tsv", "csv", "jsonl"])
def test_the_three_forms_are_read_alike(tmp_path, form):
    path = write(tmp_path / f"a.{form}", PAIRS)
    rows = read_labelled(path)
    assert [(*row.texts, row.label) for row in rows] == PAIRS
    first = 1 if form == "jsonl" else 2
    assert rows[3].place == f"{path}, line {first + 3}"
    packed = tmp_path / f"b.{form}.gz"
    packed.write_bytes(gzip.compress(b"\xef\xbb\xbf" + path.read_bytes()))
    assert [row.texts for row in read_labelled(packed)] == [row.texts for row in rows]


def test_quotation_marks_are_a_csvs_only(tmp_path):
    cell = '"A ""cat"", sat."'
    csv_rows = read_labelled(write(tmp_path / "a.csv", [(cell, 1)], ("text", "label")))
    assert csv_rows[0].texts == ('A "cat", sat.',)
    tsv_rows = read_labelled(write(tmp_path / "a.tsv", [('A "cat', 1)], ("text", "label")))
    assert tsv_rows[0].texts == ('A "cat',)


@pytest.mark.parametrize("form", ["tsv", "csv", "jsonl"])
def test_a_text_may_be_a_book(tmp_path, form):
    book = "word " * 50_000
    rows = read_labelled(write(tmp_path / f"a.{form}", [(book + ".", "x")], ("text", "label")))
    assert [len(row.texts[0]) for row in rows] == [250_001]


def test_columns_are_found_by_usual_names_or_named(tmp_path):
    row = ("7", "A cat.", "A dog.", "x", "y")
    names = ("id", "premise", "hypothesis", "label", "story")
    path = write(tmp_path / "a.tsv", [row], names)
    (found,) = read_labelled(path)
    assert (found.texts, found.label) == (("A cat.", "A dog."), "x")
    (found,) = read_labelled(path, ["story"], "id")
    assert (found.texts, found.label) == (("y",), "7")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", "text\tlabel\n", r"a.txt: the name must end in .tsv, .csv or .jsonl"),
        ("a.tsv", "", r"a.tsv: the file is empty"),
        ("a.tsv", "text\tlabel\n", r"a.tsv: holds no row"),
        ("a.tsv", "text\tlabel\na\n", r"line 2: has 1 cells, where the first line has 2"),
        ("a.tsv", "text\tlabel\na\t1\n\nb\tc\td\n", r"line 4: has 3 cells"),
        ("a.tsv", "text\ttext\na\t1\n", r"line 1: two columns have one name"),
        ("a.tsv", "text\tlabel\n \t1\n", r"line 2: 'text' is empty"),
        ("a.tsv", "text\tlabel\na\t\n", r"line 2: 'label' is empty"),
        ("a.tsv", "a cat\tyes\na dog\tno\n", r"There are a cat, yes\. .*names the columns$"),
        ("a.tsv", "a\ta\nb\tc\n", r"one name: a\. A file whose first line is a row already"),
        (
            "a.jsonl",
            '{"text": "a", "label": true}\n',
            r"'label' is true, a JSON boolean.*number, 1",
        ),
        ("a.tsv", "story\tlabel\na\t1\n", r"which columns hold the texts\? There are story, label"),
        ("a.tsv", "text\tkind\na\t1\n", r"which column holds the label\? There are text, kind"),
        ("a.csv", 'text,label\n"a,1\n', r"a.csv, line 2: unexpected end"),
        ("a.jsonl", '{"text": "a", "label": 1}\n{"text"\n', r"a.jsonl, line 2, column 8: not JSON"),
        ("a.jsonl", "[1]\n", r"line 1: must be an object"),
        ("a.jsonl", '{"text": ["a"], "label": 1}\n', r"'text' must be a text or a number.*\['a'\]"),
        ("a.jsonl", '{"text": "a", "label": NaN}\n', r"a.jsonl, line 1: 'label' is nan"),
        ("a.jsonl", '{"text": "a", "label": null}\n', r"'label' must be a text or a number.*None"),
        ("a.jsonl", '{"text": "a", "label": 1}\n{"text": "a"}\n', r"line 2: there is no 'label'"),
        ("a.csv", b"text,label\na,\xff\n", r"a.csv, line 2: not UTF-8"),
    ],
)
def test_a_bad_row_is_named_with_its_line(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=message):
        read_labelled(path)


def labelled(*labels):
    return [Labelled(("a",), label, f"f, line {i}") for i, label in enumerate(labels, 1)]


@pytest.mark.parametrize(
    ("labels", "kind", "classes"),
    [
        (("yes", "no", "yes"), None, ("no", "yes")),
        (("10", "9", "-1"), None, ("-1", "9", "10")),
        (("0.5", "1", "2"), None, ()),
        (("1", "2"), "float", ()),
        (("0.5", "1.5"), "int", ("0.5", "1.5")),
        (("0.0", "1.0"), None, ()),
        (("0.5", "x"), "int", ("0.5", "x")),
    ],
)
def test_classes_or_numbers(labels, kind, classes):
    assert label_classes(labelled(*labels), labelled(labels[0]), kind) == classes


@pytest.mark.parametrize(
    ("train", "dev", "kind", "message"),
    [
        (("a", "a"), ("a",), None, r"f, line 1: all rows have one label, 'a'"),
        (("a", "b"), ("a", "c"), None, r"f, line 2: the label 'c' is none of the training's: a, b"),
        (("0.5", "1"), ("x",), None, r"f, line 1: the label must be a number. Received: 'x'"),
        (("3", "0.5", "n/a"), ("3",), None, r"f, line 3: .* as '0.5' is; --label_type int .*'n/a'"),
        (("1", "nan"), ("1",), "float", r"f, line 2: the label must be a number"),
    ],
)
def test_labels_that_cant_be_are_named(train, dev, kind, message):
    with pytest.raises(DataError, match=message):
        label_classes(labelled(*train), labelled(*dev), kind)


@pytest.mark.parametrize("numbers", [False, True])
def test_the_task_reads_the_texts_and_labels(tmp_path, vocab, numbers):
    labels = {"no": 0.25, "yes": 2.0} if numbers else {"no": 0, "yes": 1}
    rows = [(a, b, labels[c] if numbers else c) for a, b, c in PAIRS]
    train, dev = write(tmp_path / "train.tsv", rows), write(tmp_path / "dev.jsonl", rows[:3])
    output = tmp_path / "out"
    made = make_sentence_data(train, dev, vocab, output, Sentences(seq_length=16), processes=1)
    assert made == {"train": 10, "dev": 3} | ({} if numbers else {"classes": 2})
    assert (output / "labels.txt").read_text() == ("" if numbers else "no\nyes\n")
    tokenizer = tokenization.FullTokenizer(str(vocab))
    expected = sorted(
        (
            tokenizer.convert_tokens_to_ids(
                ["[CLS]", *tokenizer.tokenize(a), "[SEP]", *tokenizer.tokenize(b), "[SEP]"]
            ),
            labels[c],
        )
        for a, b, c in PAIRS
    )
    found = []
    for example in examples(output.glob("train-*.tfrecord")):
        length = example["input_mask"].sum()
        assert not example["input_ids"][length:].any() and len(example["input_ids"]) == 16
        found.append((list(example["input_ids"][:length]), float(example["label_ids"][0])))
    assert sorted(found) == expected
    task = task_of(
        "acclip/bert_sentence_prediction", yaml.safe_load((output / "data.yaml").read_text())
    )
    assert task.model is not None
    assert task.model.num_classes == (1 if numbers else 2)
    assert task.model.encoder.bert.vocab_size == len(vocab.read_text().split())
    task.validation_data.override({"global_batch_size": 3})
    batch = next(iter(task_factory.get_task(task).build_inputs(task.validation_data)))
    assert batch["input_word_ids"].shape == (3, 16)
    expected_labels = [labels[c] for *_, c in PAIRS[:3]]
    np.testing.assert_allclose(sorted(batch["label_ids"]), sorted(expected_labels))


def test_the_command_and_its_mistakes(tmp_path, vocab, capsys):
    train, dev = write(tmp_path / "train.csv", PAIRS), write(tmp_path / "dev.csv", PAIRS[:2])
    line = ["sentences", "--train", str(train), "--dev", str(dev), "--vocab", str(vocab)]
    line += ["--output", str(tmp_path / "out"), "--seq_length", "16", "--processes", "1"]
    assert command.main(line) == 0
    assert "10 train, 2 dev, 2 classes" in capsys.readouterr().out
    assert command.main([*line, "--label_field", "nope"]) == 2
    assert "line 2: there is no 'nope', but sentence1" in capsys.readouterr().err
    assert command.main([*line, "--seq_length", "7"]) == 2
    assert "`seq_length` must be at least 8" in capsys.readouterr().err
    assert command.main([*line, "--text_fields", "a", "b", "c"]) == 2
    assert "--text_fields takes one name, or two" in capsys.readouterr().err
    write(tmp_path / "train.csv", [(a, b, f"{c} {i}") for i, (a, b, c) in enumerate(PAIRS)])
    write(dev, [(*PAIRS[0][:2], "no 0")])
    assert command.main(line) == 2
    assert len(capsys.readouterr().err.replace(str(tmp_path), "")) < 200
    line[line.index("--output") + 1] = str(tmp_path / "numbers")
    for path in (train, dev):
        write(path, [(*pair[:2], i + 0.0) for i, pair in enumerate(PAIRS)])
    assert command.main(line) == 0
    assert "labels: numbers to predict" in capsys.readouterr().err


def test_dev_has_the_columns_of_train(tmp_path, vocab, capsys):
    def said(dev_rows, dev_fields, *options):
        train = write(tmp_path / "train.csv", PAIRS)
        dev = write(tmp_path / "dev.csv", dev_rows, dev_fields)
        line = ["sentences", "--train", str(train), "--dev", str(dev), "--vocab", str(vocab)]
        line += ["--output", str(tmp_path / "out"), "--seq_length", "16", "--processes", "1"]
        return command.main([*line, *options]), capsys.readouterr().err

    status, error = said([("a b", "x")], ("text", "label"))
    assert status == 2 and "dev.csv, line 2: there is no 'sentence1', but text, label" in error
    status, error = said([("a", "b", "x")], ("sentence1", "sentence2", "labels"))
    assert status == 2 and "dev.csv, line 2: there is no 'label', but" in error
    # Other usual columns in the dev file don't count.
    columns = ("premise", "hypothesis", "sentence1", "sentence2", "label")
    status, error = said([("p", "h", *PAIRS[0])], columns)
    assert status == 0, error


def test_usual_columns_in_capitals(tmp_path):
    path = write(tmp_path / "a.csv", [("a b", "x")], ("Sentence", "LABEL"))
    (found,) = read_labelled(path)
    assert found.texts == ("a b",) and found.columns == ("Sentence", "LABEL")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "text;label\nHello, you;x\n", "line 1: .* commas between them.*'text;label'"),
        ("a.tsv", "text,label\nHello,x\n", "line 1: .* tabs between them.*'text,label'"),
        ("a.csv", "text\nHello\n", "line 1: the first line must name two columns or more"),
        ("a.json", '[{"text": "a", "label": 1}]', "line 1: must be an object .* not a list"),
        (
            "a.json",
            '\n [\n{"text": "a", "label": 1}\n]\n',
            "line 2: must be an object .* not a list",
        ),
    ],
)
def test_the_form_that_is_needed_is_named(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message):
        read_labelled(tmp_path / name)


def test_all_files_that_cant_be_used_are_named_at_once(tmp_path):
    (tmp_path / "train.tsv").write_text("a cat\tyes\n", "utf-16")
    (tmp_path / "dev.tsv").write_text("text\tlabel\na\t\n")
    (tmp_path / "vocab.txt").write_text("\n".join(SPECIAL_TOKENS))
    with pytest.raises(DataError) as error:
        make_sentence_data(
            *(tmp_path / name for name in ("train.tsv", "dev.tsv", "vocab.txt", "made"))
        )
    first, train, dev = str(error.value).splitlines()
    assert first == "2 input files can't be used:"
    assert train.endswith("train.tsv: UTF-16 text: save it as UTF-8")
    assert dev.endswith("dev.tsv, line 2: 'label' is empty")


@pytest.mark.parametrize(
    ("text_fields", "label_field", "message"),
    [
        (("text", "text"), None, r"one name, or two different ones. Received: 'text', 'text'"),
        (("",), None, r"one name, or two different ones. Received: ''"),
        (("text",), "text", r"a column that holds no text. Received: 'text'"),
        ((), "", r"a column that holds no text. Received: ''"),
        (("label",), None, r"which column holds the label\? There are text, label"),
        ((), "text", r"which columns hold the texts\? There are text, label"),
    ],
)
def test_a_label_is_no_text(tmp_path, text_fields, label_field, message):
    for name in ("train.tsv", "dev.tsv"):
        (tmp_path / name).write_text("text\tlabel\na\t1\nb\t0\n")
    (tmp_path / "vocab.txt").write_text("\n".join(SPECIAL_TOKENS))
    files = (tmp_path / name for name in ("train.tsv", "dev.tsv", "vocab.txt", "made"))
    with pytest.raises(DataError, match=message):
        make_sentence_data(*files, text_fields=text_fields, label_field=label_field)
