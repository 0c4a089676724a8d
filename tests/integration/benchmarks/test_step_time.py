import json
import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from benchmarks import step_time

TINY = ["--layers", "1", "--hidden", "64", "--vocabulary", "50", "--rounds", "2"]


def test_bert_shapes_are_those_of_keras_hub():
    keras_hub = pytest.importorskip("keras_hub")
    backbone = keras_hub.models.BertBackbone(100, 2, 2, 128, 512)
    backbone.pooled_dense.trainable = False
    model = keras_hub.models.BertMaskedLM(backbone)
    expected = sorted(tuple(v.shape) for v in model.trainable_variables)
    assert sorted(step_time.bert_shapes(2, 128, 100)) == expected


def test_bert_base_with_six_layers_has_67_million_parameters():
    shapes = step_time.bert_shapes(6)
    assert len(shapes) == 106
    assert round(sum(map(math.prod, shapes)) / 1e6) == 67


@pytest.mark.slow
def test_a_small_run_prints_and_writes_every_contestant(tmp_path, capsys):
    results = step_time.main([*TINY, "--output", str(tmp_path / "out.json")])
    printed = capsys.readouterr().out
    assert {(r["method"], r["mode"]) for r in results} == {
        (name, mode) for name in step_time.METHODS for mode in step_time.MODES
    }
    assert all(r["ms"] > 0 and r["first_step_s"] > 0 for r in results)
    assert "goal: at most 0.25" in printed
    assert json.loads((tmp_path / "out.json").read_text())["rows"] == results


def test_torch_contestants_do_what_ours_do():
    torch = pytest.importorskip("torch")
    del torch
    arrays, gradients = step_time.parameters_and_gradients(step_time.bert_shapes(1, 64, 50))
    contestants = list(step_time.torch_contestants(arrays, gradients))
    assert [c.method for c in contestants] == [
        *(f"PyTorch Adam, {form}" for form in ("for-loop", "foreach", "fused")),
        "PyTorch ACClip, plain",
    ]
    for contestant in contestants:
        contestant.begin()


@pytest.mark.parametrize(
    "name", sorted(set(step_time.METHODS) - {"ACClip, weight decay", "Keras AdamW"})
)
def test_a_c_loop_does_its_rules_arithmetic(name):
    library = step_time.compile_bound()
    if library is None:
        pytest.skip("no C compiler")
    method = step_time.METHODS[name]
    x, g = np.random.default_rng(0).standard_normal((2, 1000)).astype(np.float32)
    x *= 1e-3  # So that the smallest step is far above the rounding of x.
    variable = keras.Variable(x)
    method.make().apply([tf.constant(g)], [variable])
    # The loop leaves out Adam's bias correction, a factor of the rate.
    correction = math.sqrt(1 - 0.999) / (1 - 0.9) if name == "Keras Adam" else 1.0
    moved = x.copy()
    step = step_time.bound_step(library, [(moved, np.zeros_like(x), np.zeros_like(x), g)])
    step(method.bound, correction * step_time.RATE)
    np.testing.assert_allclose(moved - x, variable.numpy() - x, rtol=1e-3, atol=1e-9)
    assert np.abs(moved - x).max() > 5e-7


def test_peak_memory_counts_what_a_step_allocates():
    array = tf.ones((2000, 10_000))
    # oneDNN's allocator may hand out freed memory of up to twice the size.
    peak = step_time.tensorflow_peak(lambda: array + 1)
    assert peak is None or 7.6e7 < peak < 1.7e8
    assert step_time.resident_peak(lambda: np.ones(10_000_000)) in (None, pytest.approx(8e7, 0.05))


def test_ctrl_c_ends_the_race_with_the_rounds_run_so_far():
    calls = []

    def interrupt():
        calls.append(1)
        if len(calls) == 6:
            raise KeyboardInterrupt

    made = [step_time.Contestant("a", "eager", lambda: None)]
    made.append(step_time.Contestant("b", "eager", interrupt))
    step_time.race(made, 100)
    assert [len(c.seconds) for c in made] == [4, 4]


def test_ratios_are_taken_round_by_round():
    seconds = {"a": np.array([1.0, 20.0, 3.0]), "b": np.array([2.0, 40.0, 6.0])}
    assert step_time.ratio(seconds, "a", "b") == [0.5, 0.5, 0.5]
    assert step_time.ratio(seconds, "a", "c") is None
