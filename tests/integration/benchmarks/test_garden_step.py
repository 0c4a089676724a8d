import importlib.util
import json
import math
import subprocess
import sys

import garden_step
import pytest

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("official") is None, reason="needs the Model Garden"
)


def test_a_row_has_the_ratio_to_the_baseline_and_the_memory_in_parameters():
    ours = {"parameters": 10**8, "first": 9.0, "seconds": [1.0, 3.0, 2.0]}
    theirs = ours | {"seconds": [4.0, 4.0, 5.0]}
    row = garden_step.row("m", "acclip", ours | {"before": 10**9, "peak": 3 * 10**9}, theirs)
    assert row.split()[:6] == ["m", "acclip", "100.0", "2.00", "(1.00", "to"]
    assert row.split()[6:] == ["3.00)", "0.50", "9.0", "3.00", "5.0"]


def test_the_summary_has_a_row_for_each_model_and_optimizer():
    ours = {"parameters": 10, "first": 9.0, "seconds": [1.0, 3.0, 2.0], "peak": 3 * 10**9}
    rows = garden_step.summary({"m": {"acclip": ours, "adamw": ours | {"seconds": [4.0]}}})
    assert [row["to_adamw"] for row in rows] == [0.5, 1.0]
    assert rows[0] == {
        "model": "m",
        "optimizer": "acclip",
        "parameters": 10,
        "seconds": 2.0,
        "to_adamw": 0.5,
        "first_s": 9.0,
        "peak_gb": 3.0,
    }
    assert garden_step.summary({"m": {"acclip": ours}})[0]["to_adamw"] is None


@pytest.mark.slow
def test_it_times_each_optimizer_and_finds_its_slots_in_memory(tmp_path):
    line = ["--models", "bert_tiny=3", "--optimizers", "acclip", "adamw", "--batch-size", "2"]
    output = tmp_path / "figures.json"
    # In a process of its own: the peak of another test's memory would hide this one's.
    command = [sys.executable, garden_step.__file__, *line, "--output", str(output)]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    figures = json.loads(output.read_text())["models"]
    for name, measured in figures["bert_tiny"].items():
        assert len(measured["seconds"]) == 3
        assert measured["first"] > max(measured["seconds"])  # It traces.
        # 2 layers of width 128 over 30,522 word pieces, with both heads.
        assert measured["parameters"] == pytest.approx(4.4e6, rel=0.03)
        # Parameters, gradients and two slots at least.
        assert measured["peak"] - measured["before"] > 4 * 4 * measured["parameters"]
        assert f"bert_tiny       {name}" in out
    assert all(math.isfinite(s) for m in figures["bert_tiny"].values() for s in m["seconds"])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--models bert_tiny", "want MODEL=STEPS"),
        ("--models bert_tiny=0", "want MODEL=STEPS"),
        ("--models bert_tiny=a", "want MODEL=STEPS"),
        ("--models bert_huge=3", "There is no file 'bert_huge'"),
        ("--optimizers acclip adamv", "There is no file 'adamv'"),
        ("--batch-size 0", "is not a whole number above 0"),
        ("--data nowhere.yaml", "there is no file 'nowhere.yaml'"),
    ],
)
def test_a_mistyped_flag_is_one_line(line, message, capsys):
    with pytest.raises(SystemExit) as exit_:
        garden_step.main(line.split())
    assert exit_.value.code == 2
    assert message in capsys.readouterr().err
