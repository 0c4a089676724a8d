"""SQuAD's JSON files: read, and every question and answer checked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

from keras_acclip.garden.data.shards import DataError
from keras_acclip.text.corpus import TextError, read_text

Article: TypeAlias = dict[str, Any]
"""One of the objects under `data`: a title, and paragraphs with their questions."""


def read_squad(
    path: str | Path, one_answer: bool = False, skip_unanswerable: bool = False
) -> list[Article]:
    """The articles of a SQuAD v1.1 file, after checking every question and answer.

    Args:
        path: A JSON file, plain UTF-8 or gzip.
        one_answer: Whether each question must have exactly one answer, as training needs it.
        skip_unanswerable: Whether questions without an answer are left out; SQuAD v2.0 has such.

    Returns:
        The list under `data`.

    Raises:
        DataError: If the file can't be read, is not JSON or not in SQuAD's form, has no question, a
            question's id twice, or an answer that does not stand in its context where it says.

    Example:

    >>> import json, tempfile
    >>> from pathlib import Path
    >>> from keras_acclip.garden.data import read_squad
    >>> answer = {"text": "A cat", "answer_start": 0}
    >>> question = {"id": "1", "question": "Who sat?", "answers": [answer]}
    >>> articles = [{"title": "cats", "paragraphs": [{"context": "A cat sat.", "qas": [question]}]}]
    >>> path = Path(tempfile.mkdtemp(), "train.json")
    >>> _ = path.write_text(json.dumps({"version": "1.1", "data": articles}))
    >>> read_squad(path)[0]["title"]
    'cats'
    """
    path = Path(path)
    try:
        content = json.loads(read_text(path))
    except TextError as error:
        raise DataError(str(error)) from error
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path}, line {error.lineno}, column {error.colno}: not JSON: {error.msg}"
        ) from error
    except RecursionError:
        raise DataError(f"{path}: too many brackets within brackets") from None
    checker = _Checker(path, one_answer, skip_unanswerable)
    articles = checker.item(content, "data", list, "the file")
    for a, article in enumerate(articles):
        checker.article(article, f"data[{a}]")
    if not checker.places:
        raise DataError(f"{path}: holds no question")
    return articles


class _Checker:
    """Goes through a file's questions; `places` tells where each id was seen."""

    def __init__(self, path: Path, one_answer: bool, skip_unanswerable: bool) -> None:
        self.path, self.one_answer = path, one_answer
        self.skip_unanswerable = skip_unanswerable
        self.places: dict[str, str] = {}

    def fail(self, place: str, fault: str) -> NoReturn:
        raise DataError(f"{self.path}: {place}: {fault}")

    def item(self, parent: object, name: str, kind: type, place: str) -> Any:
        if not isinstance(parent, dict):
            self.fail(place, "must be an object")
        if name not in parent:
            self.fail(place, f"has no {name!r}")
        value = parent[name]
        if not isinstance(value, kind) or isinstance(value, bool):
            names = {list: "a list", str: "a string", int: "a whole number"}
            self.fail(place, f"{name!r} must be {names[kind]}")
        return value

    def article(self, article: object, place: str) -> None:
        for p, paragraph in enumerate(self.item(article, "paragraphs", list, place)):
            at = f"{place}.paragraphs[{p}]"
            context = self.item(paragraph, "context", str, at)
            if not context.strip():
                self.fail(at, "the context is empty")
            questions = list(enumerate(self.item(paragraph, "qas", list, at)))
            if self.skip_unanswerable:
                questions = [(q, each) for q, each in questions if not _is_unanswerable(each)]
                paragraph["qas"] = [each for _, each in questions]
            for q, question in questions:
                self.question(question, context, f"{at}.qas[{q}]")

    def question(self, question: dict[str, Any], context: str, place: str) -> None:
        name = self.item(question, "id", str, place)
        place = f"question {name} ({place})"
        if name in self.places:
            self.fail(place, f"{self.places[name]} has the same id")
        self.places[name] = place
        if not self.item(question, "question", str, place).strip():
            self.fail(place, "the question is empty")
        answers = self.item(question, "answers", list, place)
        if _is_unanswerable(question):
            self.fail(
                place,
                "has no answer; SQuAD v1.1 has one for each question, and --skip_unanswerable "
                "leaves the others out",
            )
        if self.one_answer and len(answers) != 1:
            self.fail(place, f"has {len(answers)} answers; for training there must be one")
        for answer in answers:
            self.answer(answer, context, place)

    def answer(self, answer: object, context: str, place: str) -> None:
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


def _is_unanswerable(question: object) -> bool:
    """Whether a question says that it has no answer."""
    if not isinstance(question, dict):
        return False
    return bool(question.get("is_impossible")) or question.get("answers") == []


def count_questions(articles: list[Article]) -> int:
    """Number of questions in a list of articles."""
    return sum(len(p["qas"]) for article in articles for p in article["paragraphs"])


def deal_paragraphs(articles: list[Article], count: int) -> list[list[Article]]:
    """The paragraphs in at most `count` lists of articles, dealt out in turn."""
    paragraphs = [p for article in articles for p in article["paragraphs"] if p["qas"]]
    count = min(count, len(paragraphs))
    return [[{"paragraphs": paragraphs[i::count]}] for i in range(count)]
