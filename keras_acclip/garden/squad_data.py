"""Question-answering data: SQuAD v1.1's JSON files, checked, to TFRecords, by `squad_lib`."""

import json
import tempfile
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import yaml

from keras_acclip.text.corpus import cache_key
from keras_acclip.garden import shards
from keras_acclip.garden.shards import DataError
from keras_acclip._utils.processes import available_cpus
from keras_acclip.text.vocabulary import read_vocabulary

_SHARD = 5000  # questions


@dataclass(frozen=True)
class Windows:
    """How a question and its context become examples: the BERT paper's values for SQuAD.

    Attributes:
        seq_length: Tokens of an example. Defaults to 384.
        query_length: Most tokens of the question. Defaults to 64.
        doc_stride: Step between the windows into which a longer context is cut. Defaults to 128.
        lower_case: Whether the text is put in lower case. Defaults to `True`.

    Raises:
        ValueError: If a value is not above 0, or leaves no room for the context.
    """

    seq_length: int = 384
    query_length: int = 64
    doc_stride: int = 128
    lower_case: bool = True

    def __post_init__(self):
        for name in ("seq_length", "query_length", "doc_stride"):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"Argument `{name}` must be above 0. Received: {getattr(self, name)}"
                )
        if self.seq_length - self.query_length - 3 < 1:
            raise ValueError(
                f"Argument `seq_length` must be above query_length + 3 = {self.query_length + 3}, "
                f"to have room for the context. Received: {self.seq_length}"
            )


def read_squad(path, one_answer=False):
    """The articles of a SQuAD v1.1 file, after checking every question and answer.

    Args:
        path: A JSON file.
        one_answer: Whether each question must have exactly one answer, as training needs it.

    Returns:
        The list under `data`.

    Raises:
        DataError: If the file can't be read, is not JSON or not in SQuAD's form, has no question, a
            question's id twice, or an answer that does not stand in its context where it says.
    """
    path = Path(path)
    try:
        content = json.loads(path.read_bytes().decode("utf-8"))
    except OSError as error:
        raise DataError(f"{path}: can't be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise DataError(f"{path}, line {line}: not UTF-8 text: {error}") from error
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path}, line {error.lineno}, column {error.colno}: not JSON: {error.msg}"
        ) from error
    checker = _Checker(path, one_answer)
    articles = checker.item(content, "data", list, "the file")
    for a, article in enumerate(articles):
        checker.article(article, f"data[{a}]")
    if not checker.places:
        raise DataError(f"{path}: holds no question")
    return articles


class _Checker:
    """Goes through a file's questions; `places` tells where each id was seen."""

    def __init__(self, path, one_answer):
        self.path, self.one_answer, self.places = path, one_answer, {}

    def fail(self, place, fault):
        raise DataError(f"{self.path}: {place}: {fault}")

    def item(self, parent, name, kind, place):
        if not isinstance(parent, dict):
            self.fail(place, "must be an object")
        if name not in parent:
            self.fail(place, f"has no {name!r}")
        value = parent[name]
        if not isinstance(value, kind) or isinstance(value, bool):
            names = {list: "a list", str: "a string", int: "a whole number"}
            self.fail(place, f"{name!r} must be {names[kind]}")
        return value

    def article(self, article, place):
        for p, paragraph in enumerate(self.item(article, "paragraphs", list, place)):
            at = f"{place}.paragraphs[{p}]"
            context = self.item(paragraph, "context", str, at)
            if not context.strip():
                self.fail(at, "the context is empty")
            for q, question in enumerate(self.item(paragraph, "qas", list, at)):
                self.question(question, context, f"{at}.qas[{q}]")

    def question(self, question, context, place):
        name = self.item(question, "id", str, place)
        place = f"question {name} ({place})"
        if name in self.places:
            self.fail(place, f"{self.places[name]} has the same id")
        self.places[name] = place
        self.item(question, "question", str, place)
        answers = self.item(question, "answers", list, place)
        if question.get("is_impossible") or not answers:
            self.fail(place, "has no answer; SQuAD v1.1 has one for each question")
        if self.one_answer and len(answers) != 1:
            self.fail(place, f"has {len(answers)} answers; for training there must be one")
        for answer in answers:
            self.answer(answer, context, place)

    def answer(self, answer, context, place):
        text = self.item(answer, "text", str, place)
        start = self.item(answer, "answer_start", int, place)
        if not text.strip():
            self.fail(place, "the answer is empty")
        found = context[start : start + len(text)] if start >= 0 else ""
        if found != text:
            at = context.find(text)
            where = f"it stands at {at}" if at >= 0 else "it is nowhere in it"
            self.fail(
                place, f"the answer {text!r} does not stand at {start} in the context; {where}"
            )


