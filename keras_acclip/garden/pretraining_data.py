"""Pretraining data for BERT from text: a vocabulary, and TFRecords by the Model Garden."""

import functools
import math
import random
import re
import tempfile
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import yaml

from keras_acclip.text import corpus as texts
from keras_acclip.garden import shards
from keras_acclip.garden.shards import DataError
from keras_acclip._utils.processes import available_cpus
from keras_acclip.text.vocabulary import SPECIAL_TOKENS, learn_vocabulary, read_vocabulary

# The embedded corpus: what `pip install keras-acclip[garden]` installs.
PACKAGES = ("keras", "matplotlib", "numpy", "official", "scipy", "tensorflow")

_FORMAT = 1  # Noted with the settings: raise it when the data are made differently.
_SHARD = 1_000_000  # characters
_PARAGRAPH = re.compile(r"\n\s*\n")
# TensorFlow Text's sentence breakers end a sentence within "e.g." and "3.5".
_SENTENCE = re.compile(
    r"(?<!\be\.g\.)(?<!\bi\.e\.)(?<!\bvs\.)(?<!\bcf\.)(?<!\bDr\.)(?<!\bMr\.)(?<!\bMrs\.)"
    r"(?:(?<=[.!?])|(?<=[.!?][\"')\]]))\s+(?=[\"'(\[`]?[A-Z0-9])"
)


