"""Writes a shard of pretraining data: masked pairs of segments, or the text itself."""

from __future__ import annotations

import functools
import random
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from keras_acclip.garden.data.recipe import Recipe
from keras_acclip.garden.data.sentences import sentences


@dataclass(frozen=True)
class Task:
    """What a shard is made of.

    Attributes:
        documents: The texts.
        one_sentence_per_line: Whether a document's lines are its sentences.
        vocab: Path of the vocabulary file.
        recipe: How they become examples.
        dupe_factor: How often they are gone through.
        seed: Of this shard's masks, pairs and order.
    """

    documents: tuple[str, ...]
    one_sentence_per_line: bool
    vocab: str
    recipe: Recipe
    dupe_factor: int
    seed: str

    def lines(self) -> Iterator[str]:
        """For each document its sentences, one a line."""
        for document in self.documents:
            found = document.splitlines() if self.one_sentence_per_line else sentences(document)
            yield "\n".join(filter(None, map(str.strip, found)))


@functools.lru_cache(1)
def _tokenizer(vocab: str, lower_case: bool) -> Any:
    from official.nlp.tools import tokenization

    return tokenization.FullTokenizer(vocab, do_lower_case=lower_case)


def write_pairs(path: str, task: Task) -> None:
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


def write_text(path: str, task: Task) -> None:
    """Writes the documents themselves, in a new order, as `BertPretrainTextDataConfig` has them."""
    import tensorflow as tf

    documents = [document for document in task.lines() if document]
    random.Random(task.seed).shuffle(documents)
    with tf.io.TFRecordWriter(path) as writer:
        for document in documents:
            text = tf.train.Feature(bytes_list=tf.train.BytesList(value=[document.encode()]))
            features = tf.train.Features(feature={"text": text})
            writer.write(tf.train.Example(features=features).SerializeToString())
