"""The noise of the comparison's models is that of their gradients, stage by stage."""

import json
import math
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats
from training import noise, noise_tables, plan, report, rows, workloads

from keras_acclip.noise import NoiseSample, tails

pytestmark = pytest.mark.xdist_group("training noise")  # The fixture runs once, in one process.

ROOT = Path(__file__).parents[3]
PATHS = [str(ROOT), str(ROOT / "benchmarks"), str(ROOT / "examples")]
STEPS, BATCH, COUNT = 64, 16, 120
PROGRAM = """
import dataclasses, json, os, sys
from pathlib import Path

import numpy as np
from training import noise, rows, workloads

folder, STEPS, BATCH, COUNT = Path(sys.argv[1]), *map(int, sys.argv[2:])
sizes = {"classes": 8, "features": 4, "spread": 0.5, "held_out": 64, "full": False}
small = dataclasses.replace(workloads.WORKLOADS["zipf-64"], steps=STEPS, batch=BATCH, sizes=sizes)
workloads.WORKLOADS["zipf-64"] = small
command = ["--workload", "zipf-64", "--batches", str(COUNT), "--rows", str(folder / "rows.jsonl")]
path = folder / noise.NOISE
found, weights, batches, steps = {}, [], [], []
show, assign, further = noise.Progress.__call__, noise.assign, noise.further_batches

def stopped_on_the_way(*arguments):
    show(*arguments)
    if arguments[-2] > 3 * STEPS // 8:
        raise KeyboardInterrupt

def seen(*arguments):
    show(*arguments)
    steps.append(arguments[-2:])

def assigned(model, state):
    assign(model, state)
    weights.append([np.array(v.value) for v in model.trainable_variables])

def furthered(problem, first, count):
    batches.extend(further(problem, first, count))
    return batches[-count:]

noise.assign, noise.further_batches, noise.Progress.__call__ = assigned, furthered, seen
from keras_acclip.noise import NoiseMeter

measure = NoiseMeter.measure
NoiseMeter.measure = lambda *a, **k: dataclasses.replace(measure(*a, **k), interrupted=True)
found["within"] = [noise.main(command), path.exists()]
NoiseMeter.measure = measure
noise.Progress.__call__ = stopped_on_the_way
found["between"] = [noise.main(command), path.read_text()]
noise.Progress.__call__ = seen
found["kept"] = [p.name for p in (folder / "keras-acclip").glob("noise-*")]
weights.clear(), batches.clear(), steps.clear()
found["then"] = [noise.main(command), path.read_text(), list(steps)]
steps.clear()
found["again"] = [noise.main(command), path.read_text(), list(steps)]
found["left"] = [p.name for p in (folder / "keras-acclip").glob("noise-*")]

start, later = ([[np.zeros((1, 2), "float32")], [], [np.int32([k])]] for k in (0, 7))
state = folder / "state.npz"
states = [noise.going_on(state, start, 32)]
noise.save_state(state, 24, later)
states += [noise.going_on(state, start, step) for step in (16, 24)]
found["states"] = [[taken, int(slots[0][0])] for taken, (_, _, slots) in states]

from training import trainer
settings = noise.settings_of("zipf-64", [])
end = trainer.weights(small, "adamw", (settings, 0), STEPS).values()
start = small.make(small, 0, STEPS)
trained = further(start, 0, STEPS)
arrays = {"x": np.stack([x for x, _ in batches]), "y": np.stack([y for _, y in batches])}
arrays |= {"trained": np.stack([x for x, _ in trained])}
arrays |= {f"{name}-{i}": w for i, of in enumerate(weights) for name, w in zip("wb", of)}
arrays |= {f"end-{name}": w for name, w in zip("wb", end)}
arrays |= {f"held-out-{n}": np.asarray(x[0]) for n, x in zip("xy", start.own["unseen"])}
np.savez(folder / "arrays.npz", **arrays)
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """What a command says that is stopped twice and then goes on, and what it measured on."""
    folder = tmp_path_factory.mktemp("noise")
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(folder), *map(str, (STEPS, BATCH, COUNT))],
        env={"PYTHONPATH": ":".join(PATHS), "KERAS_BACKEND": "jax", "PATH": ""}
        | {"XDG_CACHE_HOME": str(folder)},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    found = json.loads(run.stdout.splitlines()[-1])
    with np.load(folder / "arrays.npz") as arrays:
        return found | {"arrays": dict(arrays)}


def lines(text):
    return [json.loads(line) for line in text.splitlines()]


def softmax(logits):
    exponentials = np.exp(logits - logits.max(-1, keepdims=True))
    return exponentials / exponentials.sum(-1, keepdims=True)


def gradients(arrays, number):
    """Of each batch by hand, of the mean cross-entropy: the weights' and the biases'."""
    x, y = arrays["x"].astype(float), arrays["y"]
    w, b = (arrays[f"{name}-{number}"].astype(float) for name in "wb")
    errors = (softmax(x @ w + b) - np.eye(len(b))[y]) / BATCH
    return np.einsum("nbd,nbk->ndk", x, errors).reshape(len(x), -1), errors.sum(1)


def scale_of(parts):
    """tr Σ of one example and ‖∇f‖², by their definitions."""
    trace = BATCH * parts.var(0, ddof=1).sum()
    return trace, np.sum(parts.mean(0) ** 2) - trace / BATCH / len(parts)


def test_noise_is_that_of_gradients_taken_by_hand(measured):
    arrays = measured["arrays"]
    # The stopped command measured the first two stages; the last two were left.
    for number, row in enumerate(lines(measured["then"][1])[2:]):
        kernels, biases = gradients(arrays, number)
        both = np.concatenate([kernels, biases], 1)
        norms = np.linalg.norm(both - both.mean(0), axis=1)
        np.testing.assert_allclose(row["norms"], norms, rtol=1e-4)
        told = tails.classify(norms)
        assert row["verdict"] == told.label
        np.testing.assert_allclose([float(x) for x in row["tail_index"]], told.tail_index, 1e-2)
        groups = row["groups"]
        for part, of in (
            (both, row),
            (kernels, groups["dense layers"]),
            (biases, groups["normalizations and biases"]),
        ):
            trace, squared = scale_of(part)
            assert of["noise_variance"] == pytest.approx(trace / BATCH, rel=1e-4)
            assert of["squared_gradient"] == pytest.approx(squared, rel=1e-2, abs=1e-6)
            if of["noise_scale"][0] is not None:
                assert of["noise_scale"][0] == pytest.approx(trace / squared, rel=1e-2)
            assert of["parameters"] == part.shape[1]


def test_the_training_is_the_study_s_and_none_of_its_batches_is_measured(measured):
    arrays, row = measured["arrays"], lines(measured["then"][1])[-1]
    for name in "wb":
        np.testing.assert_allclose(arrays[f"{name}-1"], arrays[f"end-{name}"], rtol=1e-5)
    assert len(arrays["x"]) == COUNT
    examples = {tuple(x) for x in arrays["trained"].reshape(-1, 4)}
    assert len(examples) == STEPS * BATCH
    assert not examples & {tuple(x) for x in arrays["x"].reshape(-1, 4)}
    assert (row["examples"], row["distinct_examples"]) == (COUNT * BATCH, COUNT * BATCH)
    logits = arrays["held-out-x"] @ arrays["end-w"] + arrays["end-b"]
    chosen = softmax(logits)[np.arange(len(logits)), arrays["held-out-y"]]
    assert row["loss"] == pytest.approx(-np.log(chosen).mean(), rel=1e-4)


def test_stopped_it_keeps_its_stages_and_measures_the_others_alone(measured):
    assert measured["within"] == [130, False]
    status, text = measured["between"]
    before = lines(text)
    assert status == 130 and [row["step"] for row in before] == [0, STEPS // 4]
    status, whole, steps = measured["then"]
    assert status == 0 and whole.startswith(text)
    assert [row["stage"] for row in lines(whole)] == [0, 0.25, 0.5, 1]
    assert [row["step"] for row in lines(whole)] == [0, 16, 32, 64]
    # It goes on from where it was stopped, which was past three eighths.
    assert steps[0] == [28, 0] and steps[-1] == [STEPS, 2] and [STEPS // 2, 1] in steps
    assert measured["again"] == [0, whole, []]
    assert len(measured["kept"]) == 1 and measured["left"] == []


def test_a_state_is_of_use_up_to_the_next_stage_alone(measured):
    assert measured["states"] == [[0, 0], [0, 0], [24, 7]]


def test_another_choice_is_measured_anew():
    row = {"workload": "lm", "hyperparameters": {"rate": 0.1}, "seed": 0, "steps": 64}
    row |= {"step": 32, "batches": 400}
    for change in ({"hyperparameters": {"rate": 0.2}}, {"step": 16}, {"batches": 100}):
        assert noise_tables.identity(row | change) != noise_tables.identity(row)
    assert noise_tables.identity(row | {"stage": 0.5}) == noise_tables.identity(row)


def test_without_a_choice_adamw_trains_untuned():
    study = plan.Study("images", workloads.WORKLOADS["images"], "adamw", [])
    assert noise.settings_of("images", []) == study.untuned()


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--workload", "glue"], "no workload 'glue'"),
        (["--workload", "zipf"], "zipf-full: all steps see the same examples"),
        (["--stages", "0.5", "1.5"], "'1.5' is not a number from 0 to 1"),
        (["--stages", "late"], "'late' is not a number from 0 to 1"),
        (["--batches", "9"], "at least 10"),
    ],
)
def test_a_mistake_is_one_line(arguments, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        noise.main(arguments)
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and message in error


def test_a_broken_line_is_named(tmp_path, capsys):
    (tmp_path / noise.NOISE).write_text('{"workload": "lm"}\n')
    with pytest.raises(SystemExit, match="2"):
        noise.main(["--rows", str(tmp_path / "rows.jsonl")])
    assert "noise.jsonl, line 1" in capsys.readouterr().err


def test_trainings_on_another_text_are_not_measured(tmp_path, monkeypatch):
    options = noise.parse_arguments(["--workload", "lm", "--rows", str(tmp_path / "rows.jsonl")])
    options.found = [{"workload": "lm", "contestant": "sgd", "text": "one"}]
    monkeypatch.setattr(workloads, "name_of_text", lambda name: "another")
    with pytest.raises(rows.RowsError, match="the rows are of another text, one"):
        noise.measure("lm", options, {})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("embeddings_norm/gamma", "normalizations and biases"),
        ("self_attention_0/query/bias", "normalizations and biases"),
        ("head/output_bias", "normalizations and biases"),
        ("batch_normalization_3/beta", "normalizations and biases"),
        ("position_embedding/embeddings", "embeddings"),
        ("multi_head_attention_1/attention_output/kernel", "attention"),
        ("conv2d_4/kernel", "convolutions"),
        ("feedforward_1_wide/kernel", "dense layers"),
        ("head/intermediate_dense/kernel", "dense layers"),
    ],
)
def test_a_variable_s_kind(path, kind):
    from keras_acclip.noise.groups import divide

    assert divide([path], {kind: noise.KINDS[kind]})[0] == [kind]
    earlier = list(noise.KINDS)[: list(noise.KINDS).index(kind)]
    assert not set(earlier) & set(noise.groups_of([path]))
    assert kind in noise.groups_of([path])


# --- The tables ---


def test_a_scale_in_tokens_is_that_in_examples_times_a_row_s_length():
    norms = np.random.default_rng(0).normal(10, 1, 400)
    sample = NoiseSample(norms, norms, norms, np.full(400, 16), mean_gradient_norm=1.0)
    sample.settings.update(examples=6_400, distinct_examples=6_000)
    row = noise.row_of(sample, workloads.WORKLOADS["mlm-16"])
    scale = sample.noise_scale()
    expected = [scale.value, scale.low, scale.high]
    np.testing.assert_allclose(row["noise_scale"], expected, rtol=1e-5)
    np.testing.assert_allclose(row["noise_scale_in_tokens"], np.multiply(expected, 64), rtol=1e-5)
    per_batch = noise_tables.per_batch(row)
    np.testing.assert_allclose(per_batch, np.divide(expected, 16), rtol=1e-5)
    assert row["squared_gradient"] == pytest.approx(scale.squared_gradient, rel=1e-5)
    assert json.loads(json.dumps(row, allow_nan=False)) == row


def planted(workload, stage, tail, scale, **changes):
    steps = workloads.WORKLOADS[workload].steps
    told = {
        "verdict": "concentrated",
        "tail_index": tail,
        "noise_scale": scale,
        "noise_variance": 4.0,
        "parameters": 10,
    }
    row = {
        "workload": workload,
        "hyperparameters": {"rate": 0.1},
        "seed": 0,
        "steps": steps,
        "stage": stage,
        "step": round(stage * steps),
        "batches": 400,
        "batch": 16,
        "noise_scale_in_tokens": [x and 64 * float(x) for x in scale],
        "groups": {"attention": told | {"noise_variance": 1.0}},
        "machine": "none",
        "versions": {"jax": "1"},
        "date": "2026-01-01",
    }
    return told | row | changes


LEAD = {"value": -0.1, "low": -0.2, "high": -0.05}


def test_the_table_has_a_row_a_stage_and_the_lead_once():
    found = [
        planted("mlm-16", 0.5, ["inf", 2.5, "inf"], [320.0, 160.0, 640.0]),
        planted("mlm-16", 0.0, [3.0, 2.0, 6.0], [32.0, 16.0, 48.0]),
        planted("mlm-16", 0.5, [1.5, 1.2, 2.0], [None, 4000.0, "inf"], verdict="heavy-tailed"),
        planted("lm", 1.0, [None, None, None], [8.0, 4.0, "inf"], hyperparameters={"rate": 1}),
    ]
    leads = {"mlm-16": [LEAD, None], "lm": [None, None]}
    made = noise_tables.noise(found, leads, {"mlm-16": {"rate": 0.1}}, {"lm": {"rate": 1}})
    assert made == [
        [
            *("mlm-16", "tuned", "the start", "concentrated", "3 (2 to 6)", "32 (16 to 48)"),
            *("2,050 (1,020 to 3,070)", "2 (1 to 3)", LEAD, None),
        ],
        [
            *("mlm-16", "tuned", "half", "heavy-tailed", "1.5 (1.2 to 2)", "at least 4,000"),
            *("at least 256,000", "at least 250", "", ""),
        ],
        [
            *("lm", "untuned", "the end", "concentrated", "–", "8 (4 to ∞)"),
            *("512 (256 to ∞)", "0.5 (0.25 to ∞)", None, None),
        ],
    ]
    again = noise_tables.noise(found, leads, {"mlm-16": {"rate": 0.2}}, {})
    assert [row[1] for row in again] == ["tuned, chosen before"] * 3


def test_the_groups_table_is_of_half_of_the_training():
    found = [
        planted("mlm-16", stage, ["inf", "inf", "inf"], [32.0, 16.0, 48.0]) for stage in (0.5, 1.0)
    ]
    assert noise_tables.groups(found) == [
        ["mlm-16", "attention", 10, "25%", "concentrated", "∞", "32 (16 to 48)"]
    ]


def test_the_rank_correlation_is_scipys():
    leads = {"mlm-16": -0.12, "mlm-128": -0.01, "outliers": -0.03, "zipf-64": 0.002, "lm": -0.02}
    index = {"mlm-16": 2.0, "mlm-128": 4.0, "outliers": 1.2, "zipf-64": math.inf, "lm": 3.0}
    scales = {"mlm-16": 900.0, "mlm-128": 100.0, "outliers": 90.0, "zipf-64": 8000.0, "lm": None}
    found = [
        planted(name, 0.5, [index[name]] * 3, [scales[name]] * 3, batch=batch)
        for name, batch in zip(leads, (16, 128, 16, 64, 32), strict=True)
    ]
    # Another stage and a workload that is not compared count for nothing.
    found += [
        planted("mlm-16", 1.0, [9.0] * 3, [1.0] * 3),
        planted("images", 0.5, [1.0] * 3, [2.0] * 3),
    ]
    cells = {name: [{"value": lead}, None] for name, lead in leads.items()} | {"images": [None]}
    told = noise_tables.relation(found, cells)
    four = [name for name in leads if name != "lm"]
    batches = [16, 128, 16, 64]
    for row, names, values in (
        (told[0], leads, [index[name] for name in leads]),
        (told[1], four, [scales[name] for name in four]),
        (told[2], four, [scales[n] / b for n, b in zip(four, batches, strict=True)]),
    ):
        rho = stats.spearmanr([leads[name] for name in names], values).statistic
        assert row[1] == str(len(values)) and -1 < rho < 1
        assert float(row[2].replace("−", "-")) == pytest.approx(rho, abs=0.005)
    assert told[0][0] == "tail index" and [row[3] for row in told] == ["0.017", "0.083", "0.083"]


def test_the_least_p_is_that_of_a_perfect_order():
    pairs = [(float(k), float(k**2)) for k in range(5)]
    cells = noise_tables.rank_correlation(pairs)
    x = [a for a, _ in pairs]

    def statistic(y):
        return stats.spearmanr(x, y).statistic

    exact = stats.permutation_test(
        ([b for _, b in pairs],), statistic, permutation_type="pairings", n_resamples=math.inf
    )
    assert cells[0] == "+1.00"
    assert float(cells[1]) == pytest.approx(exact.pvalue, rel=0.05)


@pytest.mark.parametrize(
    "pairs", [[], [(1.0, 2.0), (2.0, 3.0)], [(1.0, 5.0), (2.0, 5.0), (3.0, 5.0)]]
)
def test_too_few_or_equal_values_have_no_correlation(pairs):
    assert noise_tables.rank_correlation(pairs) == ["–", "–"]


def test_a_lead_is_of_complete_comparisons_alone():
    differences = {"acclip": LEAD | {"p": 0.1}, "clip_adamw_moment": LEAD | {"p": 0.2}}

    def compared(name, complete):
        return SimpleNamespace(
            name=name, complete=lambda c: c in complete, difference=differences.get
        )

    found = report.leads(
        [
            compared("lm", ("adamw", "acclip", "clip_adamw_moment")),
            compared("images", ("adamw", "acclip")),
            compared("squad", ("acclip", "clip_adamw_moment")),
        ]
    )
    assert found == {"lm": [LEAD, LEAD], "images": [LEAD, None], "squad": [None, None]}


def test_without_a_measurement_there_are_tables_without_numbers():
    assert noise_tables.noise([], {}, {}, {}) == noise_tables.groups([]) == []
    assert [row[1:] for row in noise_tables.relation([], {})] == [["0", "–", "–"]] * 3
    assert noise_tables.measured([]) == []


def test_what_was_measured_when():
    found = [
        planted("lm", 0.0, [3.0] * 3, [3.0] * 3, text="a book"),
        planted("lm", 1.0, [3.0] * 3, [3.0] * 3, text="a book", date="2026-01-02"),
    ]
    (told,) = noise_tables.measured(found)
    assert told["what"] == "the gradient noise of lm, 2 stages"
    assert told["seeds"] == "1, 400 batches a stage"
    assert told["versions"] == "jax 1; text of a book"
    assert told["recorded"] == "2026-01-01 to 2026-01-02"
