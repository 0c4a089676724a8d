"""Compares finished runs of the Model Garden: a table and a picture of their curves.

    python -m keras_acclip.garden.compare runs/adamw runs/acclip --output comparison

Reads the event files and `params.yaml` of each model directory, whoever trained it. The table has
what the paper's Tables 2 and 3 have: validation loss and masked-LM accuracy, or exact match and F1;
the picture is like its Figure 3. Where a run has measured its gradient noise, the table has the
last verdict and noise scale.
"""

from __future__ import annotations

import argparse
import itertools
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from keras_acclip._utils.commands import Parser, quiet_tensorflow, to_path
from keras_acclip.garden.data import shards
from keras_acclip.garden.data.shards import DataError
from keras_acclip.garden.summaries import Run, read_params, read_run

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Heading of a column: the summary's name, the factor and the digits that it is shown with.
METRICS = {
    "validation loss": ("validation_loss", 1, 4),
    "masked-LM loss": ("lm_example_loss", 1, 4),
    "masked-LM accuracy (%)": ("masked_lm_accuracy", 100, 2),
    "EM (%)": ("exact_match", 100, 2),
    "F1 (%)": ("final_f1", 100, 2),
    "accuracy (%)": ("cls_accuracy", 100, 2),
    "top-1 (%)": ("accuracy", 100, 2),
}
_MARKERS = "osD^vP"


def table(runs: Sequence[Run]) -> str:
    """The runs as a Markdown table, with the columns that one of them has a value for.

    Example:
        >>> print(table([read_run("runs/adamw"), read_run("runs/acclip")]))
        | run    | optimizer | learning rate | steps | validation loss | steps/s |
        ...
    """
    columns = [heading for heading, (tag, *_) in METRICS.items() if any(map(_has(tag), runs))]
    noise = ("gradient noise", "noise scale") if any(run.noise for run in runs) else ()
    rows: list[tuple[str, ...]] = [
        ("run", "optimizer", "learning rate", "steps", *columns, *noise, "steps/s")
    ]
    for run in runs:
        planned = run.trainer["train_steps"]
        steps = f"{run.steps:,}" + (f" of {planned:,}" if run.steps < planned else "")
        rate = "" if math.isnan(run.learning_rate) else f"{run.learning_rate:.3g}"
        cells = (_last(run, *METRICS[heading]) for heading in columns)
        found = _noise(run) if noise else ()
        speed = f"{run.steps_per_second:.3g}"
        rows.append((run.name, run.optimizer, rate, steps, *cells, *found, speed))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rows.insert(1, tuple("-" * width for width in widths))
    return "\n".join(f"| {' | '.join(map(str.ljust, row, widths))} |" for row in rows)


def _has(tag: str) -> Callable[[Run], bool]:
    return lambda run: bool(run.validation.get(tag))


def _last(run: Run, tag: str, factor: float, digits: int) -> str:
    """The last value of a validation's summary, for the table."""
    values = list(run.validation.get(tag, {}).values())
    return f"{factor * values[-1]:.{digits}f}" if values else ""


def _noise(run: Run) -> tuple[str, str]:
    """Verdict and noise scale of a run's last measurement, for the table."""
    from keras_acclip.noise.sample import LEAST_BATCHES

    if run.noise is None or not len(run.noise):
        return "", ""
    scale = run.noise.noise_scale().short if len(run.noise) >= LEAST_BATCHES else ""
    return run.noise.classify().label, scale


def curves(runs: Sequence[Run]) -> Figure:
    """The picture: training loss and what the validations measured first, over the steps.

    Args:
        runs: The runs.

    Returns:
        A figure; its lines differ by dash and marker as well as by colour. Its axes span a fifth
        of the curves' level, or ten percentage points, so that a small gap looks small.

    Example:

    >>> from keras_acclip.garden.compare import curves
    >>> from keras_acclip.garden.summaries import Run
    >>> train, validation = {"training_loss": {100: 5.0, 200: 4.0}}, {"validation_loss": {200: 4.1}}
    >>> figure = curves([Run("acclip", {}, train, validation)])
    >>> [axes.get_ylabel() for axes in figure.axes]
    ['training loss', 'validation loss']
    """
    from matplotlib.figure import Figure

    from keras_acclip.noise import plots

    heading = next((h for h, (tag, *_) in METRICS.items() if any(map(_has(tag), runs))), None)
    with plots.style():
        figure = Figure(figsize=(10, 4.2), layout="constrained")
        left, right = figure.subplots(1, 2)
        for run, marker in zip(runs, itertools.cycle(_MARKERS), strict=False):
            loss = run.train.get("training_loss", {})
            line = {"marker": marker, "markersize": 4.5, "label": run.name}
            left.plot(loss.keys(), loss.values(), markevery=max(1, len(loss) // 10), **line)
            if heading:
                tag, factor, _ = METRICS[heading]
                found = run.validation.get(tag, {})
                right.plot(found.keys(), [factor * value for value in found.values()], **line)
        _widen(left, 0)
        if heading:
            _widen(right, 10 if METRICS[heading][1] == 100 else 0)
        left.set(title="Training", xlabel="step", ylabel="training loss")
        right.set(title="Validation", xlabel="step", ylabel=heading or "no validation")
        for axes in (left, right) if heading else (left,):
            axes.legend()
    return figure


def _widen(axes: Axes, least: float) -> None:
    """Has an axis span at least `least`, and a fifth of the level of what it shows."""
    low, high = axes.get_ylim()
    missing = max(least, 0.2 * abs(low + high) / 2) - (high - low)
    if missing > 0:
        axes.set_ylim(low - missing / 2, high + missing / 2)


def names(folders: Sequence[str | Path]) -> list[str]:
    """What to call the runs: the directories' names, or their paths where names are alike.

    Example:

    >>> from keras_acclip.garden.compare import names
    >>> names(["runs/adamw", "runs/acclip"]), names(["a/run", "b/run"])
    (['adamw', 'acclip'], ['a/run', 'b/run'])
    """
    last = [Path(folder).resolve().name for folder in folders]
    return last if len(set(last)) == len(last) else [str(folder) for folder in folders]


def compare(folders: Sequence[str | Path], output: str | Path) -> str:
    """Reads the runs and writes `comparison.md` and `comparison.png`.

    Args:
        folders: Model directories.
        output: Folder to write to; made where it is missing.

    Returns:
        The table.

    Raises:
        DataError: If directories are no runs', or the output can't be written.
    """
    # Before TensorFlow loads.
    with shards.together("runs can't be compared") as faults:
        for folder in folders:
            with faults.one():
                read_params(Path(folder))
    from keras_acclip.noise import plots

    runs = [read_run(*pair) for pair in zip(folders, names(folders), strict=True)]
    found = table(runs)
    shards.write_file(Path(output) / "comparison.md", found + "\n")
    picture = Path(output) / "comparison.png"
    with shards.writing(picture):
        plots.save(curves(runs), picture)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Reads the command line and compares. Returns the exit status."""
    parser = Parser(
        prog="python -m keras_acclip.garden.compare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("runs", nargs="+", type=to_path, metavar="MODEL_DIR")
    parser.add_argument("--output", type=to_path, default=Path("."), help="default: this folder")
    options = parser.parse_args(arguments)
    quiet_tensorflow()
    try:
        print(compare(options.runs, options.output))
    except DataError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"\nWritten under {options.output}: comparison.md, comparison.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
