"""Makes the tables and figures of the comparison of optimizers from its rows alone.

    python benchmarks/training/report.py
    python docs/results/make.py

The first writes `results.json` and the figures beside the rows, the second the page.
"""

import argparse
import hashlib
import json
import statistics
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PATHS = [str(ROOT), str(ROOT / "benchmarks")]
sys.path[:0] = [path for path in PATHS if path not in sys.path]

from contest import race  # noqa: E402
from keras_acclip._utils.commands import Parser, to_path  # noqa: E402
from keras_acclip._utils.files import write_atomically  # noqa: E402
from training import noise_tables, pairs  # noqa: E402
from training import rows as rows_file  # noqa: E402
from training.contestants import (  # noqa: E402
    CANDIDATES,
    CHOOSE_DEFAULTS,
    CONTESTANTS,
    NEW_DEFAULTS,
)
from training.plan import Study, chosen_defaults, defaults_losses  # noqa: E402
from training.step_seconds import SECONDS  # noqa: E402
from training.workloads import WORKLOADS  # noqa: E402

FOLDER = ROOT / "docs" / "results" / "training"
PEER, OURS = "adamw", "acclip"
CLIPPING = (OURS, "clip_adamw_moment")  # Whose leads stand beside the noise.
LINES = ("-", "--", "-.", ":")
UNTUNED = "ACClip, both untuned"
LEAST_HEIGHT = 0.1  # Of a panel, in units of the loss.
FIFTHS = ("the most frequent fifth", "the second", "the third", "the fourth", "the rarest fifth")
SWEPT = {"rate": "rate", "beta_1": "β1", "beta_2": "β2", "warmup": "warm-up"}
# What README calls the workloads.
NAMED = {
    "zipf-full": "Softmax regression, the same 8,192 examples each step",
    "zipf-64": "Softmax regression, 64 fresh examples a step",
    "mlm-16": "2-layer BERT, 16 rows a step",
    "mlm-128": "2-layer BERT, 128 rows a step",
    "lm": "4-layer GPT, 32 rows a step",
    "images": "ResNet-8 on digits",
    "outliers": "Small Transformer, one batch in a hundred an outlier",
    "squad": "2-layer BERT that answers questions",
    "gpt-30m": "GPT of 31 million parameters",
}
NAMES = {
    "adamw": "AdamW",
    "acclip": "ACClip",
    "adam": "Adam",
    "lion": "Lion",
    "muon": "Muon",
    "clip_adamw_moment": "Clip(AdamW), MovingMoment",
    "clip_adamw_quantile": "Clip(AdamW), MovingQuantile",
    "clip_adamw_z_score": "Clip(AdamW), ZScore",
    "clip_adamw_fixed": "Clip(AdamW), fixed",
    "nadam": "Nadam",
    "stable_adamw": "StableAdamW",
    "schedule_free_adamw": "ScheduleFreeAdamW",
    "adafactor": "Adafactor",
    "sgd": "SGD with momentum",
    "gclip": "GClip",
    "cclip": "CClip",
    "acclip_nesterov": "ACClip, look-ahead",
    "acclip_cautious": "ACClip, cautious",
    "acclip_smooth": "ACClip, smooth clip",
    "acclip_corrected": "ACClip, corrected start",
    "acclip_relative": "ACClip, relative ε",
    "acclip_gradient": "ACClip, gradient clipped",
    "acclip_multiple": "ACClip, c·τ",
    "acclip_nesterov_relative": "ACClip, look-ahead, relative ε",
    "acclip_nesterov_cautious": "ACClip, look-ahead, cautious",
    "acclip_nesterov_smooth": "ACClip, look-ahead, smooth clip",
}


NOT_RUN = "not compared yet"


# --- What the rows say -----------------------------------------------------------------------


