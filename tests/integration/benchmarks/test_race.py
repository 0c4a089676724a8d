import math
import time

import pytest

from contest import methods, report, shapes
from contest.race import Contestant, calls_in, race, ratio


def test_ctrl_c_ends_the_race_with_the_rounds_run_so_far():
    calls = []

    def interrupt():
        calls.append(1)
        if len(calls) == 6:
            raise KeyboardInterrupt

    made = [Contestant("a", "eager", lambda: None), Contestant("b", "eager", interrupt)]
    race(made, 100)
    assert [len(c.seconds) for c in made] == [4, 4]


def test_a_turn_is_counted_by_the_step_without_what_comes_before_and_after():
    told = []
    contestant = Contestant(
        "a",
        "loop",
        lambda: (told.append("step"), time.sleep(0.05)),
        ready=lambda: (told.append("ready"), time.sleep(0.2)),
        done=lambda: (told.append("done"), time.sleep(0.2)),
        steps=5,
    )
    race([contestant], 2)
    assert told == ["ready", "step", "done"] * 3
    assert all(0.01 <= s < 0.03 for s in contestant.seconds)
    assert 0.05 <= contestant.first < 0.15
    assert calls_in(0.1, lambda: time.sleep(0.02), 2) in range(6, 11)


def test_ratios_are_taken_round_by_round():
    assert ratio([1.0, 20.0, 3.0], [2.0, 40.0, 6.0]) == [0.5, 0.5, 0.5]
    assert ratio([1.0], None) is None


@pytest.fixture
def raced():
    """Contestants as of one race, with their times known."""
    times = {
        (methods.COPY, "copy"): 1.0,
        ("ACClip", "loop"): 1.25,
        ("GClip", "loop"): 1.0,
        ("optax Adam", "loop"): 2.5,
        ("PyTorch Adam, fused, CUDA graph", "loop"): 1.0,
    }
    return [
        Contestant(*name, lambda: None, slot_bytes=8, first=3.0, seconds=[s, 2 * s, 4 * s])
        for name, s in times.items()
    ]


def test_bandwidths_and_goals_follow_from_the_times(raced):
    rows = {r["method"]: r for r in report.rows(raced, 10**9)}
    assert rows["ACClip"]["GB/s"] == pytest.approx(28 / 2.5)
    assert rows["ACClip"]["of_copy"] == pytest.approx([0.8] * 3)
    # 16 bytes a parameter in the time of 28.
    assert rows["GClip"]["of_copy"] == pytest.approx([16 / 28] * 3)
    assert rows["ACClip"]["to_adam"] is None
    assert report.goals(raced) == [
        "ACClip, loop ÷ optax Adam, loop: 0.50 (0.50–0.50), goal: below 1",
        "ACClip, loop ÷ PyTorch Adam, fused, CUDA graph, loop: 1.25 (1.25–1.25), goal: below 1",
        "ACClip, loop, bandwidth ÷ the copy's: 0.80 (0.80–0.80), goal: at least 0.85",
    ]


def test_the_table_leaves_out_columns_without_a_number(raced):
    lines = report.table(list(report.rows(raced, 10**9)), ["call", "loop"]).splitlines()
    assert lines[0] == (
        "| method | mode | ms (quartiles) | bytes | GB/s | of the copy | slots GB | first step s |"
    )
    assert lines[2].startswith("| ACClip | loop | 2500.0 (1875.0–3750.0) | 28 | 11.2 | 80.0% |")
    assert lines[-1].startswith(f"| {methods.COPY} | copy |")
    assert len({line.count("|") for line in lines}) == 1


def test_bert_base_with_six_layers_has_67_million_parameters():
    counts = {}
    for name, size in shapes.SIZES.items():
        made = shapes.bert_shapes(*size)
        counts[name] = len(made), round(sum(map(math.prod, made)) / 1e6)
    assert counts == {"67M": (106, 67), "110M": (202, 110), "1B": (314, 1025)}


def test_bert_shapes_are_those_of_keras_hub():
    keras_hub = pytest.importorskip("keras_hub")
    backbone = keras_hub.models.BertBackbone(100, 2, 2, 128, 512)
    backbone.pooled_dense.trainable = False
    model = keras_hub.models.BertMaskedLM(backbone)
    expected = sorted(tuple(v.shape) for v in model.trainable_variables)
    assert sorted(shapes.bert_shapes(2, 128, 100)) == expected
