"""What runs came to, as Markdown tables and in words."""

import math

from .comparison import COLUMNS, summary
from .plans import BETAS


def table(runs, columns=COLUMNS):
    """The summary as a Markdown table: mean ± standard deviation over seeds."""
    found = summary(runs, columns)
    betas = [name for name in BETAS if any(name in row for row in found)]
    rows = [["optimizer", "learning rate", *betas, "seeds", *columns]]
    for row in found:
        cells = [row["optimizer"], f"{row['learning_rate']:.3g}"]
        cells += [f"{row[name]:g}" if name in row else "" for name in betas]
        cells.append(str(row["seeds"]))
        cells += [_mean_and_spread(row[name], digits) for name, digits in columns.values()]
        rows.append(cells)
    return markdown(rows)


def markdown(rows):
    """Rows of texts, the header first, as a Markdown table with aligned columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    header, *body = rows
    return "\n".join(
        "| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |"
        for row in (header, ["-" * width for width in widths], *body)
    )


def texts(cells):
    """Cells as texts, numbers with three digits."""
    return [cell if isinstance(cell, str) else f"{cell:.3g}" for cell in cells]


def sentences(differences, measure="validation loss"):
    """The paired differences of `measure` in words, one line each."""
    lines = []
    for row in differences:
        values = ", ".join(f"{value:+.3f}" for value in row["differences"])
        if math.isnan(row["low"]):
            interval = "no interval: it takes two seeds or more"
        else:
            interval = f"{row['confidence']:.0%} interval {row['low']:+.3f} to {row['high']:+.3f}"
        lines.append(
            f"{row['optimizer']} − {row['baseline']}, {measure}, same seeds: "
            f"{row['mean']:+.3f} ({interval}; by seed {values})"
        )
    return "\n".join(lines)


def _mean_and_spread(value, digits):
    mean = f"{value['mean']:,.{digits}f}"
    return mean if math.isnan(value["sd"]) else f"{mean} ± {value['sd']:,.{digits}f}"