class Compared:
    """A workload's contestants, as far as they are trained.

    Args:
        name: The workload's.
        rows: All rows.
    """

    def __init__(self, name, rows):
        self.name, self.workload = name, WORKLOADS[name]
        trained = {row["contestant"] for row in rows if row["workload"] == name}
        everyone = [
            c
            for c, made in CONTESTANTS.items()
            if made.core or self.workload.all_take_part or c in trained
        ]
        self.studies = {c: Study(name, self.workload, c, rows) for c in everyone}
        self.chosen = {c: study.chosen() for c, study in self.studies.items()}
        self.trained = {c: self._trained(c, self.chosen[c]) for c in everyone}
        self.untuned = {c: self._trained(c, self.studies[c].untuned()) for c in (PEER, OURS)}
        new = chosen_defaults(rows)
        whose = new and NEW_DEFAULTS[new][0]
        self.new_defaults = (
            self._trained(whose, self.studies[whose].new_defaults()[new])
            if whose in self.studies
            else {}
        )

    def _trained(self, contestant, chosen):
        """Dict from a seed of the comparison to the row of some hyperparameters."""
        tuning = self.workload.tuning_seeds
        found = self.studies[contestant].rows.values()
        return {
            row["seed"]: row
            for row in found
            if row["hyperparameters"] == chosen
            and row["steps"] == self.workload.steps
            and row["seed"] not in tuning
        }

    def curves(self, contestant):
        """Dict from a seed to the pairs of step and held-out loss of a training that ended."""
        trained = self.trained[contestant].items()
        return {seed: row["curve"] for seed, row in trained if row["status"] == "done"}

    def seeds(self, contestant):
        """How many seeds compare a contestant when the study is through."""
        first, others = self.workload.seeds
        return first if contestant in (PEER, OURS) else others

    def complete(self, contestant):
        """Whether all of them are trained."""
        return len(self.trained[contestant]) >= self.seeds(contestant)

    def losses(self, contestant, seeds):
        """The final losses with these seeds; `None` where a training diverged."""
        return [self.trained[contestant][seed]["loss"] for seed in seeds]

    def difference(self, contestant, peer=PEER):
        """The paired difference to another, as tuned; or `None` where there is none."""
        seeds = sorted(self.trained[contestant].keys() & self.trained[peer].keys())
        ours, peers = self.losses(contestant, seeds), self.losses(peer, seeds)
        if len(seeds) < 2 or None in ours or None in peers:
            return None
        return pairs.paired(ours, peers)

    def steps_to_peer(self, contestant):
        """The steps to tuned AdamW's final loss with each seed; `None`s where it stays above."""
        seeds = sorted(self.trained[contestant].keys() & self.trained[PEER].keys())
        found = []
        for seed in seeds:
            row, goal = self.trained[contestant][seed], self.trained[PEER][seed]["loss"]
            reached = goal and pairs.steps_to(goal, row["initial"], row["curve"])
            found.append(reached)
        return found

    def pairs_with_fifths(self, contestant):
        """Names of who is compared with AdamW, each with its rows and AdamW's, seed by seed."""
        for trained, name in ((self.trained, NAMES[contestant]), (self.untuned, UNTUNED)):
            if contestant not in trained or (name == UNTUNED and contestant != OURS):
                continue
            ours, peers = (
                {s: r for s, r in trained[c].items() if "fifths" in r and r["loss"] is not None}
                for c in (contestant, PEER)
            )
            seeds = sorted(ours.keys() & peers.keys())
            yield name, [ours[s] for s in seeds], [peers[s] for s in seeds]


def answers(all_compared):
    """The question that the study was made for, a row a workload."""
    found = []
    for compared in all_compared:
        seeds = sorted(compared.trained[OURS].keys() & compared.trained[PEER].keys())
        whole = all(compared.complete(c) for c in (PEER, OURS))
        count = str(len(seeds)) if whole else f"{len(seeds)} of {compared.seeds(OURS)}"
        refined = refined_text(compared, (PEER, OURS))
        if len(seeds) < 2:
            found.append([compared.name, count, None, None, None, refined, NOT_RUN])
            continue
        difference = compared.difference(OURS)
        if difference is None:
            cells = [None, None, None, refined, "undecided: a training diverged"]
        else:
            means = [statistics.fmean(compared.losses(c, seeds)) for c in (OURS, PEER)]
            said = pairs.verdict(difference) if whole else "unfinished"
            cells = [*means, interval(difference), refined, said]
        found.append([compared.name, count, *cells])
    return found