def make_squad_data(train, dev, vocab, output, windows=None, processes=None):
    """Makes a folder with all that `acclip/bert_squad` needs to train and to evaluate.

    Stopped by whatever means and started again with the same arguments, it goes on with the shards
    that are missing.

    Args:
        train: A SQuAD v1.1 file to train on.
        dev: A SQuAD v1.1 file to evaluate on.
        vocab: The vocabulary file that the encoder was pretrained with.
        output: Folder to make. It gets `vocab.txt`, `dev.json`, the shards
            `train-00000-of-00018.tfrecord` and so on, and last `data.yaml`, for `--config_file`.
        windows: A `Windows`. Defaults to `Windows()`.
        processes: Number of processes. Defaults to the CPUs that this process may use.

    Returns:
        dict of the numbers of `"train"` examples and of `"train questions"` and `"dev questions"`.

    Raises:
        DataError: If a file is not SQuAD v1.1, or the output can't be written or gets other data.
        keras_acclip.text.vocabulary.VocabularyError: If the vocabulary file can't be used.
    """
    output, windows = Path(output), windows or Windows()
    vocabulary = read_vocabulary(vocab)
    articles = {"train": read_squad(train, one_answer=True), "dev": read_squad(dev)}
    questions = {f"{part} questions": count_questions(found) for part, found in articles.items()}
    parts = deal_paragraphs(articles["train"], -(-questions["train questions"] // _SHARD))
    settings = {
        "data": "SQuAD",
        **{part: cache_key(found) for part, found in articles.items()},
        "vocabulary": cache_key(vocabulary),
        **asdict(windows),
        "tf-models-official": version("tf-models-official"),
    }
    with shards.claimed(output, settings):
        shards.write_file(output / "vocab.txt", "".join(f"{token}\n" for token in vocabulary))
        dataset = {"version": "1.1", "data": articles["dev"]}
        shards.write_file(output / "dev.json", json.dumps(dataset, ensure_ascii=False) + "\n")
        paths = shards.paths(output, "train", len(parts))
        vocab = str(output / "vocab.txt")
        tasks = {path: (part, vocab, windows) for path, part in zip(paths, parts, strict=True)}
        examples = shards.make_missing(
            _write_examples, tasks, processes or available_cpus(), "train"
        )
        config = _config(output, len(parts), len(vocabulary), windows)
        notes = f"# {examples} train examples\n"
        shards.write_file(output / "data.yaml", notes + yaml.safe_dump(config, sort_keys=False))
    return {"train": examples, **questions}


def count_questions(articles):
    """Number of questions in a list of articles."""
    return sum(len(p["qas"]) for article in articles for p in article["paragraphs"])


def deal_paragraphs(articles, count):
    """The paragraphs in at most `count` lists of articles, dealt out in turn."""
    paragraphs = [p for article in articles for p in article["paragraphs"] if p["qas"]]
    count = min(count, len(paragraphs))
    return [[{"paragraphs": paragraphs[i::count]}] for i in range(count)]


def _write_examples(path, task):
    from official.nlp.data import squad_lib

    articles, vocab, windows = task
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", suffix=".json") as file:
        json.dump({"data": articles}, file)
        file.flush()
        squad_lib.generate_tf_record_from_json_file(
            file.name,
            vocab,
            path,
            max_seq_length=windows.seq_length,
            do_lower_case=windows.lower_case,
            max_query_length=windows.query_length,
            doc_stride=windows.doc_stride,
        )


def _config(output, count, vocabulary_size, windows):
    """The Model Garden's config of these data."""
    output = output.resolve()
    both = {
        "seq_length": windows.seq_length,
        "query_length": windows.query_length,
        "doc_stride": windows.doc_stride,
        "do_lower_case": windows.lower_case,
        "vocab_file": str(output / "vocab.txt"),
        "version_2_with_negative": False,
    }
    train = {"input_path": shards.pattern(output, "train", count), "is_training": True}
    # The task reads the questions themselves, and needs every one to be answered.
    dev = {"input_path": str(output / "dev.json"), "is_training": False, "drop_remainder": False}
    return {
        "task": {
            "model": {"encoder": {"type": "bert", "bert": {"vocab_size": vocabulary_size}}},
            "train_data": train | both,
            "validation_data": dev | both,
        }
    }
