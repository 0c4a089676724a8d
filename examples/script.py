"""What the scripts share: scales on the command line, and results that outlive an interruption."""

import argparse
import json
import math
from importlib.metadata import version
from pathlib import Path

import comparison

from keras_acclip.text import corpus
from keras_acclip._utils.files import write_atomically


def parser(doc, scales, output):
    """A command line with `--scale`, an option for each number of a scale, `--output`, `--cache`.

    Args:
        doc: The script's docstring.
        scales: dict from a scale's name to a dict from a setting's name to its number, an int or a
            float; the same settings in each. A float that is 0 in one of them may be set to 0.
        output: The default output folder.

    Returns:
        An `argparse.ArgumentParser`, for `parse`.
    """
    made = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = made.add_argument
    add("--scale", choices=scales, default="small", help="defaults for the numbers below")
    for name, default in scales["small"].items():
        defaults = ", ".join(f"{scale} {values[name]}" for scale, values in scales.items())
        with_zero = any(values[name] == 0 for values in scales.values())
        number = number_from_zero if with_zero else positive_number
        kind = number if isinstance(default, float) else positive
        add(f"--{name.replace('_', '-')}", type=kind, help=f"default: {defaults}")
    add("--output", type=Path, default=Path(output), help="default: %(default)s")
    add("--cache", type=Path, default=corpus.default_cache_dir(), help="default: %(default)s")
    return made


def parse(parser, scales, arguments=None):
    """The command line's options; numbers that are not given are the scale's."""
    options = parser.parse_args(arguments)
    for name, value in scales[options.scale].items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    return options


def positive(text):
    """The whole number above 0 that an option's text is."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def positive_number(text):
    """The finite number above 0 that an option's text is."""
    number = _number(text)
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return number


def number_from_zero(text):
    """The finite number, 0 or above, that an option's text is."""
    number = _number(text)
    if not 0 <= number < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 on")
    return number


def _number(text):
    try:
        return float(text)
    except ValueError:
        return math.nan


def names(allowed):
    """The type of an option that lists some of the `allowed` names, parted by commas."""

    def parse(text):
        found = text.split(",")
        unknown = [name for name in found if name not in allowed]
        if unknown:
            raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(allowed)}")
        return list(dict.fromkeys(found))

    return parse


def rates(allowed):
    """The type of an option that gives rates to some of the `allowed` names, as NAME=RATE,…."""

    def parse(text):
        pairs = [pair.partition("=") for pair in text.split(",")]
        try:
            found = {name: float(rate) for name, _, rate in pairs}
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r}: want NAME=RATE,…") from None
        names(allowed)(",".join(found))
        if not all(0 < rate < float("inf") for rate in found.values()):
            raise argparse.ArgumentTypeError(f"{text!r}: a rate must be above 0")
        return found

    return parse


def claim_output(output, settings):
    """Notes the settings in a new `output`; raises `ValueError` if it holds runs of other ones."""
    path = output / "settings.json"
    if path.exists():
        kept = json.loads(path.read_text())
        different = [name for name in settings if kept.get(name) != settings[name]]
        if different:
            changes = "; ".join(f"{n}: {kept.get(n)} → {settings[n]}" for n in different)
            raise ValueError(f"{output} holds runs with other settings ({changes})")
    output.mkdir(parents=True, exist_ok=True)
    write_json(path, settings)


class Parts:
    """The parts of a script's result, each on the disk as soon as it is known.

    Started again with the same output folder, a script takes the parts that are there from it and
    goes on with the first that is missing.

    Args:
        output: Folder; a part is the file `parts/NAME.json` in it.
        settings: What decides the result: dict of JSON values.

    Raises:
        ValueError: If the folder holds parts of other settings.

    Example:

    >>> parts = Parts(Path("out/rates"), {"seeds": 200})
    >>> slopes = [parts(f"alpha-{alpha}", fit_slope, alpha) for alpha in (1.2, 1.6, 2.0)]
    >>> parts.finish({"slopes": slopes}, distributions=("numpy", "tensorflow"))
    """

    def __init__(self, output, settings):
        self.output, self.settings = Path(output), settings
        claim_output(self.output, settings)

    def __call__(self, name, compute, *args, **kwargs):
        """The part `name`: what `compute(*args, **kwargs)` returns, as JSON holds it."""
        path = self.output / "parts" / f"{name}.json"
        if not path.exists():
            write_json(path, compute(*args, **kwargs))
        return json.loads(path.read_text())

    def finish(self, results, distributions):
        """Writes `results.json`: settings, versions and results; NaN and infinity become null.

        Args:
            results: dict of JSON values.
            distributions: Names of the distributions whose versions bear on the results.
        """
        versions = {name: version(name) for name in distributions}
        results = {"settings": self.settings, "versions": versions} | results
        write_json(self.output / "results.json", comparison.plain(results))


def write_json(path, value):
    """Writes JSON so that `path` never holds half of it."""
    write_atomically(Path(path), json.dumps(value, indent=1).encode())
