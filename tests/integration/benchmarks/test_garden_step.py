import importlib.util
import json
import math

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


@pytest.mark.slow
def test_it_times_each_optimizer_and_finds_its_slots_in_memory(capfd, tmp_path):
    line = ["--models", "bert_tiny=3", "--optimizers", "acclip", "adamw", "--batch-size", "2"]
    output = tmp_path / "figures.json"
    figures = garden_step.main([*line, "--output", str(output)])
    out = capfd.readouterr().out
    for name, measured in figures["bert_tiny"].items():
        assert len(measured["seconds"]) == 3
        assert measured["first"] > max(measured["seconds"])  # It traces.
        # 2 layers of width 128 over 30,522 word pieces, with both heads.
        assert measured["parameters"] == pytest.approx(4.4e6, rel=0.03)
        # Parameters, gradients and two slots at least.
        assert measured["peak"] - measured["before"] > 4 * 4 * measured["parameters"]
        assert f"bert_tiny       {name}" in out
    assert all(math.isfinite(s) for m in figures["bert_tiny"].values() for s in m["seconds"])
    assert json.loads(output.read_text())["models"] == figures


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