def refined_text(compared, contestants):
    """How many of some contestants' choices are refined, as a cell."""
    refined = [compared.studies[c].refined() for c in contestants]
    return "–" if None in refined else f"{sum(refined)} of {len(refined)}"


def headlines(found):
    """What README quotes: the answers that there are, before the headlines of other pages."""
    made = []
    for order, (name, seeds, *_, difference, refined, answer) in enumerate(found):
        if difference is not None:
            steps = f"{WORKLOADS[name].steps:,}"
            if refined not in ("–", "2 of 2"):
                answer += f"; {refined} choices refined"
            claim = f"{NAMED[name]}: held-out loss, tuned ACClip less tuned AdamW"
            made.append(
                {"order": order - len(found), "claim": claim, "result": difference}
                | {"digits": 4, "sign": True, "seeds": f"{seeds} seeds, {steps} steps; {answer}"}
            )
    return made


def interval(difference):
    """A difference as a cell."""
    return {key: difference[key] for key in ("value", "low", "high")}


def state(all_compared):
    """What has been run: a row a workload."""
    found = []
    for compared in all_compared:
        studies, count = compared.studies, len(compared.studies)
        tuned = sum(chosen is not None for chosen in compared.chosen.values())
        refined = refined_text(compared, studies)
        confirmed = sum(compared.complete(c) for c in studies)
        swept = sum(bool(compared.chosen[c]) and not studies[c].sweeping() for c in studies)
        done = sum(len(study.rows) for study in studies.values())
        cells = [f"{n} of {count}" for n in (tuned, confirmed, swept)]
        found.append([compared.name, done, cells[0], refined, *cells[1:]])
    return found


def losses(all_compared, step_seconds):
    """Final losses, differences to tuned AdamW and how soon its loss is reached.

    Args:
        all_compared: A `Compared` for each workload.
        step_seconds: What `step_seconds.py` wrote.
    """
    found = []
    for compared in all_compared:
        seconds = step_seconds.get(compared.name, {}).get("seconds", {})
        ready = [c for c in compared.studies if len(compared.trained[c]) > 1]
        differences = {c: compared.difference(c) for c in ready if c != PEER}
        tested = [c for c, difference in differences.items() if difference]
        ps = dict(zip(tested, pairs.holm([differences[c]["p"] for c in tested]), strict=True))
        for c in sorted(ready, key=lambda c: mean_loss(compared, c)):
            seeds = sorted(compared.trained[c])
            final = [loss for loss in compared.losses(c, seeds) if loss is not None]
            cell = (
                {"mean": statistics.fmean(final), "sd": statistics.stdev(final)}
                if len(final) > 1
                else None
            )
            difference = differences.get(c)
            reached = [] if c == PEER else compared.steps_to_peer(c)
            taken = [steps for steps in reached if steps is not None]
            share = statistics.median(taken) / compared.workload.steps if taken else None
            ratio = race.ratio(seconds.get(c), seconds.get(PEER))
            found.append(
                [
                    compared.name,
                    NAMES[c],
                    f"{len(seeds)} of {compared.seeds(c)}",
                    cell,
                    str(len(seeds) - len(final)),
                    interval(difference) if difference else None,
                    p_text(ps[c]) if c in ps else None,
                    f"{len(taken)} of {len(reached)}" if reached else "–",
                    share,
                    ratio and ratio[1],
                    share * ratio[1] if share and ratio else None,
                ]
            )
    return found


