import math

import numpy as np
import pytest
import yaml

from keras_acclip.garden import compare, train
from keras_acclip.garden.data.shards import DataError
from keras_acclip.noise import NoiseSample
from tests.unit.garden.model_dirs import write_events, write_run


def cells(table):
    head, line, *rows = (
        [cell.strip() for cell in row.strip("|").split("|")] for row in table.splitlines()
    )
    assert all(set(cell) == {"-"} for cell in line)
    assert len({len(row) for row in table.splitlines()}) == 1
    return [dict(zip(head, row, strict=True)) for row in rows]


def test_a_table_of_pretraining_runs(tmp_path):
    a = write_run(tmp_path / "a", "adamw", validation_loss=2.5, masked_lm_accuracy=0.25)
    b = write_run(tmp_path / "b", validation_loss=2.25, lm_example_loss=1.5)
    assert cells(compare.compare([a, b], tmp_path / "out")) == [
        {
            "run": "a",
            "optimizer": "adamw",
            "learning rate": "0.02",
            "steps": "40",
            "validation loss": "2.5000",
            "masked-LM loss": "",
            "masked-LM accuracy (%)": "25.00",
            "steps/s": "7",
        },
        {
            "run": "b",
            "optimizer": "acclip",
            "learning rate": "0.02",
            "steps": "40",
            "validation loss": "2.2500",
            "masked-LM loss": "1.5000",
            "masked-LM accuracy (%)": "",
            "steps/s": "7",
        },
    ]
    assert (tmp_path / "out/comparison.png").read_bytes().startswith(b"\x89PNG")
    written = (tmp_path / "out/comparison.md").read_text()
    assert written.rstrip("\n") == compare.table([compare.read_run(a), compare.read_run(b)])


def test_a_table_of_question_answering_runs(tmp_path):
    run = compare.read_run(write_run(tmp_path / "qa", exact_match=0.5, final_f1=0.625), "mine")
    (row,) = cells(compare.table([run]))
    assert row["run"] == "mine"
    assert (row["EM (%)"], row["F1 (%)"]) == ("50.00", "62.50")
    assert "validation loss" not in row


def test_the_noise_stands_in_the_table_where_it_was_measured(tmp_path):
    rng = np.random.default_rng(0)
    a, b = (write_run(tmp_path / name, validation_loss=2.0) for name in "ab")
    (a / "noise").mkdir()
    for step in (10, 20):
        size, count = 4, 300
        sample = NoiseSample(
            norms=rng.pareto(1.5, count) + 1 if step == 20 else rng.random(count),
            gradient_norms=rng.random(count) + 3,
            losses=np.ones(count),
            batch_sizes=np.full(count, size),
            mean_gradient_norm=1.0,
            group_norms=np.zeros((0, count)),
            group_gradient_norms=np.zeros((0, count)),
            step=step,
        )
        sample.save(a / f"noise/noise-{step:08d}.npz")
    assert not compare.read_run(b).noise
    first, second = cells(compare.table([compare.read_run(a), compare.read_run(b)]))
    assert first["gradient noise"] == sample.classify().label == "heavy-tailed"
    assert first["noise scale"] == sample.noise_scale().short
    assert (second["gradient noise"], second["noise scale"]) == ("", "")
    assert train.last_noise(str(a)).startswith("Gradient noise at step 20, 300 batches; heavy-")
    assert train.last_noise(str(b)) is None
    (a / "noise/noise-00000030.npz").write_bytes(b"broken")
    with pytest.raises(DataError, match=r"noise-00000030.npz: can't be read"):
        compare.read_run(a)


def test_a_small_gap_looks_small(tmp_path):
    runs = [
        compare.read_run(write_run(tmp_path / name, masked_lm_accuracy=value))
        for name, value in (("a", 0.50), ("b", 0.503))
    ]
    for run in runs:
        for step in run.validation["masked_lm_accuracy"]:
            run.validation["masked_lm_accuracy"][step] -= step == 20
        run.train["training_loss"] = dict.fromkeys(range(0, 1000, 10), 5.0) | {0: 5.03}
    left, right = compare.curves(runs).axes
    low, high = left.get_ylim()
    assert high - low >= 1 and low < 5 < 5.03 < high
    low, high = right.get_ylim()
    assert high - low >= 10 and low < 50 < high
    marked = [line.get_markevery() for line in left.get_lines()]
    assert marked == [10, 10]


