"""The tables of the comparison are what NumPy and SciPy make of its rows."""

import itertools
import json

import keras
import numpy as np
import pytest
from scipy import stats
from training import contestants, pairs, plan, report, rows, workloads

import keras_acclip

WORKLOAD = "mlm-16"


def trained(contestant, settings, seed, steps, loss, fifths=None):
    row = {
        "workload": WORKLOAD,
        "contestant": contestant,
        "hyperparameters": settings,
        "seed": seed,
        "steps": steps,
        "status": "done",
        "initial": 8.0,
        "curve": [[steps // 2, (8 + loss) / 2], [steps, loss]],
        "loss": loss,
        "versions": {"keras": "3"},
        "machine": "none",
        "date": "2026-01-01",
    }
    return row | ({"fifths": fifths} if fifths else {})


@pytest.fixture(scope="module")
def made():
    """Rows of a tuned and compared AdamW and ACClip, with losses drawn at random."""
    random, found = np.random.default_rng(0), []
    workload = workloads.WORKLOADS[WORKLOAD]
    for contestant, better in (("adamw", 0.0), ("acclip", 0.2)):
        while jobs := plan.Study(WORKLOAD, workload, contestant, found).tuning():
            found += [
                trained(contestant, dict(job.hyperparameters), s, job.steps, random.uniform(6, 7))
                for job, s in itertools.chain(*([(job, s) for s in job.seeds] for job in jobs))
            ]
        study = plan.Study(WORKLOAD, workload, contestant, found)
        for job in study.confirming() + study.comparing_defaults():
            for seed in job.seeds:
                parts = [
                    {"words": 10**k, "labels": 20, "loss": k + random.uniform(0, 1) - better}
                    for k in range(5)
                ]
                loss = float(np.mean([part["loss"] for part in parts]))
                found.append(
                    trained(contestant, dict(job.hyperparameters), seed, job.steps, loss, parts)
                )
    return found


@pytest.fixture(scope="module")
def tables(made, tmp_path_factory):
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    for row in made:
        rows.append(path, row)
    seconds = {"adamw": [1.0, 2.0, 3.0], "acclip": [2.0, 3.0, 3.0]}
    known = {"versions": {"jax": "1"}, "machine": "none", "date": "2026-01-01"}
    (path.parent / report.SECONDS).write_text(json.dumps({WORKLOAD: {"seconds": seconds} | known}))
    assert report.main(["--rows", str(path)]) == 0
    return json.loads((path.parent / "results.json").read_text())["tables"]


def final(made, contestant, untuned=False):
    study = plan.Study(WORKLOAD, workloads.WORKLOADS[WORKLOAD], contestant, made)
    settings = study.untuned() if untuned else study.chosen()
    mine = [row for row in made if row["contestant"] == contestant and "fifths" in row]
    whole = [row for row in mine if row["hyperparameters"] == settings]
    return sorted(whole, key=lambda row: row["seed"])


def expected(one, other):
    low, high = stats.ttest_rel(one, other).confidence_interval(0.95)
    return [np.mean(np.subtract(one, other)), low, high]


def test_the_difference_and_its_interval_are_scipys(made, tables):
    ours, peers = ([row["loss"] for row in final(made, c)] for c in ("acclip", "adamw"))
    assert len(ours) == 8
    (row,) = (row for row in tables["answers"]["rows"] if row[0] == WORKLOAD)
    np.testing.assert_allclose(list(row[4].values()), expected(ours, peers))


def test_an_answer_is_unfinished_until_all_seeds_are_there_and_names_a_choice_not_refined(made):
    fresh = [row for row in made if not (row["contestant"] == "adamw" and 5 <= row["seed"] < 8)]
    for found, seeds in ((made, "8"), (fresh, "5 of 8")):
        row = report.answers([report.Compared(WORKLOAD, found)])[0]
        said = pairs.verdict(row[4]) if found is made else "unfinished"
        assert (row[1], row[5], row[6]) == (seeds, "0 of 2", said)
        assert report.headlines([row])[0]["seeds"].endswith("; 0 of 2 choices refined")
    assert report.answers([report.Compared("lm", made)])[0][1:] == [
        *("0 of 8", None, None, None, "0 of 2", report.NOT_RUN)
    ]


def test_where_to_start_names_the_lowest_and_what_was_chosen(made):
    rows_of = {c: final(made, c) for c in ("acclip", "adamw")}
    ours, peers = ([row["loss"] for row in rows_of[c]] for c in ("acclip", "adamw"))
    ((name, best, apart, *settings),) = report.starts([report.Compared(WORKLOAD, made)])
    assert name == report.NAMED[WORKLOAD]
    if np.mean(ours) < np.mean(peers):
        assert best == "ACClip" and apart is None
    else:
        assert best == "AdamW"
        np.testing.assert_allclose(list(apart.values()), expected(ours, peers))
    for text, contestant in zip(settings, ("acclip", "adamw"), strict=True):
        chosen = rows_of[contestant][0]["hyperparameters"]
        assert text.startswith(f"rate {chosen['rate']:g}, β1 {chosen['beta_1']:g}, ")
        assert text.endswith(f"warm-up {100 * chosen['warmup']:g}%")


def test_defaults_are_compared_on_the_same_seeds(made, tables):
    ours, peers = ([row["loss"] for row in final(made, c, True)] for c in ("acclip", "adamw"))
    ((name, seeds, *means, difference, said),) = tables["untuned"]["rows"]
    assert (name, seeds, said) == (WORKLOAD, "8 of 8", pairs.verdict(difference))
    np.testing.assert_allclose(means, [np.mean(ours), np.mean(peers)])
    np.testing.assert_allclose(list(difference.values()), expected(ours, peers))


def test_the_defaults_are_those_of_the_optimizers():
    for name, make in (("adamw", keras.optimizers.AdamW), ("acclip", keras_acclip.ACClip)):
        config = make(1e-3).get_config()
        for key, value in contestants.OWN_DEFAULTS[name].items():
            assert (config[key] or 0.0) == value, (name, key)


def test_new_defaults_are_compared_with_todays_and_with_adamws(made):
    random, found = np.random.default_rng(1), list(made)
    best = list(contestants.NEW_DEFAULTS)[-1]
    whose, _ = contestants.NEW_DEFAULTS[best]
    for stage in ("choosing_defaults", "comparing_defaults"):
        for name, c in itertools.product(contestants.CHOOSE_DEFAULTS, ("acclip", whose)):
            study = plan.Study(name, workloads.WORKLOADS[name], c, found)
            for job in getattr(study, stage)():
                least = 1.0 if c == whose else 2.0
                found += [
                    trained(c, dict(job.hyperparameters), seed, job.steps, least + random.uniform())
                    | {"workload": name, "fifths": []}
                    for seed in job.seeds
                ]
    tried = report.tried_defaults(found)
    assert [row[0] for row in tried] == ["today's", *contestants.NEW_DEFAULTS]
    assert [row[-1] for row in tried] == ["–"] * (len(tried) - 1) + ["chosen"]
    study = plan.Study(WORKLOAD, workloads.WORKLOADS[WORKLOAD], whose, found)
    mine = [
        row["loss"]
        for seed in range(8)
        for row in study.rows.values()
        if row["hyperparameters"] == study.new_defaults()[best] and row["seed"] == seed
    ]
    rows_of = {row[0]: row for row in report.new_defaults([report.Compared(WORKLOAD, found)])}
    name, seeds, mean, *cells = rows_of[WORKLOAD]
    assert seeds == "8 of 8" and mean == pytest.approx(np.mean(mine))
    for c, cell, said in (("acclip", *cells[:2]), ("adamw", *cells[2:])):
        theirs = [row["loss"] for row in final(made, c, True)]
        np.testing.assert_allclose(list(cell.values()), expected(mine, theirs))
        assert said == pairs.verdict(cell)


def test_each_fifth_is_compared_by_itself(made, tables):
    (name, optimizer, seeds, *cells), untuned = tables["fifths"]["rows"]
    assert (name, optimizer, seeds) == (WORKLOAD, "ACClip", "8")
    assert untuned[:3] == [WORKLOAD, report.UNTUNED, "8"]
    for k, cell in enumerate(cells):
        pair = ([row["fifths"][k]["loss"] for row in final(made, c)] for c in ("acclip", "adamw"))
        np.testing.assert_allclose(list(cell.values()), expected(*pair))
    peers = np.mean([[p["loss"] for p in row["fifths"]] for row in final(made, "adamw")], axis=0)
    (name, tuned, *cells), (_, untuned, *_) = tables["words"]["rows"]
    assert (name, tuned, untuned) == (WORKLOAD, "tuned", "untuned")
    assert cells == [f"{10**k:,} words, 20%, {loss:.3f}" for k, loss in enumerate(peers)]


def test_time_to_adamws_loss_is_its_share_of_steps_times_a_steps_time(made, tables):
    (row,) = (row for row in tables["losses"]["rows"] if row[:2] == [WORKLOAD, "ACClip"])
    *_, reached, share, ratio, time = row
    steps = workloads.WORKLOADS[WORKLOAD].steps
    whole = [
        np.interp(
            -peer["loss"], [-8.0, *(-loss for _, loss in own["curve"])], [0, steps / 2, steps]
        )
        for own, peer in zip(final(made, "acclip"), final(made, "adamw"), strict=True)
        if own["loss"] <= peer["loss"]
    ]
    assert reached == f"{len(whole)} of 8" and len(whole) > 1
    assert share == pytest.approx(np.median(whole) / steps)
    assert ratio == 1.5
    assert time == pytest.approx(1.5 * share)


def test_a_compared_row_without_its_fifths_is_trained_again(made):
    workload = workloads.WORKLOADS[WORKLOAD]
    assert plan.Study(WORKLOAD, workload, "acclip", made).confirming() == []
    old = [{k: v for k, v in row.items() if k != "fifths"} for row in made]
    (job,) = plan.Study(WORKLOAD, workload, "acclip", old).confirming()
    assert job.seeds == tuple(range(8))
    (job,) = plan.Study(WORKLOAD, workload, "acclip", old).comparing_defaults()
    assert job.seeds == tuple(range(8))
    again = [*old, *final(made, "acclip")]
    assert plan.Study(WORKLOAD, workload, "acclip", again).confirming() == []