def starts(all_compared):
    """For who chooses: the lowest loss, ACClip's distance to it, and what to start with.

    Of the optimizers that a user can take, so without the candidates.
    """
    found = []
    for compared in all_compared:
        differences = {PEER: {"value": 0.0}}
        for c in compared.studies:
            if c != PEER and c not in CANDIDATES and compared.complete(c):
                differences[c] = compared.difference(c) or {"value": float("inf")}
        if OURS not in differences or not compared.complete(PEER):
            continue
        best = min(differences, key=lambda c: differences[c]["value"])
        apart = None if best == OURS else compared.difference(OURS, best)
        row = [NAMED[compared.name], NAMES[best], apart and interval(apart)]
        found.append([*row, *(start_text(compared.chosen[c]) for c in (OURS, PEER))])
    return found


def start_text(chosen):
    """What the tuning chose, as a cell for who starts from it."""
    texts = [f"{sign} {chosen[name]:g}" for name, sign in SWEPT.items() if name != "warmup"]
    return f"{', '.join(texts)}, warm-up {100 * chosen['warmup']:g}%"


def untuned(all_compared):
    """ACClip against AdamW at their defaults, a row a workload."""
    found = []
    for compared in all_compared:
        trained = [compared.untuned[c] for c in (OURS, PEER)]
        seeds = sorted(trained[0].keys() & trained[1].keys())
        losses = [[of[seed]["loss"] for seed in seeds] for of in trained]
        if len(seeds) < 2:
            continue
        if None in (*losses[0], *losses[1]):
            cells = [None, None, None, "undecided: a training diverged"]
        else:
            difference = pairs.paired(*losses)
            means = map(statistics.fmean, losses)
            whole = len(seeds) == compared.seeds(OURS)
            said = pairs.verdict(difference) if whole else "unfinished"
            cells = [*means, interval(difference), said]
        found.append([compared.name, f"{len(seeds)} of {compared.seeds(OURS)}", *cells])
    return found


def tried_defaults(rows):
    """The losses on the tuning seeds of what ACClip's defaults may become, and whose is lowest."""
    chosen, found = chosen_defaults(rows), []
    for name, whose in ((None, OURS), *((n, whose) for n, (whose, _) in NEW_DEFAULTS.items())):
        losses = defaults_losses(name, whose, rows)
        if any(loss is not None for loss in losses):
            found.append([name or "today's", *losses, "chosen" if name and name == chosen else "–"])
    return found


def new_defaults(all_compared):
    """The chosen of what ACClip's defaults may become, less today's and less AdamW's."""
    found = []
    for compared in all_compared:
        ours, cells = compared.new_defaults, []
        for c in (OURS, PEER):
            seeds = sorted(ours.keys() & compared.untuned[c].keys())
            pair = [[of[seed]["loss"] for seed in seeds] for of in (ours, compared.untuned[c])]
            whole = len(seeds) == compared.seeds(OURS)
            if len(seeds) < 2 or None in (*pair[0], *pair[1]):
                cells += [None, "–" if len(seeds) < 2 else "undecided: a training diverged"]
            else:
                difference = pairs.paired(*pair)
                said = pairs.verdict(difference) if whole else "unfinished"
                cells += [interval(difference), said]
        if len(ours) > 1:
            final = [row["loss"] for row in ours.values()]
            mean = None if None in final else statistics.fmean(final)
            count = f"{len(ours)} of {compared.seeds(OURS)}"
            found.append([compared.name, count, mean, *cells])
    return found


def by_fifths(rows):
    """The final losses in each fifth of the text, a tuple of the rows' losses for each."""
    return list(zip(*([part["loss"] for part in row["fifths"]] for row in rows), strict=True))


def fifths(all_compared):
    """The difference to AdamW's final loss in each fifth of the text, a row an optimizer."""
    found = []
    for compared in all_compared:
        for c in compared.studies:
            for name, ours, peers in compared.pairs_with_fifths(c) if c != PEER else ():
                if len(ours) > 1:
                    both = zip(by_fifths(ours), by_fifths(peers), strict=True)
                    cells = [interval(pairs.paired(*pair)) for pair in both]
                    found.append([compared.name, name, str(len(ours)), *cells])
    return found