def test_the_later_summary_of_a_repeated_step_counts(tmp_path):
    folder = write_run(tmp_path / "a", validation_loss=2.0)
    write_events(folder / "train", [("training_loss", 30, 77.0), ("training_loss", 50, 78.0)])
    run = compare.read_run(folder)
    assert list(run.train["training_loss"]) == [10, 20, 30, 40, 50]
    assert run.train["training_loss"][30] == 77.0
    assert run.steps == 50


def test_an_unfinished_run_is_marked(tmp_path):
    folder = write_run(tmp_path / "a", steps=40)
    params = yaml.safe_load((folder / "params.yaml").read_text())
    params["trainer"]["train_steps"] = 1000
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    assert cells(compare.table([compare.read_run(folder)]))[0]["steps"] == "40 of 1,000"


def test_curves_hold_the_values_and_differ_without_colour(tmp_path):
    runs = [
        compare.read_run(write_run(tmp_path / name, validation_loss=value))
        for name, value in (("a", 2.0), ("b", 3.0), ("c", math.nan))
    ]
    left, right = compare.curves(runs).axes
    for axes in (left, right):
        lines = axes.get_lines()
        assert [line.get_label() for line in lines] == ["a", "b", "c"]
        assert len({(line.get_linestyle(), line.get_marker()) for line in lines}) == 3
    np.testing.assert_array_equal(right.get_lines()[1].get_xydata(), [[20, 4.0], [40, 3.0]])
    expected = list(runs[0].train["training_loss"].items())
    np.testing.assert_array_equal(left.get_lines()[0].get_xydata(), expected)
    assert right.get_ylabel() == "validation loss"


def test_runs_of_one_name_are_called_by_their_paths(tmp_path):
    assert compare.names(["x/a", "y/b"]) == ["a", "b"]
    assert compare.names(["x/a", "y/a"]) == ["x/a", "y/a"]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / "params.yaml").unlink(), "params.yaml: can't be read: No such file"),
        (lambda f: (f / "params.yaml").write_text("{"), "params.yaml: not an experiment's"),
        (lambda f: (f / "params.yaml").write_text("[]"), "params.yaml: not an experiment's"),
        (lambda f: [p.unlink() for p in (f / "train").iterdir()], "train: holds no summaries"),
    ],
)
def test_a_folder_that_is_no_run_is_named(tmp_path, capsys, spoil, message):
    folder = write_run(tmp_path / "a", validation_loss=2.0)
    spoil(folder)
    with pytest.raises(DataError, match=message):
        compare.read_run(folder)
    assert compare.main([str(folder), "--output", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.startswith(f"error: {folder}")
    assert not (tmp_path / "out").exists()


def test_the_command(tmp_path, capsys):
    folder = write_run(tmp_path / "a", validation_loss=2.0)
    assert compare.main([str(folder), "--output", str(tmp_path / "out")]) == 0
    assert "| a " in capsys.readouterr().out
    (tmp_path / "file").write_text("")
    assert compare.main([str(folder), "--output", str(tmp_path / "file")]) == 2
    assert "file: can't be written" in capsys.readouterr().err
    (tmp_path / "out/comparison.png").unlink()
    (tmp_path / "out/comparison.png").mkdir()
    assert compare.main([str(folder), "--output", str(tmp_path / "out")]) == 2
    assert "comparison.png: can't be written" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ({"type": "polynomial", "polynomial": {"initial_learning_rate": 3e-4}}, 3e-4),
        ({"type": "constant", "constant": {"learning_rate": 2e-3}}, 2e-3),
        ({"type": "stepwise", "stepwise": {"values": [0.1, 0.2]}}, 0.02),
        (None, 0.02),
    ],
)
def test_the_learning_rate_is_the_schedules(tmp_path, schedule, expected):
    run = compare.read_run(write_run(tmp_path / "a"))
    run.trainer["optimizer_config"]["learning_rate"] = schedule
    assert run.learning_rate == pytest.approx(expected)


@pytest.mark.filterwarnings("error")
def test_curves_without_validation(tmp_path):
    left, right = compare.curves([compare.read_run(write_run(tmp_path / "a"))]).axes
    assert len(left.get_lines()) == 1 and not right.get_lines()


def test_all_folders_that_are_no_runs_are_named(tmp_path, capsys):
    good = write_run(tmp_path / "a", validation_loss=2.0)
    words = [str(good), str(tmp_path / "none"), str(tmp_path / "other")]
    assert compare.main([*words, "--output", str(tmp_path / "out")]) == 2
    first, *others = capsys.readouterr().err.splitlines()
    assert first == "error: 2 runs can't be compared:"
    assert ["none/params.yaml" in others[0], "other/params.yaml" in others[1]] == [True, True]
