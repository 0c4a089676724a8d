"""The table and the picture of moving_thresholds.py."""

import numpy as np

from ..figures import picture


def records(results):
    """A dict for each contestant of each problem, for the table and the page.

    Args:
        results: dict from a problem to what `contest.contest` returned.
    """
    found = []
    for problem, result in results.items():
        differences = {row["contestant"]: row for row in result["differences"]}
        for run in result["runs"]:
            settings = dict(run["settings"])
            row = differences.get(run["contestant"], {})
            found.append(
                {
                    "problem": problem,
                    "contestant": run["contestant"],
                    "rate": settings.pop("rate"),
                    "own": ", ".join(f"{k} {v:g}" for k, v in settings.items()) or "–",
                    "tried": run["tried"],
                    "error": float(np.mean(run["errors"])),
                    "change": _largest_change(run),
                }
                | {f"difference_{k}": row.get(k) for k in ("mean", "low", "high")}
            )
    return found


def rows(found):
    """What `records` returned as lines of texts, the header first."""
    header = ["problem", "clipping", "rate", "tuned too", "tried", "error"]
    lines = [[*header, "less the fixed's (95%)", "change by scale"]]
    for row in found:
        mean, low, high = (row[f"difference_{k}"] for k in ("mean", "low", "high"))
        difference = "–" if mean is None else f"{mean:+.4f} ({low:+.4f} to {high:+.4f})"
        change = "–" if row["change"] is None else f"{row['change']:.1e}"
        texts = [row["problem"], row["contestant"], f"{row['rate']:g}", row["own"]]
        lines.append([*texts, str(row["tried"]), f"{row['error']:.4f}", difference, change])
    return lines


def _largest_change(run):
    """The largest difference that the scale of the loss made, or `None` where it was not tried."""
    if "scaled" not in run:
        return None
    errors = np.array(run["errors"])
    return float(max(np.max(np.abs(np.array(e) - errors)) for e in run["scaled"].values()))


def draw(results, path):
    """Draws the errors of all seeds, a panel a problem."""
    with picture(path, "Thresholds that move", 1, len(results), figsize=(14, 4)) as panels:
        for axes, (problem, result) in zip(np.ravel(panels), results.items(), strict=True):
            for i, run in enumerate(result["runs"]):
                errors = np.array(run["errors"])
                axes.plot(np.full(len(errors), i), errors, "o", alpha=0.4, color="C0")
                axes.plot([i - 0.3, i + 0.3], [errors.mean()] * 2, color="black")
            axes.set_xticks(
                range(len(result["runs"])),
                [run["contestant"] for run in result["runs"]],
                rotation=40,
                ha="right",
            )
            axes.set_title(problem)
            what = "log of the distance" if "regression" in problem else "held-out loss"
            axes.set_ylabel(what)