def words(all_compared):
    """How many words make up each fifth, their share of the held-out labels, AdamW's loss there."""
    found = []
    for compared in all_compared:
        for name, _, peers in compared.pairs_with_fifths(OURS):
            if not peers:
                continue
            parts = peers[0]["fifths"]
            total = sum(part["labels"] for part in parts)
            means = map(statistics.fmean, by_fifths(peers))
            cells = [
                f"{part['words']:,} words, {100 * part['labels'] / total:.0f}%, {mean:.3f}"
                for part, mean in zip(parts, means, strict=True)
            ]
            found.append([compared.name, "untuned" if name == UNTUNED else "tuned", *cells])
    return found


def candidates(all_compared):
    """The candidates for a better ACClip against ACClip, as tuned, a row a workload and one."""
    found = []
    for compared in all_compared:
        ready = [c for c in CANDIDATES if len(compared.trained.get(c, ())) > 1]
        differences = {c: compared.difference(c, OURS) for c in ready}
        tested = [c for c, difference in differences.items() if difference]
        ps = dict(zip(tested, pairs.holm([differences[c]["p"] for c in tested]), strict=True))
        for c in sorted(tested, key=lambda c: differences[c]["value"]):
            difference = differences[c]
            seeds = str(len(compared.trained[c].keys() & compared.trained[OURS].keys()))
            row = [compared.name, NAMES[c], seeds, interval(difference)]
            found.append([*row, p_text(ps[c]), pairs.verdict(difference)])
    return found


def mean_loss(compared, contestant):
    """The mean final loss, infinite where a training diverged; for sorting."""
    final = compared.losses(contestant, compared.trained[contestant])
    return float("inf") if None in final else statistics.fmean(final)


def p_text(p):
    """A p as a reader takes it."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def leads(all_compared):
    """Dict from a workload to its complete differences to tuned AdamW, of who clips."""
    return {
        compared.name: [
            interval(compared.difference(c))
            if compared.complete(c) and compared.complete(PEER) and compared.difference(c)
            else None
            for c in CLIPPING
        ]
        for compared in all_compared
    }


def choices(all_compared):
    """The hyperparameters that the tuning chose."""
    found = []
    for compared in all_compared:
        for c, chosen in compared.chosen.items():
            if chosen is None:
                continue
            study, named = compared.studies[c], dict(chosen)
            cells = [number(named.pop(name, None)) for name in (*SWEPT, "weight_decay")]
            rest = ", ".join(f"{name} {value:g}" for name, value in named.items())
            edges = ", ".join(study.edges())
            beyond = str(study.trials_beyond())
            found.append([compared.name, NAMES[c], *cells, rest or "–", beyond, edges or "–"])
    return found


def number(value):
    """A hyperparameter as a cell."""
    return "–" if value is None else f"{value:g}"


def basins(all_compared):
    """The loss with one hyperparameter changed, less the chosen's, on the tuning seeds."""
    found = []
    for compared in all_compared:
        for c, chosen in compared.chosen.items():
            for name, points in swept(compared, c).items():
                least = dict(points)[chosen[name]]
                texts = [
                    f"{value:g}: {loss - least:+.3f}".replace("-", "−").replace("+inf", "∞")
                    for value, loss in points
                ]
                found.append([compared.name, NAMES[c], SWEPT[name], "; ".join(texts)])
    return found


def swept(compared, contestant):
    """Dict from a hyperparameter to pairs of its value and the loss, the rest as chosen."""
    chosen, study = compared.chosen[contestant], compared.studies[contestant]
    if chosen is None or study.sweeping():
        return {}
    steps, seeds = compared.workload.steps, compared.workload.tuning_seeds
    found = {}
    for name in SWEPT:
        if name in chosen:
            values = sorted({row["hyperparameters"][name] for row in study.rows.values()})
            around = [(value, chosen | {name: value}) for value in values]
            found[name] = [
                (v, study.loss(s, steps)) for v, s in around if study.done(s, steps, seeds)
            ]
    return found


# --- What is written -------------------------------------------------------------------------


