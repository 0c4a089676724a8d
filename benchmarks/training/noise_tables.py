"""The tables of the models' gradient noise, and its relation to the lead of clipping."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from scipy import stats

from training.rows import Row

NOISE = "noise.jsonl"  # Beside the rows of the trainings.
NAMES = {0.0: "the start", 0.25: "a quarter", 0.5: "half", 1.0: "the end"}
RELATED = 0.5  # The stage whose noise is set beside the lead, chosen before any was measured.
LEAST_WORKLOADS = 3  # Of a rank correlation.

Interval = Mapping[str, float]
Cell = str | int | Interval | None


def identity(row: Row) -> tuple[Any, ...]:
    """What makes a measurement the same one: workload, settings, seed, steps and batches."""
    settings = json.dumps(row["hyperparameters"], sort_keys=True)
    numbers = (row[name] for name in ("seed", "steps", "step", "batches"))
    return row["workload"], settings, *numbers


def latest(rows: Sequence[Row]) -> list[Row]:
    """The last row of each workload and stage, the workloads in the order of their first rows."""
    found: dict[str, dict[int, Row]] = {}
    for row in rows:
        found.setdefault(row["workload"], {})[row["step"]] = row
    return [of[step] for of in found.values() for step in sorted(of)]


def stage_name(share: float) -> str:
    """A stage as a reader takes it."""
    return NAMES.get(share, f"{100 * share:g}%")


def settings_name(row: Row, chosen: Mapping[str, Any], untuned: Mapping[str, Any]) -> str:
    """Whether a row's training had the settings that the tuning has chosen by now.

    Args:
        row: The row.
        chosen: Dict from a workload to AdamW's choice there, `None` where there is none yet.
        untuned: The same of its own settings.
    """
    settings, name = row["hyperparameters"], row["workload"]
    if settings == chosen.get(name):
        return "tuned"
    return "untuned" if settings == untuned.get(name) else "tuned, chosen before"


def number(value: float | str | None) -> float:
    """A number as a row holds it: infinity is a text, and `None` not a number."""
    return math.nan if value is None else float(value)


def digits(value: float) -> str:
    """A number with three digits that count, without an exponent."""
    if math.isinf(value):
        return "∞"
    rounded = float(f"{value:.3g}")
    return f"{rounded:,.0f}" if abs(rounded) >= 100 else f"{rounded:g}"


def interval_text(values: Sequence[float | str | None]) -> str:
    """Value and interval as a cell; the lower end alone where there is no value.

    Args:
        values: Value and ends of the interval, as a row holds them.
    """
    value, low, high = map(number, values)
    if value == low == high:
        return digits(value)
    if not math.isnan(value):
        return f"{digits(value)} ({digits(low)} to {digits(high)})"
    return "–" if math.isnan(low) else f"at least {digits(low)}"


def per_batch(row: Row) -> list[float | str | None]:
    """The noise scale over the batch, with the ends of its interval, as a row holds such."""
    found = (number(value) / row["batch"] for value in row["noise_scale"])
    return [None if math.isnan(value) else value for value in found]


def noise(
    rows: Sequence[Row],
    leads: Mapping[str, Sequence[Interval | None]],
    chosen: Mapping[str, Any],
    untuned: Mapping[str, Any],
) -> list[list[Cell]]:
    """The noise at each stage, a row a workload and stage; the leads stand at the first.

    Args:
        rows: The measurements.
        leads: Dict from a workload to the differences to tuned AdamW, as cells.
        chosen: As `settings_name` takes it.
        untuned: The same.
    """
    found: list[list[Cell]] = []
    for row in latest(rows):
        name = row["workload"]
        first = not found or all(name != before[0] for before in found)
        tokens = row["noise_scale_in_tokens"]
        found.append(
            [
                name,
                settings_name(row, chosen, untuned),
                stage_name(row["stage"]),
                row["verdict"],
                interval_text(row["tail_index"]),
                interval_text(row["noise_scale"]),
                "–" if tokens == row["noise_scale"] else interval_text(tokens),
                interval_text(per_batch(row)),
                *(leads[name] if first else [""] * len(leads[name])),
            ]
        )
    return found


def groups(rows: Sequence[Row]) -> list[list[Cell]]:
    """The noise by kinds of variables where it is set beside the lead, a row a kind."""
    found: list[list[Cell]] = []
    for row in latest(rows):
        for group, told in row["groups"].items() if row["stage"] == RELATED else ():
            part = number(told["noise_variance"]) / number(row["noise_variance"])
            found.append(
                [
                    row["workload"],
                    group,
                    told["parameters"],
                    f"{100 * part:.0f}%",
                    told["verdict"],
                    interval_text(told["tail_index"]),
                    interval_text(told["noise_scale"]),
                ]
            )
    return found


def relation(
    rows: Sequence[Row], leads: Mapping[str, Sequence[Interval | None]]
) -> list[list[Cell]]:
    """Spearman's rank correlation of the lead, over the workloads, with what the noise is like.

    Args:
        rows: The measurements.
        leads: Dict from a workload to differences to tuned AdamW, of which the first counts.
    """
    there = [(leads[row["workload"]][0], row) for row in latest(rows) if row["stage"] == RELATED]
    told = {
        "tail index": lambda row: number(row["tail_index"][0]),
        "noise scale, examples": lambda row: number(row["noise_scale"][0]),
        "noise scale / batch": lambda row: number(per_batch(row)[0]),
    }
    found: list[list[Cell]] = []
    for what, of in told.items():
        pairs = [
            (lead["value"], of(row)) for lead, row in there if lead and not math.isnan(of(row))
        ]
        found.append([what, str(len(pairs)), *rank_correlation(pairs)])
    return found


def rank_correlation(pairs: Sequence[tuple[float, float]]) -> list[str]:
    """Spearman's ρ and the least p that so many pairs can give, as cells.

    That p is of two sides, by permutation: of all orders of n, two alone are perfect.
    """
    count = len(pairs)
    alike = any(len(set(values)) == 1 for values in zip(*pairs, strict=True))
    if count < LEAST_WORKLOADS or alike:
        return ["–", "–"]
    rho = stats.spearmanr(*zip(*pairs, strict=True)).statistic
    return [f"{rho:+.2f}".replace("-", "−"), f"{2 / math.factorial(count):.2g}"]


def measured(rows: Sequence[Row]) -> list[dict[str, str]]:
    """When and with what the noise was measured, a row a workload."""
    found = []
    for name in dict.fromkeys(row["workload"] for row in rows):
        mine = [row for row in latest(rows) if row["workload"] == name]
        versions = [", ".join(f"{n} {v}" for n, v in row["versions"].items()) for row in mine]
        texts = [f"text of {row['text']}" for row in mine if "text" in row]
        dates = sorted(row["date"] for row in mine)
        batches = " or ".join(dict.fromkeys(str(row["batches"]) for row in mine))
        found.append(
            {
                "what": f"the gradient noise of {name}, {len(mine)} stages",
                "command": f"python benchmarks/training/noise.py --workload {name}",
                "seeds": f"1, {batches} batches a stage",
                "machine": "; ".join(sorted({row["machine"] for row in mine})),
                "versions": "; ".join(dict.fromkeys([*versions, *texts])),
                "recorded": " to ".join(dict.fromkeys((dates[0], dates[-1]))),
                "source": "raw",
            }
        )
    return found
