"""The plan of a study: which trainings come next, from the rows of those that are done.

Every contestant gets `TRIALS` trials of a quarter of the budget on the tuning seeds, the best of
them half of it, the best of these all of it. While the best lies at an edge of its grid, the next
value beyond is tried. A quarter of the budget prefers what starts early: where the loss stays on a
plateau at first, the best is refined with the whole budget. Then fresh seeds compare the chosen.
"""

from __future__ import annotations

import dataclasses
import json
import math
import random
import zlib
from collections.abc import Iterable, Mapping

from training.contestants import (
    CHOOSE_DEFAULTS,
    CONTESTANTS,
    NEW_DEFAULTS,
    OWN_DEFAULTS,
    USUAL,
    beyond,
)
from training.rows import Row, identity
from training.workloads import CHECKPOINTS, WORKLOADS, Workload

TRIALS = 16
RUNGS = ((4, TRIALS), (2, 6), (1, 3))  # What part of the budget, and how many trials.
EXTENSIONS = 12  # At most so many trials beyond a grid's edges.
REFINED = ("rate", "warmup", "beta_1", "beta_2")
REFINEMENTS = 8  # At most so many trials beside the best, with the whole budget.
EXCHANGE = {"adamw": "acclip", "acclip": "adamw"}  # Who tries whose choice.
FIRST_SEED = 0  # Of the comparison; tuning seeds are others.

Settings = Mapping[str, float]


@dataclasses.dataclass(frozen=True)
class Job:
    """Trainings that differ by their seed alone.

    Attributes:
        workload: Its name.
        contestant: Its name.
        hyperparameters: Pairs of name and value.
        seeds: The seeds.
        steps: Steps of each.
    """

    workload: str
    contestant: str
    hyperparameters: tuple[tuple[str, float], ...]
    seeds: tuple[int, ...]
    steps: int

    def __str__(self):
        settings = ", ".join(f"{name} {value:g}" for name, value in self.hyperparameters)
        return f"{self.workload}, {self.contestant} ({settings}), {self.steps:,} steps"


def grid_of(contestant: str, rates: float = 1.0) -> dict[str, tuple[float, ...]]:
    """The grid of a contestant's hyperparameters.

    Args:
        contestant: A key of `CONTESTANTS`.
        rates: The factor of its rates.
    """
    grid = dict(CONTESTANTS[contestant].grid)
    return grid | {"rate": tuple(_scaled(value, rates) for value in grid["rate"])}


def _scaled(value, factor):
    return float(f"{value * factor:.6g}")


def trials(contestant: str, count: int = TRIALS, rates: float = 1.0) -> list[dict[str, float]]:
    """The first trials: the default, then a Latin design over the grid.

    Each value of a hyperparameter comes as often as any other of it, up to one.

    Args:
        contestant: A key of `CONTESTANTS`.
        count: How many.
        rates: The factor of its rates.
    """
    default = dict(CONTESTANTS[contestant].default)
    default["rate"] = _scaled(default["rate"], rates)
    columns = {}
    for name, values in grid_of(contestant, rates).items():
        column = [values[i % len(values)] for i in range(count - 1)]
        random.Random(zlib.crc32(name.encode())).shuffle(column)
        columns[name] = column
    drawn = [{name: column[i] for name, column in columns.items()} for i in range(count - 1)]
    return [default, *drawn]