def results(rows, path, step_seconds, noise=()):
    """The page's results, as `docs/results/make.py` takes them.

    Args:
        rows: The rows.
        path: Their file.
        step_seconds: What `step_seconds.py` wrote.
        noise: The rows that `noise.py` wrote.
    """
    compared = [Compared(name, rows) for name in WORKLOADS]
    found, ahead = answers(compared), leads(compared)
    chosen, own = (
        {c.name: of(c) for c in compared}
        for of in (lambda c: c.chosen[PEER], lambda c: c.studies[PEER].untuned())
    )
    said = [f"{name}: {answer}" for name, *_, answer in found if answer != NOT_RUN]
    left = [name for name, *_, answer in found if answer == NOT_RUN]
    outcome = "; ".join([*said, f"{NOT_RUN}: {', '.join(left)}"] if left else said)
    loss = {"digits": 3}
    both = [
        "workload",
        "seeds",
        {"name": "ACClip"} | loss,
        {"name": "AdamW"} | loss,
        {"name": "ACClip − AdamW (95%)", "sign": True} | loss,
    ]
    return {
        "title": "The comparison of optimizers",
        "claim": "(not the paper's) tuned ACClip against tuned AdamW: lower, equal within "
        "±0.01, or higher",
        "paper": "–",
        "outcome": outcome,
        "rows": {
            "file": path.name,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "by": "python benchmarks/training/report.py",
        },
        "headlines": headlines(found),
        "measured": [
            *measured(rows),
            *measured_seconds(step_seconds),
            *noise_tables.measured(noise),
        ],
        "tables": {
            "answers": {
                "columns": [*both, "choices refined", "answer"],
                "rows": found,
            },
            "starts": {
                "page": "choosing.md",
                "columns": [
                    "trained",
                    "lowest loss",
                    {"name": "ACClip less it (95%)", "sign": True} | loss,
                    "ACClip: start with",
                    "AdamW: start with",
                ],
                "rows": starts(compared),
            },
            "untuned": {
                "columns": [*both, "at their defaults"],
                "rows": untuned(compared),
            },
            "tried_defaults": {
                "columns": [
                    "ACClip's defaults",
                    *({"name": f"{name}, tuning seeds"} | loss for name in CHOOSE_DEFAULTS),
                    "lowest mean",
                ],
                "rows": tried_defaults(rows),
            },
            "new_defaults": {
                "columns": [
                    "workload",
                    "seeds",
                    {"name": "new defaults"} | loss,
                    {"name": "less today's (95%)", "sign": True} | loss,
                    "than today's",
                    {"name": "less AdamW's defaults (95%)", "sign": True} | loss,
                    "than AdamW's defaults",
                ],
                "rows": new_defaults(compared),
            },
            "state": {
                "columns": [
                    "workload",
                    "trainings",
                    "tuned",
                    "refined",
                    "compared on fresh seeds",
                    "swept",
                ],
                "rows": state(compared),
            },
            "losses": {
                "columns": [
                    "workload",
                    "optimizer",
                    "seeds",
                    {"name": "held-out loss"} | loss,
                    "diverged",
                    {"name": "less AdamW's (95%)", "sign": True} | loss,
                    "p (Holm)",
                    "reach AdamW's loss",
                    {"name": "in this share of the steps", "digits": 2},
                    {"name": "a step's time, AdamW's 1", "digits": 2},
                    {"name": "in this share of AdamW's time", "digits": 2},
                ],
                "rows": losses(compared, step_seconds),
            },
            "fifths": {
                "columns": [
                    "workload",
                    "optimizer",
                    "seeds",
                    *({"name": name, "sign": True} | loss for name in FIFTHS),
                ],
                "rows": fifths(compared),
            },
            "words": {"columns": ["workload", "AdamW", *FIFTHS], "rows": words(compared)},
            "noise": {
                "columns": [
                    "workload",
                    "AdamW",
                    "at",
                    "verdict",
                    "tail index (95%)",
                    "noise scale, examples (95%)",
                    "in tokens",
                    "noise scale / batch",
                    *({"name": f"{NAMES[c]} − AdamW (95%)", "sign": True} | loss for c in CLIPPING),
                ],
                "rows": noise_tables.noise(noise, ahead, chosen, own),
            },
            "noise_relation": {
                "columns": [
                    "ACClip − AdamW with",
                    "workloads",
                    "Spearman's ρ",
                    "the least p that so many can give",
                ],
                "rows": noise_tables.relation(noise, ahead),
            },
            "noise_groups": {
                "columns": [
                    "workload",
                    "variables",
                    "parameters",
                    "of the noise's variance",
                    "verdict",
                    "tail index (95%)",
                    "noise scale, examples (95%)",
                ],
                "rows": noise_tables.groups(noise),
            },
            "candidates": {
                "columns": [
                    "workload",
                    "candidate",
                    "seeds",
                    {"name": "less ACClip's (95%)", "sign": True} | loss,
                    "p (Holm)",
                    "than ACClip",
                ],
                "rows": candidates(compared),
            },
            "choices": {
                "columns": [
                    "workload",
                    "optimizer",
                    *SWEPT.values(),
                    "weight decay",
                    "besides",
                    "trials beyond the grid",
                    "still at an edge",
                ],
                "rows": choices(compared),
            },
            "basins": {
                "columns": ["workload", "optimizer", "over", "value: loss less the chosen's"],
                "rows": basins(compared),
            },
        },
    }, compared


