"""The plan of the comparison: halving, grids extended, fresh seeds."""

import collections
import dataclasses
import itertools
import math

import pytest
from training import plan
from training.contestants import (
    CHOOSE_DEFAULTS,
    CONTESTANTS,
    NEW_DEFAULTS,
    OWN_DEFAULTS,
    USUAL,
    beyond,
)
from training.workloads import WORKLOADS, Workload, named

WORKLOAD = Workload(lambda *_: None, 128, 1, 1, (1000, 1001), (8, 4))


def study_of(contestant, loss, stages=("tuning",), workload=WORKLOAD):
    """The study with its stages trained, where a training's loss is `loss(settings)`; the jobs."""
    rows, jobs = [], []
    for stage in stages:
        while new := getattr(plan.Study("w", workload, contestant, rows), stage)():
            jobs += new
            for job in new:
                settings = dict(job.hyperparameters)
                rows += [
                    {
                        "workload": "w",
                        "contestant": contestant,
                        "hyperparameters": settings,
                        "seed": seed,
                        "steps": job.steps,
                        "loss": loss(settings),
                    }
                    for seed in job.seeds
                ]
    return plan.Study("w", workload, contestant, rows), jobs


def far_from(rate, beta_1):
    """A loss that is least at these."""
    return lambda s: abs(math.log(s["rate"] / rate)) + 5 * abs(s["beta_1"] - beta_1)


def test_halving_takes_the_same_number_of_trials_for_each():
    for contestant in CONTESTANTS:
        _, jobs = study_of(contestant, lambda s: 1.0)
        taken = collections.Counter(job.steps for job in jobs)
        assert taken[32] == 16 and taken[64] == 6 and taken[128] >= 3, contestant


def test_first_trials_are_the_default_and_every_value_of_the_grid():
    for contestant, made in CONTESTANTS.items():
        first, *drawn = plan.trials(contestant)
        assert first == made.default
        for name, values in made.grid.items():
            counts = collections.Counter(trial[name] for trial in drawn)
            assert set(counts) == set(values), (contestant, name)
            assert max(counts.values()) - min(counts.values()) <= 1


def test_rates_are_scaled_with_the_workload():
    grid = plan.grid_of("adamw", 10.0)
    assert grid["rate"] == tuple(round(10 * rate, 9) for rate in CONTESTANTS["adamw"].grid["rate"])
    assert plan.trials("adamw", rates=10.0)[0]["rate"] == 10 * CONTESTANTS["adamw"].default["rate"]


def test_the_best_at_an_edge_has_the_grid_extended():
    study, _ = study_of("adamw", far_from(0.08, 0.9))
    assert max(CONTESTANTS["adamw"].grid["rate"]) == 0.02
    assert study.chosen()["rate"] == pytest.approx(0.08)
    assert study.edges() == []
    assert study.trials_beyond() >= 3


def test_the_chosen_is_the_best_of_all_tried():
    loss = far_from(1e-3, 0.8)
    study, jobs = study_of("adamw", loss)
    full = [dict(job.hyperparameters) for job in jobs if job.steps == 128]
    assert loss(study.chosen()) == min(map(loss, full))


def test_a_training_that_diverged_is_the_worst():
    def loss(settings):
        return None if settings["rate"] > 1e-3 else -settings["rate"]

    study, _ = study_of("adamw", loss)
    assert study.chosen()["rate"] == 1e-3


def test_comparison_takes_fresh_seeds_and_keeps_to_the_choice():
    study, jobs = study_of("adamw", far_from(1e-3, 0.8), ("tuning", "confirming"))
    assert jobs[-1].seeds == tuple(range(8))
    assert dict(jobs[-1].hyperparameters) == study.chosen()
    assert study.confirming() == []
    _, others = study_of("lion", far_from(1e-3, 0.8), ("tuning", "confirming"))
    assert others[-1].seeds == tuple(range(4))
    assert not {*jobs[-1].seeds} & {*WORKLOAD.tuning_seeds}


