"""From a file of questions to their score."""

import json

import pytest

from keras_acclip.garden import data, run
from tests.integration.garden.runs import ENCODER, parse
from tests.unit.garden.samples import squad

WORDS = [f"word{number}" for number in range(30)]
LENGTH = 32


def write(path, contexts):
    path.write_text(json.dumps(squad(contexts)))
    return path


@pytest.mark.slow
def test_questions_are_trained_on_and_scored(tmp_path):
    """Any model finds an answer that is the whole context; an untrained one finds no other."""
    vocab = tmp_path / "vocab.txt"
    vocab.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "which", *WORDS]))
    whole = [(word, [("which", word, 0)]) for word in WORDS[:6]]
    text = " ".join(WORDS)
    hidden = [(text, [("which", word, text.index(word))]) for word in WORDS[7:9]]
    train, dev = write(tmp_path / "train.json", whole), write(tmp_path / "dev.json", whole + hidden)
    windows = data.Windows(seq_length=LENGTH, query_length=4, doc_stride=16)
    counts = data.make_squad_data(train, dev, vocab, tmp_path / "data", windows, processes=1)
    assert counts == {"train": 6, "train questions": 6, "dev questions": 8}
    encoder = ENCODER | {"max_position_embeddings": LENGTH}
    intervals = [f"{name}_interval" for name in ("summary", "checkpoint", "validation")]
    changes = {
        "runtime": {"enable_xla": False},
        "task": {
            # All positions are candidates: a model that knows nothing may rank the right one last.
            "n_best_size": LENGTH,
            "model": {"encoder": {"bert": encoder}},
            "train_data": {"global_batch_size": 4},
            "validation_data": {"global_batch_size": 4},
        },
        "trainer": dict.fromkeys(("train_steps", "steps_per_loop", *intervals), 2),
    }
    params = parse(changes, "acclip/bert_squad", ("cpu", str(tmp_path / "data/data.yaml")))
    run(params, "train_and_eval", str(tmp_path / "model"))
    metrics = json.loads((tmp_path / "model/metrics.json").read_text())
    assert metrics["training"]["step"] == metrics["validation"]["step"] == 2
    scores = metrics["validation"]
    assert scores["exact_match"] == pytest.approx(0.75)
    assert 0.75 <= scores["final_f1"] < 0.85