def measured(rows):
    """When and with what the rows were made, a row a workload."""
    found = []
    for name in WORKLOADS:
        mine = [row for row in rows if row["workload"] == name]
        if not mine:
            continue
        of_rows = sorted({tuple(row["versions"].items()) for row in mine})
        versions = [", ".join(f"{n} {v}" for n, v in of) for of in of_rows]
        texts = sorted({f"text of {row['text']}" for row in mine if "text" in row})
        dates = sorted({row["date"] for row in mine})
        tuning = WORKLOADS[name].tuning_seeds
        fresh = len({row["seed"] for row in mine} - set(tuning))
        found.append(
            {
                "what": f"{len(mine)} trainings of {name}",
                "command": f"python benchmarks/training/run.py --workload {name}",
                "seeds": f"{len(tuning)} to tune on, {fresh} others to compare on",
                "machine": "; ".join(sorted({row["machine"] for row in mine})),
                "versions": "; ".join([*versions, *texts]),
                "recorded": " to ".join(dict.fromkeys((dates[0], dates[-1]))),
                "source": "raw",
            }
        )
    return found


def measured_seconds(step_seconds):
    """The same of the steps' times."""
    return [
        {
            "what": f"a step's time on {name}",
            "command": f"python benchmarks/training/step_seconds.py --workload {name}",
            "seeds": f"{len(next(iter(of['seconds'].values())))} rounds",
            "machine": of["machine"],
            "versions": ", ".join(f"{n} {v}" for n, v in of["versions"].items()),
            "recorded": of["date"],
            "source": "raw",
        }
        for name, of in step_seconds.items()
    ]


