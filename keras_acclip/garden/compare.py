"""Compares finished runs of the Model Garden: a table and a picture of their curves.

    python -m keras_acclip.garden.compare runs/adamw runs/acclip --output comparison

Reads the event files and `params.yaml` of each model directory, whoever trained it. The table has
what the paper's Tables 2 and 3 have: validation loss and masked-LM accuracy, or exact match and F1;
the picture is like its Figure 3.
"""

import argparse
import functools
import itertools
import math
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path

import yaml

from keras_acclip.garden import shards
from keras_acclip.garden.shards import DataError
from keras_acclip.noise import plots

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


@dataclass(frozen=True)
class Run:
    """A model directory.

    Attributes:
        name: What the run is called.
        params: The experiment's parameters, as `params.yaml` has them.
        train: Dict from a summary's name to a dict from step to value.
        validation: The same of the validations.
    """

    name: str
    params: dict
    train: dict
    validation: dict

    @functools.cached_property
    def trainer(self):
        """The trainer's parameters."""
        return self.params["trainer"]

    @property
    def optimizer(self):
        """The optimizer's name among the Model Garden's."""
        return self.trainer["optimizer_config"]["optimizer"]["type"]

    @property
    def learning_rate(self):
        """The schedule's initial learning rate; if it has none, the highest summary's, or NaN."""
        schedule = self.trainer["optimizer_config"].get("learning_rate") or {}
        fields = schedule.get(schedule.get("type")) or {}
        for name in ("initial_learning_rate", "learning_rate"):
            if name in fields:
                return fields[name]
        return max(self.train.get("learning_rate", {}).values(), default=math.nan)

    @property
    def steps(self):
        """The last step with a summary."""
        return max(step for values in self.train.values() for step in values)

    @property
    def steps_per_second(self):
        """Median of the training loops after the first, which traces and compiles."""
        speeds = list(self.train.get("steps_per_second", {}).values())
        return statistics.median(speeds[1:] or speeds or [math.nan])


def read_run(folder, name=None):
    """Reads a model directory.

    Args:
        folder: Path of the directory.
        name: What to call the run. Defaults to the directory's name.

    Returns:
        A `Run`. Of a step that was run again after an interruption the later summary counts.

    Raises:
        DataError: If `params.yaml` or the training's event files are missing or can't be read.
    """
    folder = Path(folder)
    path = folder / "params.yaml"
    try:
        params = yaml.safe_load(path.read_text("utf-8"))
        params["trainer"]["optimizer_config"]["optimizer"]["type"]
        subfolder = params["trainer"].get("validation_summary_subdir", "validation")
    except OSError as error:
        raise DataError(f"{path}: can't be read: {error.strerror}") from error
    except (ValueError, yaml.YAMLError, KeyError, TypeError) as error:
        raise DataError(f"{path}: not an experiment's parameters: {error}") from error
    train = read_scalars(folder / "train")
    if not train:
        raise DataError(f"{folder / 'train'}: holds no summaries of training")
    return Run(name or folder.name, params, train, read_scalars(folder / subfolder))


def read_scalars(folder):
    """The scalars in a folder's event files: dict from name to dict from step to value."""
    import tensorflow as tf
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    if not any(folder.glob("*tfevents*")):
        return {}
    events = EventAccumulator(str(folder), size_guidance={"tensors": 0})
    events.Reload()
    scalars = {}
    for tag in events.Tags()["tensors"]:
        if events.SummaryMetadata(tag).plugin_data.plugin_name == "scalars":
            found = sorted(events.Tensors(tag), key=lambda event: event.wall_time)
            values = {event.step: float(tf.make_ndarray(event.tensor_proto)) for event in found}
            scalars[tag] = dict(sorted(values.items()))
    return scalars


def table(runs):
    """The runs as a Markdown table, with the columns that one of them has a value for.

    Example:
        >>> print(table([read_run("runs/adamw"), read_run("runs/acclip")]))
        | run    | optimizer | learning rate | steps | validation loss | steps/s |
        ...
    """
    columns = [heading for heading, (tag, *_) in METRICS.items() if any(map(_has(tag), runs))]
    rows = [("run", "optimizer", "learning rate", "steps", *columns, "steps/s")]
    for run in runs:
        planned = run.trainer["train_steps"]
        steps = f"{run.steps:,}" + (f" of {planned:,}" if run.steps < planned else "")
        rate = "" if math.isnan(run.learning_rate) else f"{run.learning_rate:.3g}"
        cells = (_last(run, *METRICS[heading]) for heading in columns)
        rows.append((run.name, run.optimizer, rate, steps, *cells, f"{run.steps_per_second:.3g}"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rows.insert(1, tuple("-" * width for width in widths))
    return "\n".join(f"| {' | '.join(map(str.ljust, row, widths))} |" for row in rows)


def _has(tag):
    return lambda run: bool(run.validation.get(tag))


def _last(run, tag, factor, digits):
    """The last value of a validation's summary, for the table."""
    values = list(run.validation.get(tag, {}).values())
    return f"{factor * values[-1]:.{digits}f}" if values else ""


def curves(runs):
    """The picture: training loss and what the validations measured first, over the steps.

    Args:
        runs: A list of `Run`s.

    Returns:
        A Matplotlib figure; its lines differ by dash and marker as well as by colour.
    """
    from matplotlib.figure import Figure

    heading = next((h for h, (tag, *_) in METRICS.items() if any(map(_has(tag), runs))), None)
    with plots.style():
        figure = Figure(figsize=(10, 4.2), layout="constrained")
        left, right = figure.subplots(1, 2)
        for run, marker in zip(runs, itertools.cycle(_MARKERS), strict=False):
            loss = run.train.get("training_loss", {})
            line = {"marker": marker, "markersize": 4.5, "label": run.name}
            left.plot(loss.keys(), loss.values(), markevery=0.1, **line)
            if heading:
                tag, factor, _ = METRICS[heading]
                found = run.validation.get(tag, {})
                right.plot(found.keys(), [factor * value for value in found.values()], **line)
        left.set(title="Training", xlabel="step", ylabel="training loss")
        right.set(title="Validation", xlabel="step", ylabel=heading or "no validation")
        for axes in (left, right) if heading else (left,):
            axes.legend()
    return figure


def names(folders):
    """What to call the runs: the directories' names, or their paths where names are alike."""
    last = [Path(folder).resolve().name for folder in folders]
    return last if len(set(last)) == len(last) else [str(folder) for folder in folders]


def compare(folders, output):
    """Reads the runs and writes `comparison.md` and `comparison.png`.

    Args:
        folders: Model directories.
        output: Folder to write to; made where it is missing.

    Returns:
        The table.

    Raises:
        DataError: If a directory is no run's, or the output can't be written.
    """
    runs = [read_run(*pair) for pair in zip(folders, names(folders), strict=True)]
    found = table(runs)
    shards.write_file(Path(output) / "comparison.md", found + "\n")
    picture = Path(output) / "comparison.png"
    with shards.writing(picture):
        plots.save(curves(runs), picture)
    return found


def main(arguments=None):
    """Reads the command line and compares. Returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m keras_acclip.garden.compare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="MODEL_DIR")
    parser.add_argument("--output", type=Path, default=Path("."), help="default: this folder")
    options = parser.parse_args(arguments)
    try:
        print(compare(options.runs, options.output))
    except DataError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"\nWritten under {options.output}: comparison.md, comparison.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
