"""Small data, and what they hold, for the tests of data and of finished runs."""

import random

import numpy as np


def small():
    """Arguments of `make_pretraining_data` for little data."""
    from keras_acclip.garden.data import Recipe

    recipe = Recipe(seq_length=32, dupe_factor=2)
    return {"vocab_size": 600, "recipe": recipe, "num_shards": 3, "processes": 1}


def contents(folder):
    """Dict from a shard's name to its examples. (Protobuf hashes maps: bytes differ.)"""
    import tensorflow as tf

    return {
        path.name: [
            tf.train.Example.FromString(record)
            for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator()
        ]
        for path in folder.glob("*.tfrecord")
    }


def examples(paths):
    """The examples of TFRecord files: dicts of arrays."""
    import tensorflow as tf

    for record in tf.data.TFRecordDataset([str(path) for path in sorted(paths)]):
        example = tf.train.Example.FromString(record.numpy())
        yield {
            name: np.array(feature.int64_list.value or feature.float_list.value)
            for name, feature in example.features.feature.items()
        }


def squad(contexts, title="t"):
    """A SQuAD file's content: `contexts` are pairs of a context and (question, answer, start)s."""
    number = iter(range(10**6))
    paragraphs = [
        {
            "context": context,
            "qas": [
                {
                    "id": f"{title}{next(number)}",
                    "question": question,
                    "answers": [{"text": answer, "answer_start": start}],
                }
                for question, answer, start in asked
            ],
        }
        for context, asked in contexts
    ]
    return {"version": "1.1", "data": [{"title": title, "paragraphs": paragraphs}]}


def random_squad(english, seed, count):
    """Questions whose answers are random runs of words of random passages."""
    rng, words = random.Random(seed), english.read_text("utf-8").split()
    contexts = []
    for _ in range(count):
        at = rng.randrange(len(words) - 200)
        passage = words[at : at + rng.randint(5, 200)]
        first = rng.randrange(len(passage))
        last = min(len(passage), first + rng.randint(1, 5))
        start = len(" ".join(passage[:first])) + (first > 0)
        answer = " ".join(passage[first:last])
        contexts.append((" ".join(passage), [("What is it?", answer, start)]))
    return squad(contexts)


def docstrings(seed, count):
    """Documents like docstrings, with random words."""
    rng = random.Random(seed)

    def words(number):
        return " ".join(
            "".join(rng.choices("abcdefgh", k=rng.randint(2, 7))) for _ in range(number)
        )

    return tuple(
        words(40)
        + "\nArgs:\n"
        + "".join(f"  {words(1)}: {words(5)}. {words(3)}\n" for _ in range(9))
        for _ in range(count)
    )


def task_of(experiment, *configs):
    """The task of an experiment with the configs over it."""
    from official.core import exp_factory

    from keras_acclip.garden import experiments  # noqa: F401

    params = exp_factory.get_exp_config(experiment)
    for config in configs:
        params.override(config, is_strict=True)
    return params.task