def test_a_sweep_does_not_change_the_choice():
    loss = far_from(3e-3, 0.85)
    tuned, _ = study_of("adamw", loss)
    swept, jobs = study_of("adamw", loss, ("tuning", "sweeping"))
    assert swept.chosen() == tuned.chosen()
    changed = [{n for n, v in job.hyperparameters if v != swept.chosen()[n]} for job in jobs[-8:]]
    assert all(len(names) == 1 for names in changed)


def test_nothing_is_compared_before_the_tuning_is_through():
    study = plan.Study("w", WORKLOAD, "adamw", [])
    assert study.chosen() is None and study.confirming() == [] and study.sweeping() == []


REFINED = dataclasses.replace(WORKLOAD, refined=True)


def rows_of(contestant, jobs, loss):
    return [
        {
            "workload": "w",
            "contestant": contestant,
            "hyperparameters": dict(job.hyperparameters),
            "seed": seed,
            "steps": job.steps,
            "loss": loss(dict(job.hyperparameters), job.steps),
        }
        for job in jobs
        for seed in job.seeds
    ]


def plateau(settings, steps):
    """A loss that stays on a plateau until half the budget where the rate is high, then falls."""
    if settings["rate"] > 3e-3 and steps < 128:
        return 10.0
    return 5.0 + abs(math.log(settings["rate"] / 0.01)) + abs(settings["warmup"] - 0.4)


def refined_study(contestant, loss):
    rows = []
    for who in plan.EXCHANGE if contestant in plan.EXCHANGE else (contestant,):
        while jobs := plan.Study("w", REFINED, who, rows).tuning():
            rows += rows_of(who, jobs, loss)
    tuned, taken = plan.Study("w", REFINED, contestant, rows), []
    assert tuned.refined() is False
    while jobs := plan.Study("w", REFINED, contestant, rows).refining():
        taken += jobs
        rows += rows_of(contestant, jobs, loss)
    return tuned.chosen(), plan.Study("w", REFINED, contestant, rows), taken


@pytest.mark.parametrize("contestant", ["adamw", "acclip", "muon"])
def test_refining_finds_what_a_part_of_the_budget_hid(contestant):
    tuned, study, jobs = refined_study(contestant, plateau)
    assert tuned["rate"] <= 2e-3
    assert study.refined() is True and study.refining() == []
    assert plateau(study.chosen(), 128) < plateau(tuned, 128)
    assert all(job.steps == 128 for job in jobs)
    most = plan.REFINEMENTS + (contestant in plan.EXCHANGE)
    assert 0 < len(jobs) <= most


def test_refining_takes_one_step_of_one_hyperparameter():
    tuned, _, jobs = refined_study("muon", lambda settings, steps: 1.0)
    for job in jobs:
        assert len({n for n, v in job.hyperparameters if v != tuned[n]}) == 1
    names = {n for job in jobs for n, v in job.hyperparameters if v != tuned[n]}
    assert names <= {*plan.REFINED}


def test_refining_tries_the_others_choice_first():
    rows = []
    for who, best in (("adamw", 5e-4), ("acclip", 5e-3)):

        def away(settings, steps, best=best):
            return abs(math.log(settings["rate"] / best)) + settings["warmup"]

        while jobs := plan.Study("w", REFINED, who, rows).tuning():
            rows += rows_of(who, jobs, away)
    theirs = plan.Study("w", REFINED, "acclip", rows).chosen()
    study = plan.Study("w", REFINED, "adamw", rows)
    (job,) = study.refining()
    shared = {name: theirs[name] for name in theirs if name != "epsilon"}
    assert dict(job.hyperparameters) == shared | {"epsilon": study.chosen()["epsilon"]}


def test_a_workload_without_a_plateau_is_not_refined():
    study, _ = study_of("adamw", far_from(1e-3, 0.8))
    assert study.refined() is None and study.refining() == []


