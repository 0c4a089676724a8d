import collections
import itertools
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import yaml
from official.core import task_factory
from official.nlp.tools import tokenization

from keras_acclip.garden.data import examples as writers
from keras_acclip.garden.data import pretraining
from keras_acclip.garden.data.pretraining import make_pretraining_data
from keras_acclip.garden.data.recipe import Recipe
from keras_acclip.garden.data.shards import DataError
from keras_acclip.text.corpus import Corpus, text_files
from keras_acclip.text.vocabulary import SPECIAL_TOKENS, read_vocabulary
from tests.unit.garden.samples import contents, examples, small, task_of

# The fixtures run once, in one process.
pytestmark = pytest.mark.xdist_group("garden data")


def test_examples_are_masked_pairs_of_the_text(made, corpus):
    folder, counts = made
    vocabulary = read_vocabulary(folder / "vocab.txt")
    assert counts["vocabulary"] == len(vocabulary) <= 600
    tokenizer = tokenization.FullTokenizer(str(folder / "vocab.txt"))
    for part in ("train", "validation"):
        documents = [" ".join(tokenizer.tokenize(text)) for text in getattr(corpus, part)]
        documents = [f" {text} " for text in documents]
        found, random_next, together, kept = 0, 0, 0, collections.Counter()
        for example in examples(folder.glob(f"{part}-*.tfrecord")):
            found += 1
            weights = example["masked_lm_weights"].astype(bool)
            assert weights.size == 5
            positions, labels = (example[f"masked_lm_{x}"][weights] for x in ("positions", "ids"))
            seen = example["input_ids"][positions]
            mask = vocabulary.index("[MASK]")
            kept.update(np.where(seen == mask, "mask", np.where(seen == labels, "same", "other")))
            tokens = example["input_ids"].copy()
            tokens[positions] = labels
            length = example["input_mask"].sum()
            assert weights.sum() == min(5, max(1, round(0.15 * length)))
            assert not tokens[length:].any()
            words = [vocabulary[i] for i in tokens[:length]]
            second = int(example["segment_ids"].argmax())
            assert words[0] == "[CLS]" and words[second - 1] == words[-1] == "[SEP]"
            assert example["segment_ids"].sum() == length - second
            pair = words[1 : second - 1], words[second:-1]
            homes = [{i for i, d in enumerate(documents) if f" {' '.join(s)} " in d} for s in pair]
            assert all(homes)
            if example["next_sentence_labels"]:
                random_next += 1
            else:
                together += 1
                assert homes[0] & homes[1]
        assert found == counts[part]
        total = sum(kept.values())
        if part == "train":
            # Half of them, and all that have one sentence.
            assert 0.4 < random_next / found < 0.9
            assert kept["mask"] / total == pytest.approx(0.8, abs=4 * (0.16 / total) ** 0.5)
            assert kept["same"] / total == pytest.approx(0.1, abs=4 * (0.09 / total) ** 0.5)


@pytest.mark.parametrize("experiment", ["bert/pretraining", "acclip/bert_pretraining"])
def test_the_config_goes_straight_into_an_experiment(made, experiment):
    folder, counts = made
    text = (folder / "data.yaml").read_text()
    assert text.startswith(
        f"# {counts['train']} train examples\n# {counts['validation']} validation examples\n"
    )
    task = task_of(
        experiment, {"task": {"train_data": {"global_batch_size": 4}}}, yaml.safe_load(text)
    )
    assert task.model.encoder.get().vocab_size == counts["vocabulary"]
    batch = next(iter(task_factory.get_task(task).build_inputs(task.train_data)))
    assert batch["input_word_ids"].shape == (4, 32)
    assert batch["masked_lm_ids"].shape == (4, 5)
    task.validation_data.override({"global_batch_size": 1})
    validation = task_factory.get_task(task).build_inputs(task.validation_data)
    assert sum(1 for _ in validation) == counts["validation"]


def test_the_data_depend_on_the_seed_alone(made, corpus, tmp_path):
    folder, counts = made
    again = make_pretraining_data(corpus, tmp_path / "again", **small())
    assert contents(tmp_path / "again") == contents(folder)
    assert again == counts
    recipe = Recipe(seq_length=32, dupe_factor=2, seed=1)
    make_pretraining_data(corpus, tmp_path / "other", **small() | {"recipe": recipe})
    other, whole = contents(tmp_path / "other"), contents(folder)
    assert all(other[name] != whole[name] for name in whole)