class Study:
    """What is known of one contestant on one workload.

    Args:
        name: The workload's.
        workload: The workload.
        contestant: The contestant's name.
        rows: Rows; others' are left out.
    """

    def __init__(self, name: str, workload: Workload, contestant: str, rows: Iterable[Row]) -> None:
        self.name, self.workload, self.contestant = name, workload, contestant
        here = [row for row in rows if row["workload"] == name]
        mine, peers = (
            [row for row in here if row["contestant"] == who]
            for who in (contestant, EXCHANGE.get(contestant))
        )
        self.rows = {identity(row): row for row in mine}
        self._peers_rows = peers
        self._all_rows = rows

    def tuning(self) -> list[Job]:
        """The tuning's next trainings, that wait for nothing; none when the best is chosen."""
        return self._search()[1]

    def chosen(self) -> dict[str, float] | None:
        """The hyperparameters that the tuning chose; `None` before it is through.

        A refinement counts when it is through.
        """
        tried, missing = self._search()
        if missing:
            return None
        refined, _, through = self._refinement(tried[0])
        return refined if through else tried[0]

    def refining(self) -> list[Job]:
        """The refinement's next trainings; none where there is nothing to refine yet."""
        tried, missing = self._search()
        return [] if missing else self._refinement(tried[0])[1]

    def refined(self) -> bool | None:
        """Whether the choice is refined; `None` on workloads that are not."""
        if not self.workload.refined:
            return None
        tried, missing = self._search()
        return not missing and self._refinement(tried[0])[2]

    def trials_beyond(self) -> int:
        """How many trials beyond its grid's edges the tuning has taken so far."""
        return max(0, len(self._search()[0]) - RUNGS[-1][1])

    def edges(self) -> list[str]:
        """The hyperparameters whose chosen value is at an edge of what was tried, not of what
        there is: the tuning has come to its most trials beyond the grids.
        """
        chosen = self.chosen()
        return list(_next_beyond(self.contestant, self._grid(), chosen)) if chosen else []

    def confirming(self) -> list[Job]:
        """The trainings of the comparison that are missing; none before the tuning is through."""
        chosen = self.chosen()
        if chosen is None:
            return []
        first, others = self.workload.seeds
        count = first if self.contestant in ("adamw", "acclip") else others
        seeds = tuple(range(FIRST_SEED, FIRST_SEED + count))
        return self._missing([chosen], seeds, self.workload.steps, self._is_whole)

    def untuned(self) -> dict[str, float] | None:
        """Its own defaults, with AdamW's usual rate and warm-up; `None` where not compared."""
        own = OWN_DEFAULTS.get(self.contestant)
        return own and self._with_usual(own)

    def new_defaults(self) -> dict[str, dict[str, float]]:
        """Dict from what ACClip's defaults may become, with this step, to the settings."""
        return {
            name: self._with_usual(OWN_DEFAULTS["acclip"] | changed)
            for name, (whose, changed) in NEW_DEFAULTS.items()
            if whose == self.contestant
        }

    def comparing_defaults(self) -> list[Job]:
        """The trainings missing of the comparison of defaults, on the comparison's seeds.

        Of what ACClip's defaults may become, the one that the tuning seeds chose.
        """
        seeds = tuple(range(FIRST_SEED, FIRST_SEED + self.workload.seeds[0]))
        chosen = self.new_defaults().get(chosen_defaults(self._all_rows) or "")
        compared = [settings for settings in (self.untuned(), chosen) if settings]
        return self._missing(compared, seeds, self.workload.steps, self._is_whole)

    def choosing_defaults(self) -> list[Job]:
        """The trainings missing of what ACClip's defaults may become, on the tuning seeds."""
        if self.name not in CHOOSE_DEFAULTS:
            return []
        return self._missing(
            self._tried_defaults(), self.workload.tuning_seeds, self.workload.steps
        )

    def sweeping(self) -> list[Job]:
        """The trainings missing of those around the chosen, one hyperparameter at a time."""
        chosen = self.chosen()
        if chosen is None:
            return []
        around = [
            chosen | {name: value}
            for name in ("rate", "beta_1", "beta_2", "warmup")
            if name in chosen
            for value in self._grid()[name]
        ]
        return self._missing(around, self.workload.tuning_seeds, self.workload.steps)

    def loss(self, settings: Settings, steps: int, seeds: Iterable[int] | None = None) -> float:
        """The mean final loss of a trial; infinite where one of its trainings diverged."""
        seeds = self.workload.tuning_seeds if seeds is None else tuple(seeds)
        rows = [self.rows[self._key(settings, seed, steps)] for seed in seeds]
        losses = [math.inf if row["loss"] is None else row["loss"] for row in rows]
        return sum(losses) / len(losses)

    def done(self, settings: Settings, steps: int, seeds: Iterable[int]) -> bool:
        """Whether there are rows of all these seeds."""
        return all(self._key(settings, seed, steps) in self.rows for seed in seeds)

    # --- Within ---

    def _with_usual(self, own):
        """Defaults with the rate and the warm-up that are usual, in the grid's order."""
        rate = _scaled(USUAL["rate"], self.workload.rates)
        settings = USUAL | {"rate": rate} | own
        return {name: settings[name] for name in CONTESTANTS[self.contestant].grid}

    def _tried_defaults(self):
        today = [self.untuned()] if self.contestant == "acclip" else []
        return [*today, *self.new_defaults().values()]

    def _steps(self, part):
        return max(1, self.workload.steps // part // CHECKPOINTS) * CHECKPOINTS

    def _key(self, settings, seed, steps):
        text = json.dumps(dict(settings), sort_keys=True)
        return self.name, self.contestant, text, seed, steps

    def _is_whole(self, row):
        """Whether a row of the comparison tells all that is reported, as earlier ones do not."""
        return "fifths" in row or not self.workload.of_words or row["status"] == "diverged"

    def _missing(self, candidates, seeds, steps, counts=lambda row: True):
        jobs = []
        for settings in candidates:
            rows = {s: self.rows.get(self._key(settings, s, steps)) for s in seeds}
            missing = tuple(s for s, row in rows.items() if row is None or not counts(row))
            if missing:
                jobs.append(
                    Job(self.name, self.contestant, tuple(settings.items()), missing, steps)
                )
        return list(dict.fromkeys(jobs))

    def _ranked(self, candidates, steps):
        return sorted(candidates, key=lambda settings: self.loss(settings, steps))

    def _search(self):
        """The trials with the whole budget, the best first, and the tuning's next trainings.

        Only what the search itself asked for counts, whatever else there are rows of.
        """
        candidates = trials(self.contestant, rates=self.workload.rates)
        for part, count in RUNGS:
            candidates = candidates[:count]
            steps = self._steps(part)
            missing = self._missing(candidates, self.workload.tuning_seeds, steps)
            if missing:
                return [], missing
            candidates = self._ranked(candidates, steps)
        steps = self.workload.steps
        most = len(candidates) + EXTENSIONS
        grid = grid_of(self.contestant, self.workload.rates)
        while len(candidates) < most:
            further = _next_beyond(self.contestant, grid, candidates[0])
            missing = self._missing(further.values(), self.workload.tuning_seeds, steps)
            if missing:
                return candidates, missing
            if not further:
                break
            for name, trial in further.items():
                grid[name] = tuple(sorted({*grid[name], trial[name]}))
            candidates = self._ranked([*candidates, *further.values()], steps)
        return candidates, []

    def _refinement(self, best):
        """From the best so far to the best beside it, one value of one hyperparameter at a time.

        First comes what the other one of the question chose, so that no lead is a schedule's.

        Returns:
            The best, the next trainings, and whether that is all.
        """
        if not self.workload.refined:
            return best, [], False
        steps, seeds = self.workload.steps, self.workload.tuning_seeds
        if self.contestant in EXCHANGE:
            peer = Study(self.name, self.workload, EXCHANGE[self.contestant], self._peers_rows)
            theirs, missing = peer._search()
            if missing:
                return best, [], False
            trial = best | {n: v for n, v in theirs[0].items() if n in best and n != "epsilon"}
            if missing := self._missing([trial], seeds, steps):
                return best, missing, False
            best = min(best, trial, key=lambda settings: self.loss(settings, steps))
        left = REFINEMENTS
        for name, low in ((n, low) for n in REFINED if n in best for low in (False, True)):
            while left and (value := self._beside(name, best[name], low)) is not None:
                trial = best | {name: value}
                if missing := self._missing([trial], seeds, steps):
                    return best, missing, False
                left -= 1
                if self.loss(trial, steps) >= self.loss(best, steps):
                    break
                best = trial
        return best, [], True

    def _beside(self, name, value, low):
        """The next value of a grid below or above one, or beyond its end; `None` at its limit."""
        of = grid_of(self.contestant, self.workload.rates)[name]
        further = [other for other in of if (other < value if low else other > value)]
        if further:
            return further[-1 if low else 0]
        return beyond(name, tuple(sorted({*of, value})), self.contestant, low)

    def _grid(self):
        """The grid with every value that was tried beyond it."""
        of = grid_of(self.contestant, self.workload.rates)
        grid = {name: set(values) for name, values in of.items()}
        untuned = [self.untuned(), *self.new_defaults().values()]
        for row in self.rows.values():
            if row["hyperparameters"] in untuned:
                continue
            for name, value in row["hyperparameters"].items():
                grid[name].add(value)
        return {name: tuple(sorted(values)) for name, values in grid.items()}


def chosen_defaults(rows: Iterable[Row]) -> str | None:
    """Which of `NEW_DEFAULTS` has the lowest loss, the mean over the workloads that choose.

    Args:
        rows: Rows of all workloads.

    Returns:
        Its key; `None` until all are trained on the tuning seeds.
    """
    losses = {name: defaults_losses(name, whose, rows) for name, (whose, _) in NEW_DEFAULTS.items()}
    if any(None in of for of in losses.values()):
        return None
    return min(losses, key=lambda name: sum(losses[name]))


def defaults_losses(name: str | None, whose: str, rows: Iterable[Row]) -> list[float | None]:
    """The losses on the tuning seeds of what ACClip's defaults may become.

    Args:
        name: A key of `NEW_DEFAULTS`; `None` for today's.
        whose: The contestant.
        rows: Rows of all workloads.

    Returns:
        One for each workload that chooses; `None` where a training is missing.
    """
    found = []
    for workload in CHOOSE_DEFAULTS:
        study = Study(workload, WORKLOADS[workload], whose, rows)
        settings = study.new_defaults()[name] if name else study.untuned()
        steps, seeds = study.workload.steps, study.workload.tuning_seeds
        done = study.done(settings, steps, seeds)
        found.append(study.loss(settings, steps) if done else None)
    return found


def _next_beyond(contestant, grid, best):
    """Dict from each hyperparameter at its grid's edge to the trial beyond."""
    found = {}
    for name, values in grid.items():
        for low, end in ((True, values[0]), (False, values[-1])):
            if best[name] == end:
                value = beyond(name, values, contestant, low)
                if value is not None:
                    found[name] = dict(best) | {name: value}
    return found