@pytest.mark.parametrize(
    "name, values, low, expected",
    [
        ("rate", (1e-3, 1e-2), False, 2e-2),
        ("rate", (1e-3, 1e-2), True, 5e-4),
        ("beta_1", (0.7, 0.95), False, 0.975),
        ("beta_1", (0.7, 0.95), True, 0.4),
        ("beta_1", (0.4, 0.95), True, None),
        ("weight_decay", (0.0, 0.1), True, None),
        ("weight_decay", (0.0, 0.1), False, 0.2),
        ("beta_2_decay", (-1.0, -0.4), True, -2.0),
        ("beta_2_decay", (-1.0, -0.4), False, -0.2),
    ],
)
def test_beyond(name, values, low, expected):
    assert beyond(name, values, "adamw", low) == expected


def defaults_trained(loss, stages, workloads=CHOOSE_DEFAULTS):
    """Rows of the stages of defaults, where a training's loss is `loss(workload, job)`."""
    rows = []
    contestants = dict.fromkeys(["acclip", "adamw", *(whose for whose, _ in NEW_DEFAULTS.values())])
    for stage in stages:
        for name, contestant in itertools.product(workloads, contestants):
            study = plan.Study(name, WORKLOADS[name], contestant, rows)
            rows += [
                {
                    "workload": name,
                    "contestant": contestant,
                    "hyperparameters": dict(job.hyperparameters),
                    "seed": seed,
                    "steps": job.steps,
                    "status": "done",
                    "loss": loss(name, job),
                    "fifths": [],
                }
                for job in getattr(study, stage)()
                for seed in job.seeds
            ]
    return rows


def planted(best):
    """A loss that is lowest, as a mean over the workloads that choose, for one of the defaults."""
    whose, changed = NEW_DEFAULTS[best]

    def loss(name, job):
        settings = dict(job.hyperparameters)
        at_best = job.contestant == whose and changed.items() <= settings.items()
        # On the first workload alone the best is the worst.
        first = name == CHOOSE_DEFAULTS[0]
        return (1.1 if first else 0.5) if at_best else 1.0

    return loss


@pytest.mark.parametrize("best", NEW_DEFAULTS)
def test_new_defaults_are_chosen_on_tuning_seeds_and_compared_on_fresh_ones(best):
    chosen_on = defaults_trained(planted(best), ["choosing_defaults"])
    tuning = {seed for name in CHOOSE_DEFAULTS for seed in WORKLOADS[name].tuning_seeds}
    assert {row["seed"] for row in chosen_on} == tuning
    assert plan.chosen_defaults(chosen_on) == best
    whose, changed = NEW_DEFAULTS[best]
    for name in ("zipf-64", *CHOOSE_DEFAULTS):
        workload = WORKLOADS[name]
        jobs = plan.Study(name, workload, whose, chosen_on).comparing_defaults()
        (job,) = (job for job in jobs if changed.items() <= dict(job.hyperparameters).items())
        assert job.seeds == tuple(range(workload.seeds[0]))
        settings = dict(job.hyperparameters)
        own = OWN_DEFAULTS["acclip"] | changed
        assert settings == USUAL | {"rate": 1e-3 * workload.rates} | own


def test_new_defaults_wait_until_all_are_tried():
    found = defaults_trained(planted("β1 0.8"), ["choosing_defaults"], CHOOSE_DEFAULTS[:1])
    assert plan.chosen_defaults(found) is None and plan.chosen_defaults([]) is None
    study = plan.Study("mlm-16", WORKLOADS["mlm-16"], "acclip", found)
    assert [dict(job.hyperparameters) for job in study.comparing_defaults()] == [study.untuned()]


def test_defaults_that_were_tried_widen_no_grid():
    found = defaults_trained(planted("β1 0.8"), ["choosing_defaults", "comparing_defaults"])
    fresh, used = (plan.Study("mlm-16", WORKLOADS["mlm-16"], "acclip", of) for of in ([], found))
    assert used._grid() == fresh._grid() and found


def test_workloads_by_name():
    assert named(["zipf", "zipf-64"]) == ["zipf-full", "zipf-64"]
    with pytest.raises(ValueError, match="no workload 'glue'"):
        named(["glue"])