def plot_curves(all_compared, path):
    """The core's contestants over the training, a column of panels a workload.

    Above the mean held-out loss, below its paired difference to tuned AdamW's with the 95% band.
    """
    import matplotlib.pyplot as plt

    shown = [c for c in all_compared if any(len(t) > 1 for t in c.trained.values())]
    if not shown:
        return
    size = (5 * len(shown), 7)
    figure, axes = plt.subplots(2, len(shown), figsize=size, squeeze=False, sharex="col")
    for (above, below), compared in zip(axes.T, shown, strict=True):
        farthest = pairs.EQUAL
        for number, c in enumerate(c for c in compared.studies if CONTESTANTS[c].core):
            curves = compared.curves(c)
            if len(curves) < 2:
                continue
            style = {"color": f"C{number}", "linestyle": LINES[number % len(LINES)]}
            steps = [step for step, _ in next(iter(curves.values()))]
            losses = {seed: [loss for _, loss in curve] for seed, curve in curves.items()}
            means = [statistics.fmean(column) for column in zip(*losses.values(), strict=True)]
            above.plot(steps, means, label=NAMES[c], **style)
            peers = {seed: [loss for _, loss in of] for seed, of in compared.curves(PEER).items()}
            both = sorted(losses.keys() & peers.keys())
            if c == PEER or len(both) < 2:
                continue
            ours, others = (zip(*(of[s] for s in both), strict=True) for of in (losses, peers))
            found = [pairs.paired(*point) for point in zip(ours, others, strict=True)]
            below.plot(steps, [f["value"] for f in found], label=NAMES[c], **style)
            band = [f["low"] for f in found], [f["high"] for f in found]
            below.fill_between(steps, *band, color=style["color"], alpha=0.2, linewidth=0)
            late = found[-(len(found) // 4) :]
            farthest = max(farthest, *(abs(f[end]) for f in late for end in ("low", "high")))
        above.set(title=compared.name)
        below.axhline(0, color="gray", linewidth=0.8)
        below.set(xlabel="step", ylim=(-1.1 * farthest, 1.1 * farthest))
        above.legend(fontsize=8)
    axes[0][0].set_ylabel("held-out loss, mean over seeds")
    axes[1][0].set_ylabel("less AdamW's, 95% band")
    _save(figure, path)


def plot_basins(all_compared, path):
    """The loss over each hyperparameter, a row of panels a workload, the core's contestants."""
    import matplotlib.pyplot as plt

    shown = [c for c in all_compared if any(swept(c, name) for name in c.studies)]
    if not shown:
        return
    figure, axes = plt.subplots(
        len(shown), len(SWEPT), figsize=(4 * len(SWEPT), 3.5 * len(shown)), squeeze=False
    )
    for line, compared in zip(axes, shown, strict=True):
        for axis, (name, text) in zip(line, SWEPT.items(), strict=True):
            # β counts by its distance to 1.
            far, ticks = name in ("beta_1", "beta_2"), set()
            for c in compared.studies:
                points = swept(compared, c).get(name) if CONTESTANTS[c].core else None
                if points:
                    xs = [float(f"{1 - x if far else x:.6g}") for x, _ in points]
                    axis.plot(xs, [y for _, y in points], marker=".", label=NAMES[c])
                    ticks |= set(xs)
            axis.set(xscale="log", xlabel=f"1 − {text}" if far else text, title=compared.name)
            axis.set_xticks(sorted(ticks), [f"{x:g}" for x in sorted(ticks)], rotation=60)
            axis.minorticks_off()
            # A thousandth must not look large.
            low, high = axis.get_ylim()
            axis.set_ylim(low - LEAST_HEIGHT / 20, max(high, low + LEAST_HEIGHT))
        line[0].set_ylabel("held-out loss")
        line[0].legend(fontsize=8)
    _save(figure, path)


def _save(figure, path):
    figure.tight_layout()
    # Without the version of matplotlib, the same rows make the same file.
    write_atomically(
        path, lambda file: figure.savefig(file, format="png", dpi=90, metadata={"Software": None})
    )


def main(arguments=None):
    """Writes results and figures. Returns the exit status."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--rows", type=to_path, default=FOLDER / "rows.jsonl", help="the results file"
    )
    options = parser.parse_args(arguments)
    folder = options.rows.parent
    try:
        rows = rows_file.read(options.rows)
        noise = rows_file.read(folder / noise_tables.NOISE, noise_tables.identity)
    except rows_file.RowsError as error:
        parser.error(str(error))
    if not rows:
        parser.error(f"{options.rows}: no rows; benchmarks/training/run.py makes them")
    import matplotlib

    matplotlib.use("agg")
    timed = folder / SECONDS
    step_seconds = json.loads(timed.read_text("utf-8")) if timed.exists() else {}
    found, compared = results(rows, options.rows, step_seconds, noise)
    text = json.dumps(found, indent=1, ensure_ascii=False) + "\n"
    write_atomically(folder / "results.json", text.encode())
    plot_curves(compared, folder / "curves.png")
    plot_basins(compared, folder / "basins.png")
    print(f"Written under {folder}: results.json and the figures; now: python docs/results/make.py")
    return 0


if __name__ == "__main__":
    sys.exit(main())
