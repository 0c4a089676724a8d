"""WordPiece vocabularies: learned from text, or read from a file and checked."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from keras_acclip.text.corpus import TextError, read_text

SPECIAL_TOKENS = ("[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]")

_SAMPLE = 2_500_000  # characters


class VocabularyError(ValueError):
    """A vocabulary that BERT can't use; the message names the file and the line.

    Example:

    >>> import tempfile
    >>> from pathlib import Path
    >>> from keras_acclip.text.vocabulary import VocabularyError, read_vocabulary
    >>> path = Path(tempfile.mkdtemp(), "vocab.txt")
    >>> _ = path.write_text("[PAD]\\n[UNK]\\n[CLS]\\n[SEP]\\ncat\\n")
    >>> try:
    ...     read_vocabulary(path)
    ... except VocabularyError as error:
    ...     print(str(error).partition(": ")[2])
    the vocabulary lacks [MASK]
    """


def learn_vocabulary(documents: Iterable[str], size: int, lower_case: bool = True) -> list[str]:
    """A WordPiece vocabulary for BERT, learned by TensorFlow Text.

    Learned from evenly spread documents of about 2.5 million characters, as the time that it takes
    grows with the number of different words, and a longer sample hardly shortens the rows.

    Args:
        documents: Strings with at least one word among them.
        size: Most tokens that the vocabulary may hold, the special ones included.
        lower_case: Whether the text will be put in lower case, its accents stripped, before it is
            cut into tokens. Defaults to `True`.

    Returns:
        The tokens, `SPECIAL_TOKENS` first. A token's id is its place in the list.

    Example:

    >>> from keras_acclip.text.vocabulary import learn_vocabulary
    >>> tokens = learn_vocabulary(["the cat sat on the mat"] * 20, size=50)
    >>> tokens[:5]
    ['[PAD]', '[CLS]', '[SEP]', '[UNK]', '[MASK]']
    """
    try:
        import tensorflow as tf
        from tensorflow_text.tools.wordpiece_vocab import bert_vocab_from_dataset
    except ImportError as error:
        raise ImportError(
            "Learning a vocabulary needs TensorFlow Text: pip install 'keras-acclip[garden]'"
        ) from error

    documents = list(documents)
    characters = sum(map(len, documents))
    documents = documents[:: max(1, characters // _SAMPLE)]
    vocabulary = bert_vocab_from_dataset.bert_vocab_from_dataset(
        tf.data.Dataset.from_tensor_slices(documents).batch(64),
        vocab_size=size,
        reserved_tokens=list(SPECIAL_TOKENS),
        bert_tokenizer_params={"lower_case": lower_case},
        learn_params={
            # No more than n / size tokens occur size times each, so the search can start there.
            "upper_thresh": max(2, min(characters, _SAMPLE) // size),
            "lower_thresh": 2,
            "num_iterations": 2,
        },
    )
    return vocabulary[:size]


def read_vocabulary(path: str | Path) -> list[str]:
    """The tokens of a BERT vocabulary file, one a line, after checking that BERT can use it.

    Args:
        path: A UTF-8 text file, with or without a byte order mark.

    Returns:
        The tokens. A token's id is its place in the list.

    Raises:
        VocabularyError: If the file can't be read, is not UTF-8, has an empty line or a token
            twice, lacks one of `SPECIAL_TOKENS`, or does not start with [PAD], whose id BERT's
            data take to be 0.

    Example:

    >>> import tempfile
    >>> from pathlib import Path
    >>> from keras_acclip.text.vocabulary import read_vocabulary
    >>> path = Path(tempfile.mkdtemp(), "vocab.txt")
    >>> _ = path.write_text("[PAD]\\n[UNK]\\n[CLS]\\n[SEP]\\n[MASK]\\ncat\\n")
    >>> read_vocabulary(path)[-1]
    'cat'
    """
    path = Path(path)
    try:
        text = read_text(path)
    except TextError as error:
        raise VocabularyError(str(error)) from error
    tokens = [line.strip() for line in text.removesuffix("\n").split("\n")]
    lines: dict[str, int] = {}
    for number, token in enumerate(tokens, 1):
        if not token:
            raise VocabularyError(f"{path}, line {number}: no token")
        if token in lines:
            raise VocabularyError(f"{path}, line {number}: {token} stands on line {lines[token]}")
        lines[token] = number
    missing = [token for token in SPECIAL_TOKENS if token not in lines]
    if missing:
        raise VocabularyError(f"{path}: the vocabulary lacks {', '.join(missing)}")
    if tokens[0] != "[PAD]":
        raise VocabularyError(
            f"{path}, line {lines['[PAD]']}: [PAD] must be the first token, on line 1"
        )
    return tokens
