import re

import pytest

from benchmarks import noise_cost


@pytest.mark.slow
def test_a_small_run_times_each_method_and_finds_two_gradients_of_memory(capfd):
    small = "--layers 1 --hidden 64 --vocabulary 100 --length 16 --batch-sizes 2 --batches 2"
    noise_cost.main([*small.split(), "--rounds", "2", "--width", "1024"])
    out = capfd.readouterr().out
    rows = re.findall(r"^ +2 (\w+) +[\d.]+ \([\d.]+ to [\d.]+\) +([\d.]+)$", out, re.MULTILINE)
    assert [name for name, _ in rows] == ["plain", "sketch", "exact"]
    assert rows[0][1] == "1.00"
    memory = dict(re.findall(r"(sketch|exact) +([\d.]+) gradients", out))
    # The sum of the gradients, the gradient of a batch, and activations, which are few.
    assert all(1.5 < float(gradients) < 2.6 for gradients in memory.values()), out
    assert len(memory) == 2
