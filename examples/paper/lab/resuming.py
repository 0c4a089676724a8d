"""Work that is kept as it is done, so that a script that was stopped goes on where it was."""

import json
import math
from importlib.metadata import version
from pathlib import Path

from keras_acclip._utils.files import write_atomically


class Work:
    """What a script has done under its output folder.

    A piece of work has a name, and a row (JSON, mostly a dict) for each of its steps that is done.
    Where a step needs the state that the one before left, such as a model's weights, the state is
    kept with the rows. It is written under its row's number before the row is: whenever the process
    dies, rows and state agree.

    In the folder are `settings.json`; for each piece of work `runs/NAME/rows.json` and, until it is
    finished, the state; and `results.json` at the end.

    Args:
        output: The folder; made where it is missing.
        settings: What decides the result: dict of JSON values.
        state: Name of a state's file, with `{}` for the number of rows.

    Raises:
        ValueError: If the folder holds work of other settings.

    Example:

    >>> work = Work("out/rates", {"seeds": 200})
    >>> slopes = [work.part(f"alpha-{alpha}", fit_slope, alpha) for alpha in (1.2, 1.6, 2.0)]
    >>> while len(work.rows("training")) < 3:
    ...     if work.rows("training"):
    ...         model.load_weights(work.state("training"))
    ...     work.add("training", train_an_epoch(model), model.save_weights)
    >>> work.finish("training")
    >>> work.write_results({"slopes": slopes}, distributions=("numpy", "tensorflow"))
    """

    def __init__(self, output, settings, state="state-{}.weights.h5"):
        self.output, self.settings, self._state = Path(output), settings, state
        path = self.output / "settings.json"
        if path.exists():
            kept = json.loads(path.read_text())
            different = [name for name in settings if kept.get(name) != settings[name]]
            if different:
                changes = "; ".join(f"{n}: {kept.get(n)} → {settings[n]}" for n in different)
                raise ValueError(f"{output} holds runs with other settings ({changes})")
        write_json(path, settings)

    def folder(self, name):
        """The folder of a piece of work, for what it keeps beside its rows; it may not exist."""
        return self.output / "runs" / name

    def rows(self, name):
        """The rows that are there, as a list."""
        path = self._rows_path(name)
        return json.loads(path.read_text()) if path.exists() else []

    def state(self, name):
        """The file of the state after the last row."""
        return self._state_path(name, len(self.rows(name)))

    def add(self, name, row, save=None):
        """Adds a row; `save(path)` writes the state after it, where there is one."""
        rows = [*self.rows(name), row]
        self.folder(name).mkdir(parents=True, exist_ok=True)
        if save:
            save(self._state_path(name, len(rows)))
        write_json(self._rows_path(name), rows)
        self._state_path(name, len(rows) - 1).unlink(missing_ok=True)

    def finish(self, name):
        """Removes the state of a piece of work that is done. Returns its rows."""
        for path in self.folder(name).glob(self._state.format("*")):
            path.unlink()
        return self.rows(name)

    def part(self, name, compute, *args, **kwargs):
        """Work of a single row: what `compute(*args, **kwargs)` returns, as JSON holds it."""
        if not self.rows(name):
            self.add(name, compute(*args, **kwargs))
        (row,) = self.rows(name)
        return row

    def write_results(self, results, distributions):
        """Writes `results.json`: settings, versions and results.

        Args:
            results: dict of JSON values; NaN and infinity become null.
            distributions: Names of the distributions whose versions bear on the results.
        """
        versions = {name: version(name) for name in distributions}
        results = {"settings": self.settings, "versions": versions} | results
        write_json(self.output / "results.json", plain(results))

    def _rows_path(self, name):
        return self.folder(name) / "rows.json"

    def _state_path(self, name, number):
        return self.folder(name) / self._state.format(number)


def write_json(path, value):
    """Writes JSON so that `path` never holds half of it."""
    write_atomically(Path(path), json.dumps(value, indent=1).encode())


def plain(value):
    """`value` as strict JSON holds it: numbers that are not finite become `None`."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
