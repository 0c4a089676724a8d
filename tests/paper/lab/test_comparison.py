import json
import math

import numpy as np
import pytest
from lab import comparison, figures, tables
from lab.plans import Spec
from lab.resuming import plain
from scipy import stats


def run(optimizer, rate, seed, val_loss, loss=5.0):
    row = {"loss": loss, "val_accuracy": 0.25, "tokens_per_second": 1000.0, "seconds": 2.0}
    history = [
        {"step": 10, "val_loss": val_loss + 1} | row,
        {"step": 20, "val_loss": val_loss} | row | {"tokens_per_second": 3000.0},
    ]
    return {"optimizer": optimizer, "learning_rate": rate, "seed": seed, "history": history}


@pytest.fixture
def losses():
    return np.random.default_rng(0).normal(4.5, 0.1, (2, 5))


@pytest.fixture
def runs(losses):
    return [
        run(optimizer, 1e-3, seed, loss)
        for optimizer, row in zip(("acclip", "adam"), losses, strict=True)
        for seed, loss in enumerate(row)
    ]


def test_summary_is_mean_and_sample_deviation_of_the_last_epoch(runs, losses):
    rows = comparison.summary(runs)
    assert [row["optimizer"] for row in rows] == ["acclip", "adam"]
    for row, expected in zip(rows, losses, strict=True):
        assert row["seeds"] == 5
        assert row["val_loss"]["mean"] == pytest.approx(expected.mean())
        assert row["val_loss"]["sd"] == pytest.approx(expected.std(ddof=1))
        assert row["tokens_per_second"]["mean"] == 2000  # The median epoch's.
        assert row["seconds"]["mean"] == 4  # All epochs'.


def test_paired_difference_agrees_with_scipys_paired_t_test(runs, losses):
    (row,) = comparison.paired_difference(runs, "adam", confidence=0.9)
    expected = stats.ttest_rel(*losses).confidence_interval(0.9)
    assert row["optimizer"] == "acclip"
    assert row["differences"] == pytest.approx(losses[0] - losses[1])
    assert (row["low"], row["high"]) == pytest.approx((expected.low, expected.high))


def test_paired_difference_pairs_by_seed_not_by_place(runs):
    assert comparison.paired_difference(runs, "adam") == comparison.paired_difference(
        runs[:5] + runs[:4:-1], "adam"
    )


def test_one_seed_has_no_interval(runs):
    (row,) = comparison.paired_difference([runs[0], runs[5]], "adam")
    assert math.isnan(row["low"])
    assert math.isnan(row["high"])
    assert "no interval" in tables.sentences([row])
    assert "±" not in tables.table([runs[0]])


def test_without_the_baseline_there_is_nothing_to_compare(runs):
    assert comparison.paired_difference(runs[:5], "adam") == []


def test_best_rate_has_the_lowest_mean_validation_loss():
    tried = {1e-3: (4.6, 4.8), 2e-3: (4.5, 4.7), 4e-3: (4.4, math.nan), 8e-3: (5.0, math.inf)}
    runs = [
        run(name, rate * scale, seed, loss)
        for name, scale in (("adam", 1), ("sgd", 100))
        for rate, values in tried.items()
        for seed, loss in enumerate(values)
    ]
    best = comparison.best_specs(runs)
    assert best == {"adam": Spec("adam", 2e-3), "sgd": Spec("sgd", 0.2)}
    assert comparison.at_the_edge(runs, best) == []
    assert comparison.at_the_edge(runs[2:], best) == ["adam"]


def test_the_best_rate_can_be_that_of_the_highest_measure():
    f1 = {1e-4: 20.0, 5e-4: 25.0, 1e-3: math.nan}
    runs = [
        {"optimizer": "adam", "learning_rate": rate, "seed": 0}
        | {"history": [{"f1": value, "seconds": 1.0}]}
        for rate, value in f1.items()
    ]
    assert comparison.best_specs(runs, "f1", highest=True) == {"adam": Spec("adam", 5e-4)}
    assert comparison.best_specs(runs, "f1") == {"adam": Spec("adam", 1e-4)}


def test_table_holds_each_optimizers_figures(runs, losses):
    header, _, *rows = tables.table(runs).splitlines()
    assert header.split("|")[1].strip() == "optimizer"
    cells = [cell.strip() for cell in rows[1].split("|")[1:-1]]
    assert cells[:3] == ["adam", "0.001", "5"]
    assert f"{losses[1].mean():.3f} ± {losses[1].std(ddof=1):.3f}" in cells


def test_markdown_aligns_the_columns():
    rows = [["a", "long header"], ["longer cell", "b"]]
    assert tables.markdown(rows).splitlines() == [
        "| a           | long header |",
        "| ----------- | ----------- |",
        "| longer cell | b           |",
    ]
    assert len(rows) == 2


def test_plot_draws_a_line_for_each_optimizer(runs, tmp_path, monkeypatch):
    import matplotlib.figure

    drawn = []
    savefig = matplotlib.figure.Figure.savefig
    monkeypatch.setattr(
        matplotlib.figure.Figure,
        "savefig",
        lambda self, *a, **k: (drawn.append(self), savefig(self, *a, **k)),
    )
    figures.plot_losses(runs, tmp_path / "loss.png", "a title")
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")
    for panel, name in zip(drawn[0].axes, ("loss", "val_loss"), strict=True):
        for line, group in zip(panel.lines, (runs[:5], runs[5:]), strict=True):
            means = np.mean([[row[name] for row in r["history"]] for r in group], 0)
            np.testing.assert_allclose(line.get_ydata(), means)
            np.testing.assert_array_equal(line.get_xdata(), [10, 20])


def test_results_are_strict_json(runs):
    results = {"summary": comparison.summary([runs[0], run("sgd", 1.0, 0, math.nan)])}
    text = json.dumps(plain(results), allow_nan=False)
    acclip, sgd = json.loads(text)["summary"]
    assert acclip["val_loss"]["mean"] == runs[0]["history"][-1]["val_loss"]
    assert sgd["val_loss"]["mean"] is None


def test_no_picture_is_left_where_drawing_fails(tmp_path):
    import matplotlib.pyplot as plt

    with pytest.raises(ZeroDivisionError), figures.picture(tmp_path / "a.png", "a title"):
        raise ZeroDivisionError
    assert not list(tmp_path.iterdir())
    assert not plt.get_fignums()
