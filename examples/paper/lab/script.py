"""Command lines with scales: sets of defaults for a script's numbers."""

import argparse
import math
import sys
from pathlib import Path

from keras_acclip._utils.commands import Parser, positive, to_path
from keras_acclip.text.corpus import default_cache_dir


def parser(doc, scales, output):
    """A command line with `--scale`, an option for each number of a scale, `--output`, `--cache`.

    Args:
        doc: The script's docstring.
        scales: dict from a scale's name to a dict from a setting's name to its number, an int or a
            float; the same settings in each. A float that is 0 in one of them may be set to 0.
        output: The default output folder.

    Returns:
        An `argparse.ArgumentParser` whose errors are one line, for `parse`.
    """
    made = Parser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = made.add_argument
    add("--scale", choices=scales, default="small", help="defaults for the numbers below")
    for name, default in scales["small"].items():
        defaults = ", ".join(f"{scale} {values[name]}" for scale, values in scales.items())
        with_zero = any(values[name] == 0 for values in scales.values())
        number = number_from_zero if with_zero else positive_number
        kind = number if isinstance(default, float) else positive
        add(f"--{name.replace('_', '-')}", type=kind, help=f"default: {defaults}")
    add("--output", type=to_path, default=Path(output), help="default: %(default)s")
    add("--cache", type=to_path, default=default_cache_dir(), help="default: %(default)s")
    return made


def parse(parser, scales, arguments=None):
    """The command line's options; numbers that are not given are the scale's."""
    options = parser.parse_args(arguments)
    for name, value in scales[options.scale].items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    return options


def settings_of(options, scales, without=()):
    """The numbers that decide a script's result: dict of JSON values.

    Args:
        options: What `parse` returned.
        scales: As `parser` takes them.
        without: Names of numbers that only say how many results there are to be.
    """
    return {name: getattr(options, name) for name in scales["small"] if name not in without}


def failed(error, status=2):
    """Says on stderr what is wrong, in one line. Returns the exit status."""
    print(f"error: {error}", file=sys.stderr)
    return status


def stopped(output):
    """Says that the script was stopped and goes on. Returns the exit status."""
    print(f"\nStopped. The same command goes on from here ({output}).")
    return 130


# --- Types of options ------------------------------------------------------------------------


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
        found = _named_numbers(text, allowed, "RATE")
        if not all(0 < rate < math.inf for rate in found.values()):
            raise argparse.ArgumentTypeError(f"{text!r}: a rate must be above 0")
        return found

    return parse


def betas(allowed, without=()):
    """The type of an option that gives a beta to some of the `allowed` names, as NAME=BETA,….

    Args:
        allowed: The names.
        without: Those of them that have no such beta.
    """

    def parse(text):
        found = _named_numbers(text, allowed, "BETA")
        for name in found:
            if name in without:
                raise argparse.ArgumentTypeError(f"{name} does not take it")
        if not all(0 <= beta < 1 for beta in found.values()):
            raise argparse.ArgumentTypeError(f"{text!r}: a beta must be from 0 to below 1")
        return found

    return parse


def _named_numbers(text, allowed, kind):
    pairs = [pair.partition("=") for pair in text.split(",")]
    try:
        found = {name: float(number) for name, _, number in pairs}
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: want NAME={kind},…") from None
    names(allowed)(",".join(found))
    return found