def test_only_missing_and_damaged_shards_are_made_again(made, corpus, tmp_path, monkeypatch):
    folder = tmp_path / "data"
    whole = contents(made[0])
    shutil.copytree(made[0], folder)
    names = sorted(whole)
    (folder / names[0]).unlink()
    (folder / names[1]).write_bytes((folder / names[1]).read_bytes()[:-7])
    (folder / names[3]).write_bytes(b"")
    stale = folder / f"{names[2]}.77.partial"
    stale.write_bytes(b"half")
    kept = (folder / names[2]).stat().st_mtime_ns
    makers, write = [], writers.write_pairs

    def counted(path, task):
        makers.append(Path(path).name)
        write(path, task)

    monkeypatch.setattr(writers, "write_pairs", counted)
    make_pretraining_data(corpus, folder, **small())
    assert contents(folder) == whole
    assert [name.split(".")[0] for name in makers] == [names[i].split(".")[0] for i in (0, 1, 3)]
    assert (folder / names[2]).stat().st_mtime_ns == kept
    assert not stale.exists()


def test_an_interrupted_shard_leaves_nothing_behind(made, corpus, tmp_path, monkeypatch):
    folder, write = tmp_path / "data", writers.write_pairs

    def interrupted(path, task):
        write(path, task)
        if "train-00001" in path:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(writers, "write_pairs", interrupted)
        with pytest.raises(KeyboardInterrupt):
            make_pretraining_data(corpus, folder, **small())
    assert list(contents(folder)) == ["train-00000-of-00003.tfrecord"]
    assert not (folder / "data.yaml").exists() and not list(folder.glob("*.partial"))
    make_pretraining_data(corpus, folder, **small())
    assert contents(folder) == contents(made[0])


def test_a_given_vocabulary_is_used_as_it_stands(made, corpus, tmp_path):
    vocab = tmp_path / "mine.txt"
    tokens = read_vocabulary(made[0] / "vocab.txt")
    vocab.write_text("\r\n".join([tokens[0], *tokens[:0:-1]]))
    make_pretraining_data(corpus, tmp_path / "data", vocab=vocab, **small())
    assert read_vocabulary(tmp_path / "data/vocab.txt") == [tokens[0], *tokens[:0:-1]]
    first = next(examples([tmp_path / "data/train-00000-of-00003.tfrecord"]))
    assert first["input_ids"][0] == len(tokens) - tokens.index("[CLS]")
    with pytest.raises(DataError, match="other settings \\(vocabulary"):
        make_pretraining_data(corpus, tmp_path / "data", **small())


@pytest.mark.slow
def test_dynamic_data_hold_the_text_for_the_text_experiment(corpus, made, tmp_path):
    vocab = made[0] / "vocab.txt"
    recipe = Recipe(seq_length=32, dynamic=True)
    counts = make_pretraining_data(
        corpus, tmp_path, vocab=vocab, recipe=recipe, num_shards=2, processes=1
    )
    assert counts["train"] == len(corpus.train)
    assert counts["validation"] == len(corpus.validation)
    records = tf.data.TFRecordDataset([str(p) for p in tmp_path.glob("*.tfrecord")])
    found = [
        tf.train.Example.FromString(record.numpy()).features.feature["text"].bytes_list.value[0]
        for record in records
    ]
    words = collections.Counter(text.decode().replace("\n", " ") for text in found)
    assert words == collections.Counter(
        " ".join(text.split()) for text in corpus.train + corpus.validation
    )
    task = task_of("acclip/bert_pretraining_text", yaml.safe_load((tmp_path / "data.yaml").open()))
    task.train_data.override({"global_batch_size": 4})
    batch = next(iter(task_factory.get_task(task).build_inputs(task.train_data)))
    assert batch["input_word_ids"].shape == (4, 32)
    assert batch["masked_lm_ids"].shape == (4, 5)


@pytest.mark.parametrize("seed", range(5))
def test_documents_are_dealt_evenly(seed):
    rng = random.Random(seed)
    count = rng.randint(1, 9)
    documents = [
        rng.choice("abc") * rng.randint(0, 1000) for _ in range(rng.randint(2 * count, 200))
    ]
    dealt = pretraining.deal(documents, count)
    assert len(dealt) == count
    assert collections.Counter(itertools.chain.from_iterable(dealt)) == collections.Counter(
        documents
    )
    assert min(map(len, dealt)) >= 2
    lengths = [sum(map(len, part)) for part in dealt]
    assert max(lengths) - min(lengths) <= max(map(len, documents))


def test_a_book_among_articles_is_not_alone_in_its_shard():
    documents = ["b" * 10**6, "c" * 10**5, *("a" * 100 for _ in range(6))]
    dealt = pretraining.deal(documents, 4)
    assert sorted(map(len, dealt)) == [2, 2, 2, 2]


