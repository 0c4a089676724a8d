import argparse
import collections
import math

import pytest
from lab import plans, reports, search

GRID = (1 / 10, 1 / 10**0.5, 1, 10**0.5, 10)
STARTS = [
    plans.Spec("adam", 1e-2, 0, 0.7, 0.95),
    plans.Spec("acclip", 5e-3, 0, 0.7, 0.95),
    plans.Spec("sgd", 0.1, 0, 0.9, None),
]
# What is best for each; the rate is that of the best betas, the neighbour of another's.
BEST = {
    "adam": plans.Spec("adam", 1e-2, None, 0.9, 0.99),
    "acclip": plans.Spec("acclip", 1.6e-2, None, 0.8, 0.999),
    "sgd": plans.Spec("sgd", 0.32, None, 0.95, None),
}


def planted_loss(spec):
    best = BEST[spec.optimizer]
    far = sum(
        abs(values.index(getattr(spec, name)) - values.index(getattr(best, name)))
        for name, values in search.BETAS.items()
        if name in spec.betas
    )
    rate = best.rate / 10**0.5 if far else best.rate
    return far + math.log10(spec.rate / rate) ** 2


def a_run(spec, loss):
    return plans.run_of(spec, [{"loss": loss, "val_loss": loss, "f1": -loss, "seconds": 1.0}])


class Trainer:
    """Runs with planted losses, and the plans that asked for them."""

    def __init__(self, loss=planted_loss):
        self.loss, self.plans = loss, []

    def __call__(self, plan):
        self.plans.append(plan)
        return [a_run(spec, self.loss(spec)) for spec in plan]

    @property
    def trials(self):
        return [spec for plan in self.plans for spec in plan]


@pytest.mark.parametrize("decisive", [{}, {"measure": "f1", "highest": True}])
def test_the_search_finds_what_was_planted(decisive):
    train = Trainer()
    runs = search.search(STARTS, GRID, train, **decisive)
    assert search.comparison.best_specs(runs, **decisive) == BEST
    assert {spec.seed for spec in train.trials} == {0}


def test_every_optimizer_is_searched_as_hard():
    train = Trainer()
    search.search(STARTS, GRID, train)
    assert len(set(train.trials)) == len(train.trials)
    counts = collections.Counter(spec.optimizer for spec in train.trials)
    # Five rates; of four values of each beta the start's are tried already; two more rates.
    assert counts == {"adam": 5 + 3 + 3 + 2, "acclip": 5 + 3 + 3 + 2, "sgd": 5 + 3 + 2}
    rates, beta_1, beta_2, again = train.plans
    assert {spec.betas["beta_1"] for spec in rates if spec.optimizer != "sgd"} == {0.7}
    for plan, name in ((beta_1, "beta_1"), (beta_2, "beta_2")):
        for optimizer in ("adam", "acclip"):
            values = {getattr(spec, name) for spec in plan if spec.optimizer == optimizer}
            start = next(s for s in STARTS if s.optimizer == optimizer)
            assert values | {getattr(start, name)} == set(search.BETAS[name])
    for name, best in BEST.items():
        around = sorted(spec.rate for spec in again if spec.optimizer == name)
        tried = best.rate / 10**0.5
        assert around == pytest.approx([tried / 10**0.5, best.rate], rel=0.05)


def test_the_best_at_an_edge_has_a_neighbour_beyond_it():
    train = Trainer(lambda spec: spec.rate)
    runs = search.search(STARTS[:1], GRID, train)
    assert [spec.rate for spec in train.plans[-1]] == [3.2e-4]
    assert len(runs) == 5 + 3 + 3 + 1


def test_a_start_beyond_the_values_is_tried_too():
    start = STARTS[0]._replace(beta_1=0.5)
    runs = search.search([start], GRID, Trainer(lambda spec: spec.beta_1 + spec.beta_2))
    best = search.comparison.best_specs(runs)["adam"]
    assert (best.beta_1, best.beta_2) == (0.5, 0.9)


def test_what_diverged_is_never_the_best():
    def loss(spec):
        return math.nan if spec.beta_1 == 0.7 else planted_loss(spec)

    runs = search.search(STARTS[:1], GRID, Trainer(loss))
    assert search.comparison.best_specs(runs)["adam"].beta_1 == 0.9


def options(**values):
    given = {"optimizers": ["adam", "sgd"], "rates": {}, "beta_1": {}, "beta_2": {}}
    given |= {"seeds": 2, "tune": False, "scale": "study"}
    return argparse.Namespace(**given | values)


RATES = {"adam": 1e-2, "sgd": 0.1}
BETAS = {"adam": (0.7, 0.95), "sgd": (0.9, None)}


def test_a_study_compares_on_seeds_that_chose_nothing():
    asked = options(beta_1={"adam": 0.8})
    plan = [plans.spec_of(run) for run in search.runs_asked_for(asked, RATES, GRID, BETAS, one)]
    assert plan == [
        *(plans.Spec("adam", 1e-2, seed, 0.8, 0.95) for seed in (1, 2)),
        *(plans.Spec("sgd", 0.1, seed, 0.9) for seed in (1, 2)),
    ]
    tuned = search.runs_asked_for(options(tune=True), RATES, GRID, BETAS, one)
    assert {run["seed"] for run in tuned} == {plans.SEARCH_SEED} == {0}
    assert {run.get("beta_2") for run in tuned} == {*search.BETAS["beta_2"], None}
    assert plans.seeds_in_words(asked) == "seeds 1 to 2"


def test_at_other_scales_only_rates_are_tuned():
    asked = options(tune=True, scale="small")
    runs = search.runs_asked_for(asked, RATES, GRID, None, one)
    assert len(runs) == 2 * len(GRID) * 2
    assert {run["seed"] for run in runs} == {0, 1}
    assert all(not plans.spec_of(run).betas for run in runs)


def one(plan):
    return [a_run(spec, 1.0) for spec in plan]


def test_the_report_says_edges_and_the_options_to_compare_with(capsys):
    best = {"adam": plans.Spec("adam", 1e-3, None, 0.7, 0.99)}

    def loss(spec):
        if spec.optimizer == "sgd":
            return planted_loss(spec)
        chosen = best["adam"]
        far = abs(spec.beta_1 - chosen.beta_1) + abs(spec.beta_2 - chosen.beta_2)
        return math.log10(spec.rate / chosen.rate) ** 2 + far

    runs = search.search([STARTS[0], STARTS[2]], GRID, Trainer(loss))
    capsys.readouterr()
    columns = {"loss": ("val_loss", 2)}
    chosen, results = reports.report_asked_for(runs, options(tune=True), columns=columns)
    assert [plans.spec_of(run) for run in chosen] == [
        best["adam"]._replace(seed=0),
        BEST["sgd"]._replace(seed=0),
    ]
    printed = capsys.readouterr().out
    given = "--rates adam=0.001,sgd=0.32 --beta-1 adam=0.7,sgd=0.95 --beta-2 adam=0.99"
    assert printed.endswith(f"\nTo compare them:\n{given}\n")
    assert results["options"] == given
    assert results["at_the_edge"] == {"rate": [], "beta_1": ["adam", "sgd"], "beta_2": []}
    assert "sgd: the best beta_1 is the last of those tried" in printed
    assert "adam: the best rate" not in printed
    assert len(results["tuning"]) == len(runs)
    assert len(results["runs"]) == 2
    row = next(line for line in printed.splitlines() if "| sgd" in line and "0.95" in line)
    assert [cell.strip() for cell in row.split("|")[1:5]] == ["sgd", "0.1", "0.95", ""]
