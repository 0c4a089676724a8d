import json
import re

import noise_cost
import pytest

WAYS = ["plain", "sketch", "exact", "training", "followed"]


@pytest.mark.slow
def test_a_small_run_times_each_method_and_finds_two_gradients_of_memory(capfd, tmp_path):
    small = "--layers 1 --hidden 64 --vocabulary 100 --length 16 --batch-sizes 2 --batches 2"
    output = tmp_path / "out.json"
    noise_cost.main([*small.split(), *f"--rounds 2 --width 1024 --output {output}".split()])
    out = capfd.readouterr().out
    rows = re.findall(r"^ +2 (\w+) +[\d.]+ \([\d.]+ to [\d.]+\) +([\d.]+)$", out, re.MULTILINE)
    assert [name for name, _ in rows] == WAYS
    assert rows[0][1] == "1.00"
    memory = dict(re.findall(r"(sketch|exact) +([\d.]+) gradients", out))
    # The sum of the gradients, the gradient of a batch, and activations, which are few.
    assert all(1.5 < float(gradients) < 2.6 for gradients in memory.values()), out
    assert len(memory) == 2
    written = json.loads(output.read_text())
    assert [row["method"] for row in written["rows"]] == WAYS
    assert written["summary"][0]["to_plain"] == 1.0
    assert set(written["memory_gradients"]) == set(memory)


@pytest.mark.parametrize(
    ("line", "message"),
    [("--batches 1", "two batches or more"), ("--width 0", "is not a whole number above 0")],
)
def test_a_mistyped_flag_is_one_line(line, message, capsys):
    with pytest.raises(SystemExit) as exit_:
        noise_cost.main(line.split())
    assert exit_.value.code == 2
    assert message in capsys.readouterr().err


def test_a_backend_that_it_can_not_run_on_is_refused(monkeypatch, capsys):
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    with pytest.raises(SystemExit):
        noise_cost.main([])
    assert "tensorflow and jax" in capsys.readouterr().err
