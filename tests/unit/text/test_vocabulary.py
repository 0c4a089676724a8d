import pytest

from keras_acclip.text.vocabulary import (
    SPECIAL_TOKENS,
    VocabularyError,
    learn_vocabulary,
    read_vocabulary,
)


@pytest.fixture(scope="module")
def vocabulary(english):
    return learn_vocabulary([english.read_text("utf-8")], 600)


def test_vocabulary_starts_with_the_special_tokens(vocabulary, english):
    assert tuple(vocabulary[:5]) == SPECIAL_TOKENS
    assert 300 < len(vocabulary) <= 600
    assert len(set(vocabulary)) == len(vocabulary)
    assert "the" in vocabulary
    assert learn_vocabulary([english.read_text("utf-8")], 600) == vocabulary


def test_a_cased_vocabulary_keeps_capitals(english):
    text = english.read_text("utf-8")
    cased = learn_vocabulary([text], 600, lower_case=False)
    assert "The" in cased
    assert "The" not in learn_vocabulary([text], 600)


def test_a_written_vocabulary_is_read_back(vocabulary, tmp_path):
    path = tmp_path / "vocab.txt"
    for end in ("\n", "\r\n"):
        path.write_bytes("".join(token + end for token in vocabulary).encode())
        assert read_vocabulary(path) == vocabulary
    for encoding in ("utf-8", "utf-8-sig"):
        path.write_text("\n".join(vocabulary), encoding)
        assert read_vocabulary(path) == vocabulary
    path.write_text("\n".join(vocabulary), "utf-16")
    with pytest.raises(VocabularyError, match=r"UTF-16 text: save it as UTF-8"):
        read_vocabulary(path)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (None, "vocab.txt: can't be read: No such file"),
        ([], "vocab.txt: the file is empty"),
        ([*SPECIAL_TOKENS, "a", "", "b"], "line 7: no token"),
        ([*SPECIAL_TOKENS, "a", "b", "a"], "line 8: a stands on line 6"),
        (["[PAD]", "[CLS]", "[UNK]", "a"], r"vocab.txt: the vocabulary lacks \[SEP\], \[MASK\]"),
        (["a", *SPECIAL_TOKENS], r"line 2: \[PAD\] must be the first token"),
        ([*SPECIAL_TOKENS, "caf\udce9"], "line 6: not UTF-8 text"),
    ],
)
def test_a_vocabulary_that_bert_cannot_use_is_refused(tmp_path, lines, message):
    path = tmp_path / "vocab.txt"
    if lines is not None:
        path.write_bytes("".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape"))
    with pytest.raises(VocabularyError, match=message):
        read_vocabulary(path)
