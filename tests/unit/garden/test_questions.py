import random

import pytest

from keras_acclip.garden.data import questions
from keras_acclip.garden.data.shards import DataError
from keras_acclip.garden.data.squad_files import count_questions, read_squad
from keras_acclip.text import corpus as texts
from tests.unit.garden.samples import docstrings

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


@pytest.mark.parametrize("seed", range(3))
def test_questions_are_squad_with_a_part_that_is_held_out(tmp_path, seed):
    corpus = texts.Corpus(
        "random", docstrings(seed, 40), docstrings(seed + 9, 9) + docstrings(seed, 2)
    )
    counts = questions.make_questions(corpus, tmp_path, 50, 1000, seed)
    parts = {name: read_squad(tmp_path / f"{name}.json", True) for name in ("train", "dev")}
    assert counts == {f"{n} questions": count_questions(p) for n, p in parts.items()}
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
