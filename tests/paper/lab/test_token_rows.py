import itertools

import keras_hub
import numpy as np
import pytest
from lab import options as shared
from lab import script, token_rows

from keras_acclip.text import corpus
from keras_acclip.text.vocabulary import learn_vocabulary


@pytest.fixture(scope="module")
def vocabulary(english):
    return learn_vocabulary([english.read_text("utf-8")], 600)


def test_rows_hold_the_documents_tokens_in_order(vocabulary, english):
    tokenizer = keras_hub.tokenizers.WordPieceTokenizer(
        vocabulary, lowercase=True, strip_accents=True
    )
    text = english.read_text("utf-8")
    documents = [text[:5000], "", text[5000:5100], text[5100:30000]]
    rows = token_rows.rows(documents, vocabulary, 16)
    assert rows.dtype == "int32"
    assert rows.shape[1] == 16
    assert (rows[:, 0] == 1).all()
    assert (rows[:, -1] == 2).all()
    stream = itertools.chain.from_iterable([*np.array(tokenizer(d)), 2] for d in documents)
    expected = list(stream)
    assert len(expected) - rows[:, 1:-1].size < 14
    np.testing.assert_array_equal(rows[:, 1:-1].ravel(), expected[: rows[:, 1:-1].size])
    assert (rows == 3).mean() < 1e-3


def test_rows_of_too_little_text_are_none(vocabulary):
    assert token_rows.rows([], vocabulary, 16).shape == (0, 16)
    assert token_rows.rows(["the"], vocabulary, 16).shape == (0, 16)


def test_token_rows_are_made_once(english, tmp_path, monkeypatch):
    text = corpus.text_files([english])
    made = token_rows.token_rows(text, 600, 16, tmp_path)
    monkeypatch.setattr(token_rows, "learn_vocabulary", lambda *_: pytest.fail("learned again"))
    read = token_rows.token_rows(text, 600, 16, tmp_path)
    np.testing.assert_array_equal(read.train, made.train)
    np.testing.assert_array_equal(read.validation, made.validation)
    assert read.vocabulary == made.vocabulary
    for other in ((600, 18), (601, 16)):
        with pytest.raises(pytest.fail.Exception):
            token_rows.token_rows(text, *other, tmp_path)


@pytest.fixture
def load(tmp_path):
    def run(*arguments):
        sizes = {"vocabulary_size": 600, "sequence_length": 16, "batch_size": 8}
        parser = script.parser("doc", {"small": sizes}, tmp_path)
        shared.add_text(parser)
        arguments = [str(argument) for argument in ("--cache", tmp_path, *arguments)]
        return token_rows.load(script.parse(parser, {"small": sizes}, arguments))

    return run


@pytest.mark.slow
def test_the_command_lines_text_is_loaded(load, english, tmp_path):
    whole = load("--text", english)
    expected = token_rows.token_rows(corpus.text_files([english]), 600, 16, tmp_path)
    np.testing.assert_array_equal(whole.train, expected.train)
    np.testing.assert_array_equal(whole.validation, expected.validation)
    apart = load("--text", english, "--validation-text", english)
    np.testing.assert_array_equal(apart.train, apart.validation)


def test_unusable_text_is_an_error_that_says_why(load, tmp_path):
    short = tmp_path / "short.txt"
    short.write_text("A few words, and no more than that.\n" * 3)
    with pytest.raises(corpus.TextError, match=r"short\.txt: too short: the training text makes"):
        load("--text", short)
