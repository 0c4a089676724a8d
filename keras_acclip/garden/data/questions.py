"""Extractive questions made from a technical text by templates, in SQuAD v1.1's form.

The text is what docstrings are: lists of arguments with their types, meanings and defaults, what is
returned or raised, definitions. A template finds statements of one kind and asks for a part of
each. All but two kinds are asked only where a passage holds several statements of that kind, so
that the question, not the kind alone, decides which one answers it.
"""

from __future__ import annotations

import collections
import dataclasses
import json
import random
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from keras_acclip.garden.data import shards
from keras_acclip.garden.data.shards import DataError
from keras_acclip.garden.data.squad_files import Article
from keras_acclip.text.corpus import Corpus

_PASSAGE = (50, 110)  # words
_MOST = 4  # questions of a passage
_HEADINGS = "Args|Arguments|Examples?|Notes?|Raises|Returns?|Yields?"
_ARGUMENT = rf"^[ ]*(?!(?:{_HEADINGS}|\w+(?:Error|Exception|Warning))\b)(?P<{{}}>[A-Za-z_]\w*)"
_MEANING = r"(?P<{}>[A-Za-z`'\"][^.:;]{{7,79}}?)(?=[.;]|,\s|\s\()"


@dataclass(frozen=True)
class Template:
    """A kind of statement, and the question that asks for a part of it.

    Attributes:
        pattern: Regular expression of the statement, with the groups `key` and `answer`.
        question: The question, `{key}` in it.
        several: Whether it is asked only where a passage holds several such statements.
    """

    pattern: str
    question: str
    several: bool = True

    def statements(self, text: str) -> list[re.Match[str]]:
        """The matches in `text` whose key no other of them has."""
        found = list(re.finditer(self.pattern, text, re.MULTILINE))
        keys = [plain(match["key"]) for match in found]
        return [match for match, key in zip(found, keys, strict=True) if keys.count(key) == 1]


TEMPLATES = (
    Template(_ARGUMENT.format("key") + r":\s+" + _MEANING.format("answer"), "What is {key}?"),
    Template(
        _ARGUMENT.format("answer") + r":\s+" + _MEANING.format("key"), "What is called {key}?"
    ),
    Template(_ARGUMENT.format("key") + r" : (?P<answer>\S.{2,59})$", "What is {key}?"),
    Template(
        _ARGUMENT.format("key") + r":\s[^:]*?\b[Dd]efaults?\sto\s(?P<answer>`[^`]+`|\w+)",
        "What does {key} default to?",
    ),
    Template(
        r"(?P<answer>\b[A-Z]\w+(?:Error|Exception|Warning))\b:?\s+[Ii]f\s(?P<key>[^.;:]{8,80})",
        "What is raised if {key}?",
    ),
    Template(
        r"(?:^|\.\s+)(?P<key>(?:The|A|An|This)\s[\w`' -]{3,40}?)\s(?:is|are)\s"
        r"(?P<answer>[^.,;:()]{8,80}?)(?=[.,;])",
        "What is {key}?",
        several=False,
    ),
    Template(
        r"^[ ]*(?P<key>Returns?)\b:?\s+(?P<answer>[A-Za-z`][^.:;]{7,79}?)(?=[.;]|,\s|\s\()",
        "What is returned?",
        several=False,
    ),
)


@dataclass(frozen=True, order=True)
class Question:
    """A question about a passage.

    Attributes:
        text: The question.
        answer: Its answer.
        start: Where the answer starts in the context.
        kind: Number of the template.
        statement: Where the statement starts in the passage.
    """

    text: str
    answer: str
    start: int
    kind: int
    statement: int


def plain(text: str) -> str:
    """`text` with single spaces for any white space."""
    return " ".join(text.split())


def passages(document: str, rng: random.Random) -> Iterator[str]:
    """Cuts a text at line ends into passages of 50 to 110 words, and gives those of prose."""
    lines: list[str] = []
    words, most = 0, rng.randint(*_PASSAGE)
    for line in [*document.splitlines(), None]:
        if line is None or words >= most:
            passage = "\n".join(lines)
            if words >= _PASSAGE[0] and _is_prose(passage):
                yield passage
            lines, words, most = [], 0, rng.randint(*_PASSAGE)
        if line is not None:
            lines.append(line)
            words += len(line.split())


def _is_prose(text: str) -> bool:
    letters = sum(character.isalpha() or character.isspace() for character in text)
    return ">>>" not in text and letters > 0.8 * len(text)


