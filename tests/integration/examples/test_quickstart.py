import custom_loop
import keras
import numpy as np
import pytest
import quickstart
import tensorflow as tf

from tests import paths


def test_quickstart_measures_draws_and_advises(tmp_path, monkeypatch, capsys):
    some = sorted(quickstart.topics)[:4]
    topics = {name: quickstart.topics[name] for name in some}
    monkeypatch.setattr(quickstart, "topics", topics)
    picture = tmp_path / "noise.png"
    quickstart.main(["--output", str(picture)])
    assert picture.stat().st_size > 10_000
    printed = capsys.readouterr().out
    assert "noise" in printed.lower()
    assert f"Written: {picture}" in printed


def test_quickstart_reads_the_text_as_it_stands():
    x, y = quickstart.load_text()
    assert x.shape == y.shape == (len(x), 32)
    assert len(x) > 5000
    np.testing.assert_array_equal(x[:, 1:], y[:, :-1])
    assert (y.max(), x.min()) < (128, 128)
    rows = ["".join(map(chr, row)) for row in x]
    text = "\n".join(quickstart.topics.values()).encode("ascii", "replace").decode()
    assert all(row in text for row in rows[:20])


def test_quickstart_is_short():
    from pathlib import Path

    assert len(Path(quickstart.__file__).read_text("utf-8").splitlines()) <= 60


def test_the_loop_takes_the_same_steps_on_replicas(monkeypatch):
    monkeypatch.setattr(custom_loop, "STEPS", 40)
    truth = np.random.default_rng(0).normal(size=(custom_loop.FEATURES, 1)).astype("float32")
    keras.utils.set_random_seed(0)
    one = custom_loop.train(tf.distribute.get_strategy(), truth)
    keras.utils.set_random_seed(0)
    two = custom_loop.train(paths.two_replicas(), truth)
    assert two == pytest.approx(one, rel=1e-4)


def test_averaging_brings_the_weights_nearer(capsys):
    custom_loop.main([])
    words = capsys.readouterr().out.split()
    last, averaged = (float(words[words.index(word) - 1]) for word in ("after", "averaged"))
    start = np.linalg.norm(np.random.default_rng(0).normal(size=custom_loop.FEATURES))
    assert averaged < 0.5 * last < 0.1 * start