@dataclass(frozen=True)
class Recipe:
    """How text becomes examples: the Model Garden's values for BERT.

    Attributes:
        seq_length: Tokens of an example, `[CLS]` and both `[SEP]` included. Defaults to 128.
        masked_lm_prob: Part of the tokens that are masked. Defaults to 0.15.
        max_predictions_per_seq: Most masked tokens of an example. Defaults to that part of
            `seq_length`, rounded up: 20 for 128.
        short_seq_prob: How often an example is made shorter than it could be. Defaults to 0.1.
        dupe_factor: How often the training text is gone through, masked anew each time; the
            held-out text is gone through once. Defaults to 10.
        whole_word_mask: Whether all pieces of a word are masked together. Defaults to `False`.
        lower_case: Whether the text is put in lower case. Defaults to `True`.
        dynamic: Whether the TFRecords hold the text, for `acclip/bert_pretraining_text`, which
            pairs and masks it anew at every reading. Defaults to `False`.
        seed: Of the masks, the pairs and the order. Defaults to 12345.

    Raises:
        ValueError: If a value is out of its range.
    """

    seq_length: int = 128
    masked_lm_prob: float = 0.15
    max_predictions_per_seq: int | None = None
    short_seq_prob: float = 0.1
    dupe_factor: int = 10
    whole_word_mask: bool = False
    lower_case: bool = True
    dynamic: bool = False
    seed: int = 12345

    def __post_init__(self):
        if self.max_predictions_per_seq is None:
            most = math.ceil(self.seq_length * self.masked_lm_prob)
            object.__setattr__(self, "max_predictions_per_seq", max(1, most))
        for name, least in (("seq_length", 8), ("max_predictions_per_seq", 1), ("dupe_factor", 1)):
            if getattr(self, name) < least:
                raise ValueError(
                    f"Argument `{name}` must be at least {least}. Received: {getattr(self, name)}"
                )
        for name in ("masked_lm_prob", "short_seq_prob"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(
                    f"Argument `{name}` must be in [0, 1]. Received: {getattr(self, name)}"
                )


def sentence_files(patterns, validation_patterns=()):
    """A corpus from files in the Model Garden's form: a sentence a line, blank lines between
    documents.

    Args:
        patterns: Paths or globs of plain UTF-8 or gzip files.
        validation_patterns: The same for the held-out text. Without it every 20th document is
            held out.

    Returns:
        A `keras_acclip.text.corpus.Corpus`; a document's sentences are its lines.

    Raises:
        keras_acclip.text.corpus.TextError: If a file is missing, empty or not text.
    """
    paths = texts.expand(patterns)
    train = _documents(paths)
    if validation_patterns:
        validation = _documents(texts.expand(validation_patterns))
    else:
        held_out = texts.HELD_OUT_EVERY // 2
        validation = train[held_out :: texts.HELD_OUT_EVERY]
        del train[held_out :: texts.HELD_OUT_EVERY]
    return texts.Corpus(", ".join(map(str, paths)), tuple(train), tuple(validation))


def _documents(paths):
    documents = (d for path in paths for d in _PARAGRAPH.split(texts.read_text(path)))
    return [document for document in documents if document.strip()]


def sentences(document):
    """The sentences of a text: lists of words parted by single spaces, paragraphs kept apart."""
    for paragraph in _PARAGRAPH.split(document):
        for sentence in _SENTENCE.split(" ".join(paragraph.split())):
            if sentence:
                yield sentence


def make_pretraining_data(
    corpus,
    output,
    vocab=None,
    vocab_size=30522,
    recipe=None,
    one_sentence_per_line=False,
    num_shards=None,
    processes=None,
):
    """Makes a folder with all that `acclip/bert_pretraining` needs to train.

    Stopped by whatever means and started again with the same arguments, it goes on with the shards
    that are missing; the result depends neither on that nor on the number of processes.

    Args:
        corpus: A `keras_acclip.text.corpus.Corpus`.
        output: Folder to make. It gets `vocab.txt`, the shards
            `train-00000-of-00020.tfrecord`, `validation-00000-of-00001.tfrecord` and so on, and
            last `data.yaml`, for `--config_file`.
        vocab: A vocabulary file. Without it a vocabulary is learned from the training text.
        vocab_size: Most tokens of a learned vocabulary. Defaults to 30522, BERT's.
        recipe: A `Recipe`. Defaults to `Recipe()`.
        one_sentence_per_line: Whether a document's lines are its sentences. Defaults to `False`:
            sentences end where a stop, a space and a capital meet, and at blank lines.
        num_shards: Number of training shards. Defaults to one a million characters, but at least
            two documents a shard and at most 1000 shards.
        processes: Number of processes. Defaults to the CPUs that this process may use.

    Returns:
        dict of the numbers of examples in `"train"` and `"validation"` and of the `"vocabulary"`.

    Raises:
        DataError: If the output can't be written, or holds or gets other data; or if a part of the
            corpus is too short for an example.
        keras_acclip.text.vocabulary.VocabularyError: If the vocabulary file can't be used.
    """
    output, recipe = Path(output), recipe or Recipe()
    if vocab_size <= len(SPECIAL_TOKENS):
        raise DataError(
            f"Argument `vocab_size` must be above {len(SPECIAL_TOKENS)}, the number of special "
            f"tokens. Received: {vocab_size}"
        )
    for part in ("train", "validation"):
        if not any(map(str.strip, getattr(corpus, part))):
            raise DataError(f"{corpus.name}: too short: there is no {part} text")
    settings = {
        "data": "pretraining",
        "text": f"{corpus.name} ({corpus.fingerprint})",
        "one_sentence_per_line": one_sentence_per_line,
        "vocabulary": texts.cache_key(read_vocabulary(vocab)) if vocab else vocab_size,
        "num_shards": num_shards or default_shards(corpus.train),
        **asdict(recipe),
        "tf-models-official": version("tf-models-official"),
        "format": _FORMAT,
    }
    with shards.claimed(output, settings):
        vocabulary = _vocabulary(output / "vocab.txt", vocab, vocab_size, corpus, recipe)
        counts = {"train": settings["num_shards"], "validation": default_shards(corpus.validation)}
        examples = {}
        for part, count in counts.items():
            dealt = deal(getattr(corpus, part), count)
            paths = shards.paths(output, part, count)
            tasks = {
                path: _Task(
                    tuple(documents),
                    one_sentence_per_line,
                    str(output / "vocab.txt"),
                    recipe,
                    recipe.dupe_factor if part == "train" else 1,
                    f"{recipe.seed}-{part}-{number}",
                )
                for number, (path, documents) in enumerate(zip(paths, dealt, strict=True))
            }
            make = _write_text if recipe.dynamic else _write_examples
            examples[part] = shards.make_missing(make, tasks, processes or available_cpus(), part)
        config = _config(output, counts, len(vocabulary), recipe)
        notes = "".join(f"# {number} {part} examples\n" for part, number in examples.items())
        shards.write_file(output / "data.yaml", notes + yaml.safe_dump(config, sort_keys=False))
    return {**examples, "vocabulary": len(vocabulary)}


def default_shards(documents):
    """One shard a million characters, but at least two documents a shard and at most 1000."""
    size = -(-sum(map(len, documents)) // _SHARD)
    return max(1, min(size, len(documents) // 2, 1000))


def deal(documents, count):
    """Documents in `count` lists of like length: the longest first, each to the shortest list."""
    dealt, lengths = [[] for _ in range(count)], [0] * count
    for document in sorted(documents, key=len, reverse=True):
        shortest = lengths.index(min(lengths))
        dealt[shortest].append(document)
        lengths[shortest] += len(document)
    return dealt


def _vocabulary(path, source, size, corpus, recipe):
    """The vocabulary that stands in `path`, put there if it does not yet."""
    if not path.exists():
        learn = functools.partial(_learn, corpus, size, recipe.lower_case)
        vocabulary = read_vocabulary(source) if source else learn()
        shards.write_file(path, "".join(f"{token}\n" for token in vocabulary))
    return read_vocabulary(path)


def _learn(corpus, size, lower_case):
    if not any(character.isalnum() for text in corpus.train for character in text):
        raise DataError(f"{corpus.name}: there is no word to learn a vocabulary from")
    print(f"vocabulary: learning at most {size} tokens", flush=True)
    return learn_vocabulary(corpus.train, size, lower_case)


# --- Shards ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Task:
    documents: tuple[str, ...]
    one_sentence_per_line: bool
    vocab: str
    recipe: Recipe
    dupe_factor: int
    seed: str

    def lines(self):
        """For each document its sentences, one a line."""
        for document in self.documents:
            found = document.splitlines() if self.one_sentence_per_line else sentences(document)
            yield "\n".join(filter(None, map(str.strip, found)))


@functools.lru_cache(1)
def _tokenizer(vocab, lower_case):
    from official.nlp.tools import tokenization

    return tokenization.FullTokenizer(vocab, do_lower_case=lower_case)


def _write_examples(path, task):
    """Writes masked pairs of segments, as `create_pretraining_data` does for a file of text."""
    from official.nlp.data import create_pretraining_data

    recipe, tokenizer = task.recipe, _tokenizer(task.vocab, task.recipe.lower_case)
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", suffix=".txt") as file:
        file.write("\n\n".join(task.lines()))
        file.flush()
        instances = create_pretraining_data.create_training_instances(
            input_files=[file.name],
            tokenizer=tokenizer,
            processor_text_fn=create_pretraining_data.get_processor_text_fn(
                is_sentence_piece=False, do_lower_case=recipe.lower_case
            ),
            max_seq_length=recipe.seq_length,
            dupe_factor=task.dupe_factor,
            short_seq_prob=recipe.short_seq_prob,
            masked_lm_prob=recipe.masked_lm_prob,
            max_predictions_per_seq=recipe.max_predictions_per_seq,
            rng=random.Random(task.seed),
            do_whole_word_mask=recipe.whole_word_mask,
        )
    create_pretraining_data.write_instance_to_example_files(
        instances,
        tokenizer,
        recipe.seq_length,
        recipe.max_predictions_per_seq,
        [path],
        gzip_compress=False,
        use_v2_feature_names=False,
    )


def _write_text(path, task):
    """Writes the documents themselves, in a new order, as `BertPretrainTextDataConfig` has them."""
    import tensorflow as tf

    documents = [document for document in task.lines() if document]
    random.Random(task.seed).shuffle(documents)
    with tf.io.TFRecordWriter(path) as writer:
        for document in documents:
            text = tf.train.Feature(bytes_list=tf.train.BytesList(value=[document.encode()]))
            features = tf.train.Features(feature={"text": text})
            writer.write(tf.train.Example(features=features).SerializeToString())


def _config(output, counts, vocabulary_size, recipe):
    """The Model Garden's config of these data."""
    data = {
        part: {
            "input_path": shards.pattern(output, part, count),
            "seq_length": recipe.seq_length,
            "max_predictions_per_seq": recipe.max_predictions_per_seq,
            "use_next_sentence_label": True,
            "is_training": part == "train",
        }
        for part, count in counts.items()
    }
    if recipe.dynamic:
        for part in data.values():
            part["vocab_file_path"] = str((output / "vocab.txt").resolve())
            part["masking_rate"] = recipe.masked_lm_prob
            part["use_whole_word_masking"] = recipe.whole_word_mask
    return {
        "task": {
            "model": {"encoder": {"type": "bert", "bert": {"vocab_size": vocabulary_size}}},
            "train_data": data["train"],
            "validation_data": data["validation"],
        }
    }
