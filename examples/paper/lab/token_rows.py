"""A corpus as rows of WordPiece token ids."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from keras_acclip._utils.files import write_atomically
from keras_acclip.text.corpus import TextError, cache_key, embedded_corpus, text_files, versions
from keras_acclip.text.vocabulary import learn_vocabulary


@dataclass(frozen=True)
class TokenRows:
    """A corpus as token ids: `[CLS] … [SEP]` rows of one length, without padding.

    Attributes:
        train: uint16 or int32 array of shape `(rows, sequence_length)`.
        validation: The same for the held-out documents.
        vocabulary: The WordPiece vocabulary; a token's id is its place in it.
        name: The corpus's name.
        fingerprint: The corpus's fingerprint.
    """

    train: np.ndarray
    validation: np.ndarray
    vocabulary: list[str]
    name: str
    fingerprint: str

    @property
    def source(self):
        """Name and fingerprint, for a script's settings."""
        return f"{self.name} ({self.fingerprint})"

    def __str__(self):
        return f"{self.name}: {len(self.train)} rows to train on, {len(self.validation)} held out"


def load(options):
    """The text that the command line asks for as token rows, checked to be long enough.

    Args:
        options: Of a command line with `options.add_text`, `--cache`, `--vocabulary-size`,
            `--sequence-length` and `--batch-size`.

    Returns:
        A `TokenRows`.

    Raises:
        TextError: If a file can't be used; the message names it.
    """
    return make(load_text(options), options)


def load_text(options):
    """The text that the command line asks for, a `Corpus`; TensorFlow is not loaded.

    Args:
        options: As `load` takes them.

    Raises:
        TextError: If a file can't be used; the message names it.
    """
    if options.text:
        return text_files(options.text, options.validation_text or ())
    return embedded_corpus(options.cache)


def make(text, options):
    """A text as token rows, checked to be long enough.

    Args:
        text: A `Corpus`.
        options: As `load` takes them.

    Returns:
        A `TokenRows`.

    Raises:
        TextError: If the text is too short.
    """
    rows = token_rows(text, options.vocabulary_size, options.sequence_length, options.cache)
    for part, array in (("training", rows.train), ("held-out", rows.validation)):
        if len(array) < options.batch_size:
            raise TextError(
                f"{rows.name}: too short: the {part} text makes {len(array)} rows of "
                f"{options.sequence_length} tokens; one batch takes {options.batch_size}"
            )
    return rows


def token_rows(corpus, vocabulary_size, sequence_length, cache_dir):
    """The corpus as rows of token ids, with a lower-case vocabulary learned from its train part.

    Made once for a given corpus and sizes, then read from `cache_dir`.

    Args:
        corpus: A `keras_acclip.text.corpus.Corpus`.
        vocabulary_size: Most tokens that the vocabulary may hold, the special ones included.
        sequence_length: Length of a row, `[CLS]` and `[SEP]` included.
        cache_dir: Folder to keep the result in.

    Returns:
        A `TokenRows`.
    """
    makers = versions(("keras_hub", "tensorflow_text"))
    key = cache_key([corpus.fingerprint, vocabulary_size, sequence_length, makers])
    path = Path(cache_dir) / f"tokens-{key}.npz"
    if not path.exists():
        arrays = _make(corpus, vocabulary_size, sequence_length)
        write_atomically(path, lambda file: np.savez(file, **arrays))
    with np.load(path) as arrays:
        train, validation = arrays["train"], arrays["validation"]
        vocabulary = arrays["vocabulary"].tolist()
    return TokenRows(train, validation, vocabulary, corpus.name, corpus.fingerprint)


def _make(corpus, vocabulary_size, sequence_length):
    print(f"learning a vocabulary of {vocabulary_size:,} word pieces", flush=True)
    vocabulary = learn_vocabulary(corpus.train, vocabulary_size)
    print("cutting the text into word pieces", flush=True)
    return {
        "train": rows(corpus.train, vocabulary, sequence_length),
        "validation": rows(corpus.validation, vocabulary, sequence_length),
        "vocabulary": np.array(vocabulary),
    }


def rows(documents, vocabulary, sequence_length):
    """Documents end to end, a `[SEP]` after each, cut into `[CLS] … [SEP]` rows of one length.

    Args:
        documents: Strings.
        vocabulary: WordPiece tokens, in lower case.
        sequence_length: Length of a row.

    Returns:
        int32 array of shape `(rows, sequence_length)`.
    """
    import keras_hub
    import tensorflow as tf

    tokenizer = keras_hub.tokenizers.WordPieceTokenizer(
        vocabulary, lowercase=True, strip_accents=True
    )
    cls, sep = map(tokenizer.token_to_id, ("[CLS]", "[SEP]"))
    texts = tf.data.Dataset.from_tensor_slices(tf.constant(list(documents), tf.string)).batch(64)

    def with_end(texts):
        tokens = tokenizer(texts)
        ends = tf.fill([tokens.nrows(), 1], tf.cast(sep, tokens.dtype))
        return tf.concat([tokens, ends], 1).flat_values

    parts = texts.map(with_end, num_parallel_calls=tf.data.AUTOTUNE).as_numpy_iterator()
    stream = np.concatenate([*parts, np.empty(0, "int32")])
    length = sequence_length - 2
    body = stream[: len(stream) // length * length].reshape(-1, length)
    return np.pad(body, ((0, 0), (1, 1)), constant_values=((0, 0), (cls, sep))).astype("int32")
