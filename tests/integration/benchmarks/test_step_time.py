import json
import math
import os
import runpy
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import step_time
import tensorflow as tf

from contest import c_loops, memory, methods, shapes

REPOSITORY = Path(__file__).parents[3]
TINY = ["--layers", "1", "--hidden", "64", "--vocabulary", "50", "--rounds", "2"]

# As where TensorFlow is not installed: a race, then what a turn did to variables beside what the
# optimizer itself does in as many steps.
ON_JAX = """
import sys
sys.modules["tensorflow"] = None
import step_time
step_time.main(sys.argv[1:])

import keras
import numpy as np
from contest import jax_turns, methods, on_jax
jax_turns.TURN_SECONDS = 1e-4
field = on_jax.field([(5,), (3, 2)])
for contestant in on_jax.contestants(["ACClip"], field, ["call", "loop"]):
    if contestant.method != "ACClip":
        continue
    variables = [keras.Variable(x) for x in field.variables]
    start = [np.asarray(v) for v in variables]
    contestant.ready()
    contestant.step()
    contestant.done()
    optimizer = methods.METHODS["ACClip"].make()
    for _ in range(contestant.steps + on_jax.STEPS[contestant.mode]):
        optimizer.apply(field.gradients, variables)
    for variable, moved, before in zip(variables, field.variables, start, strict=True):
        np.testing.assert_allclose(moved, variable, rtol=0, atol=1e-6)
        assert np.abs(moved - before).min() > 1e-3
"""


@pytest.mark.slow
def test_every_contestant_is_printed_and_written(tmp_path, capsys):
    results = step_time.main([*TINY, "--output", str(tmp_path / "out.json")])
    printed = capsys.readouterr().out
    assert {(r["method"], r["mode"]) for r in results} == {
        (name, mode)
        for name in methods.USUAL["tensorflow"]
        for mode in step_time.MODES["tensorflow"]
    }
    assert "goal: at most 0.25" in printed


@pytest.mark.slow
def test_a_small_run_prints_and_writes_what_it_measured(tmp_path, capsys):
    line = ["--methods", "ACClip", "Keras Adam", "--modes", "graph", "--one-array"]
    results = step_time.main([*TINY, *line, "--output", str(tmp_path / "out.json")])
    printed = capsys.readouterr().out
    assert [(r["method"], r["mode"]) for r in results] == [
        ("ACClip", "graph"),
        ("Keras Adam", "graph"),
    ]
    assert all(r["ms"] > 0 and r["first_step_s"] > 0 for r in results)
    count = sum(map(math.prod, shapes.bert_shapes(1, 64, 50)))
    assert f"{count:,} parameters in 1 variables" in printed
    assert "ACClip, graph ÷ Keras Adam, graph" in printed
    written = json.loads((tmp_path / "out.json").read_text())
    assert {"command", "date", "machine", "versions"} < set(written)
    [race] = written["races"]
    assert race["parameters"] == count
    assert race["rows"] == results
    # Two slots, and the record of what was clipped.
    assert all(0 <= r["slot_bytes"] - 8 * count < 200 for r in results)
    # What docs/results/make.py makes a page's table of.
    assert [row["method"] for row in written["summary"]] == ["ACClip", "Keras Adam"]
    columns = [{"name": key, "key": key} for key in ("method", "graph_ms", "graph_to_adam")]
    made = runpy.run_path(str(REPOSITORY / "docs/results/make.py"))
    text = made["table_text"]({"columns": columns, "summary_of": "out.json"}, tmp_path)
    assert text.splitlines()[-1].startswith("| Keras Adam | ")
    assert text.splitlines()[-1].endswith(" | 1 |")