def ask(passage: str) -> tuple[str, list[Question]]:
    """The questions about a passage, by template.

    Args:
        passage: A text with its lines as they stand in a docstring.

    Returns:
        The context, which is the passage with single spaces, and a list of `Question`s.
    """
    context, asked = plain(passage), []
    for number, template in enumerate(TEMPLATES):
        found = template.statements(passage)
        if len(found) < 1 + template.several:
            continue
        for match in found:
            answer = plain(match["answer"])
            before = passage[: match.start("answer")]
            start = len(plain(before)) + bool(before and before[-1].isspace() and plain(before))
            question = template.question.format(key=plain(match["key"]))
            if re.search(r"\w", answer) and context[start:].startswith(answer):
                asked.append(Question(question, answer, start, number, match.start()))
    return context, asked


def choose(questions: Sequence[Question], most: int, rng: random.Random) -> list[Question]:
    """At most `most` of a passage's questions: of many kinds, each about another statement."""
    chosen, statements, kinds = [], set[int](), collections.Counter[int]()
    for question in rng.sample(questions, len(questions)):
        if question.statement not in statements:
            statements.add(question.statement)
            chosen.append((kinds[question.kind], len(chosen), question))
            kinds[question.kind] += 1
    return [question for *_, question in sorted(chosen)[:most]]


@dataclass
class _Part:
    """One part of the set: articles in SQuAD's form, and the statements that it asks about."""

    articles: list[Article] = dataclasses.field(default_factory=list)
    statements: set[tuple[str, str]] = dataclasses.field(default_factory=set)
    count: int = 0


def _gather(
    name: str,
    documents: Sequence[str],
    most: int,
    seed: int,
    excluded: Collection[tuple[str, str]],
) -> _Part:
    """At most `most` questions about the documents, none about the statements `excluded`."""
    rng, part, seen = random.Random(f"{seed}-{name}"), _Part(), set[str]()
    found = []
    for number, document in enumerate(documents):
        for passage in passages(document, rng):
            context, asked = ask(passage)
            asked = [q for q in asked if (q.text, q.answer) not in excluded]
            if asked and context not in seen:
                seen.add(context)
                found.append((number, context, asked))
    rng.shuffle(found)
    for number, context, asked in found:
        questions = []
        for question in choose(asked, min(_MOST, most - part.count), rng):
            part.count += 1
            part.statements.add((question.text, question.answer))
            answer = {"text": question.answer, "answer_start": question.start}
            questions.append(
                {"id": f"{name}-{part.count}", "question": question.text, "answers": [answer]}
            )
        if questions:
            paragraph = {"context": context, "qas": questions}
            part.articles.append({"title": f"document {number}", "paragraphs": [paragraph]})
    return part


def make_questions(
    corpus: Corpus,
    output: str | Path,
    train_questions: int = 10_000,
    dev_questions: int = 1000,
    seed: int = 12345,
) -> dict[str, int]:
    """Makes a set of questions about a text, with a held-out part, as SQuAD v1.1 files.

    Args:
        corpus: A `keras_acclip.text.corpus.Corpus`; questions about its held-out documents, less
            those that the other ones answer alike, make the dev part.
        output: Folder that gets `train.json` and `dev.json`.
        train_questions: Most questions to train on. Defaults to 10,000.
        dev_questions: Most questions to evaluate on. Defaults to 1,000.
        seed: Of the choice of passages and questions. Defaults to 12345.

    Returns:
        dict of the numbers of `"train questions"` and `"dev questions"`.

    Raises:
        DataError: If the text answers no question, or the output can't be written.

    Example:

    >>> import tempfile
    >>> from keras_acclip.garden.data import make_questions
    >>> from keras_acclip.text.corpus import Corpus
    >>> text = (
    ...     "The cat is a small animal of the house, which sleeps by day. When it rains, it "
    ...     "stays where the stove is warm, and looks at the wet garden for a long time. In the "
    ...     "morning it waits at the door, for someone will come with a bowl of warm milk. "
    ...     "Nobody has taught it that."
    ... )
    >>> corpus = Corpus("animals", (text,), (text.replace("cat", "hedgehog"),))
    >>> make_questions(corpus, tempfile.mkdtemp())
    {'train questions': 1, 'dev questions': 1}
    """
    train = _gather("train", corpus.train, train_questions, seed, frozenset())
    dev = _gather("dev", corpus.validation, dev_questions, seed, train.statements)
    for name, part in (("train", train), ("dev", dev)):
        if not part.count:
            raise DataError(
                f"{corpus.name}: the {name} part has no passage with statements to ask for"
            )
    for name, part in (("train", train), ("dev", dev)):
        dataset = {"version": "1.1", "data": part.articles}
        text = json.dumps(dataset, ensure_ascii=False, indent=1) + "\n"
        shards.write_file(Path(output) / f"{name}.json", text)
    return {"train questions": train.count, "dev questions": dev.count}