def test_wrong_next_sentences_come_from_other_documents(tmp_path):
    """Each document has words of its own, by which its segments are known."""
    documents = [
        "\n".join(f"w{d}x{i % 7} w{d}x{i % 5} w{d}x{i % 3}." for i in range(length))
        for d, length in enumerate((400, 40, 30, 20, 10, 10, 10, 10))
    ]
    corpus = Corpus("made up", tuple(documents), tuple(documents))
    recipe = Recipe(seq_length=32, dupe_factor=3, masked_lm_prob=0.0)
    words = sorted({word.rstrip(".") for text in documents for word in text.split()})
    vocabulary = tmp_path / "vocab.txt"
    vocabulary.write_text("\n".join([*SPECIAL_TOKENS, ".", *words]))
    pretraining.make_pretraining_data(
        corpus,
        tmp_path / "data",
        vocabulary,
        recipe=recipe,
        one_sentence_per_line=True,
        num_shards=4,
        processes=1,
    )
    tokens = vocabulary.read_text().split("\n")
    labels = []
    for example in examples((tmp_path / "data").glob("train*.tfrecord")):
        sources, weights = [set(), set()], example["masked_lm_weights"].astype(bool)
        ids = example["input_ids"]
        ids[example["masked_lm_positions"][weights]] = example["masked_lm_ids"][weights]
        for token, segment in zip(ids, example["segment_ids"], strict=True):
            if (word := tokens[token]).startswith("w"):
                sources[segment].add(word.partition("x")[0])
        wrong = bool(example["next_sentence_labels"][0])
        labels.append(wrong)
        if wrong:
            assert not sources[0] & sources[1]
        else:
            assert sources[0] == sources[1]
    assert 20 < sum(labels) < len(labels) - 20


def test_a_single_document_is_cut(capsys):
    text = " ".join(f"Sentence {i} stands here." for i in range(50))
    found = pretraining.several([text, " \n"], "train", "a.txt")
    assert len(found) == 25 and " ".join(" ".join(found).split()) == text
    assert "train: one document, cut into 25" in capsys.readouterr().err
    assert pretraining.several(["One.\nTwo."], "train", "a.txt", True) == ["One.", "Two."]
    assert pretraining.several(["a", "", "b"], "train", "a.txt") == ["a", "b"]
    with pytest.raises(DataError, match=r"a.txt: the train text is one document of one sentence"):
        pretraining.several(["One."], "train", "a.txt")


def test_more_shards_than_documents_are_refused(tmp_path):
    corpus = Corpus("made up", ("a b.",) * 7, ("c d.", "e f."))
    with pytest.raises(DataError, match="num_shards=4 is above half the number of documents, 7"):
        pretraining.make_pretraining_data(corpus, tmp_path / "data", num_shards=4)
    assert not (tmp_path / "data").exists()


def test_the_same_text_under_another_path_is_the_same(tmp_path):
    settings = []
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "text.txt").write_text("One sentence here. Another one there.\n" * 200)
        corpus = text_files([tmp_path / folder / "*.txt"])
        small = {"vocab_size": 60, "recipe": Recipe(seq_length=16, dupe_factor=1), "processes": 1}
        pretraining.make_pretraining_data(corpus, tmp_path / "data", **small)
        settings.append((tmp_path / "data/settings.json").read_text())
    assert settings[0] == settings[1]


def test_default_shards():
    million = "x" * 1_000_000
    assert pretraining.default_shards([million] * 8) == 4
    assert pretraining.default_shards([million[:100_000]] * 81) == 9
    assert pretraining.default_shards(["x"]) == 1


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"seq_length": 7}, "`seq_length` must be at least 8. Received: 7"),
        ({"dupe_factor": 0}, "`dupe_factor` must be at least 1. Received: 0"),
        ({"max_predictions_per_seq": 0}, "`max_predictions_per_seq` must be at least 1"),
        ({"masked_lm_prob": 1.5}, r"`masked_lm_prob` must be in \[0, 1\]. Received: 1.5"),
        ({"short_seq_prob": -1.0}, r"`short_seq_prob` must be in \[0, 1\]"),
    ],
)
def test_a_bad_recipe_is_refused(values, message):
    with pytest.raises(ValueError, match=message):
        Recipe(**values)


@pytest.mark.parametrize(("length", "most"), [(128, 20), (512, 77), (8, 2)])
def test_the_number_of_predictions_follows_the_length(length, most):
    assert Recipe(seq_length=length).max_predictions_per_seq == most