@pytest.mark.slow
def test_on_jax_a_turn_is_steps_in_place_and_needs_no_tensorflow(tmp_path):
    names = ["ACClip", "GClip", "Keras Adam"]
    line = [*TINY, "--one-array", "--backend", "jax", "--methods", *names]
    line += ["--output", str(tmp_path / "out.json")]
    path = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "benchmarks")])
    environment = os.environ | {"PYTHONPATH": path, "JAX_PLATFORMS": "cpu"}
    process = subprocess.run(
        [sys.executable, "-c", ON_JAX, *line],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr
    written = json.loads((tmp_path / "out.json").read_text())
    assert "jax" in written["versions"]
    [race] = written["races"]
    rows = {(r["method"], r["mode"]): r for r in race["rows"]}
    assert set(rows) == {
        (methods.COPY, "copy"),
        *[(name, mode) for name in (methods.BARE, *names) for mode in ("call", "loop")],
    }
    assert all(r["ms"] > 0 and r["of_copy"][1] > 0 for r in rows.values())
    assert rows["ACClip", "call"]["bytes_a_parameter"] == 28
    assert 0 <= rows["ACClip", "call"]["slot_bytes"] - 8 * race["parameters"] < 200
    # Variables and slots were donated, and the new ones took their place. On a CPU the record's
    # norm sets 4 bytes a parameter aside.
    assert rows["ACClip", "call"]["extra_bytes"] < 5 * race["parameters"]
    assert "ACClip, loop, bandwidth ÷ the copy's" in process.stdout


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--layers 2 --parameters 67M", "exclude each other"),
        ("--layers 0", "is not a whole number above 0"),
        ("--parameters 3M", "invalid choice"),
        ("--modes loop", "no mode 'loop'"),
        ("--backend jax --modes eager", "no mode 'eager'"),
        ("--methods optax_Adam", "invalid choice"),
    ],
)
def test_a_mistyped_flag_is_one_line(line, message, capsys):
    with pytest.raises(SystemExit) as exit_:
        step_time.main(line.split())
    assert exit_.value.code == 2
    assert message in capsys.readouterr().err


def test_a_method_of_another_backend_is_refused(capsys):
    with pytest.raises(SystemExit):
        step_time.main(["--methods", "optax Adam"])
    assert "does not run on the backend tensorflow" in capsys.readouterr().err


def test_torch_contestants_do_what_ours_do():
    pytest.importorskip("torch")
    from contest import on_torch

    contestants = list(on_torch.contestants(shapes.bert_shapes(1, 64, 50)))
    assert [c.method for c in contestants] == [
        *(f"PyTorch Adam, {form}" for form in ("for-loop", "foreach", "fused")),
        "PyTorch ACClip, plain",
    ]
    for contestant in contestants:
        contestant.begin()


# The loops leave out weight decay.
LOOPS = [
    name
    for name, method in methods.METHODS.items()
    if method.loop
    and "tensorflow" in method.backends
    and name not in ("ACClip, weight decay", "Keras AdamW")
]


@pytest.mark.parametrize("name", LOOPS)
def test_a_c_loop_does_its_rules_arithmetic(name):
    library = c_loops.compiled()
    if library is None:
        pytest.skip("no C compiler")
    method = methods.METHODS[name]
    x, g = np.random.default_rng(0).standard_normal((2, 1000)).astype(np.float32)
    x *= 1e-3  # So that the smallest step is far above the rounding of x.
    variable = keras.Variable(x)
    method.make().apply([tf.constant(g)], [variable])
    # The loop leaves out Adam's bias correction, a factor of the rate.
    correction = math.sqrt(1 - 0.999) / (1 - 0.9) if name == "Keras Adam" else 1.0
    moved = x.copy()
    step = c_loops.step_of(library, [(moved, np.zeros_like(x), np.zeros_like(x), g)])
    step(method.loop, correction * methods.RATE)
    np.testing.assert_allclose(moved - x, variable.numpy() - x, rtol=1e-3, atol=1e-9)
    assert np.abs(moved - x).max() > 5e-7


def test_peak_memory_counts_what_a_step_allocates():
    array = tf.ones((2000, 10_000))
    # oneDNN's allocator may hand out freed memory of up to twice the size.
    peak = memory.tensorflow_peak(lambda: array + 1)
    assert peak is None or 7.6e7 < peak < 1.7e8
    assert memory.resident_peak(lambda: np.ones(10_000_000)) in (None, pytest.approx(8e7, 0.05))
