"""What an optimizer of either Keras makes of its arguments and its variables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from keras_acclip import rules
from keras_acclip._utils import arguments
from keras_acclip._utils.typing import Variable
from keras_acclip.optimizers import held, record
from keras_acclip.optimizers.step import Cell, Counters, Settings, Step
from keras_acclip.thresholds import Moving


def check_averaging(averaging: str | None, use_ema: bool, built: bool) -> None:
    """Checks the argument `averaging`.

    Args:
        averaging: Its new value.
        use_ema: Whether Keras keeps an average.
        built: Whether the slots have been made, of which each average is one.

    Raises:
        ValueError: If it is neither `None` nor `"linear"`, `use_ema` is set as well, or the slots
            have been made.
    """
    arguments.one_of("averaging", averaging, (None, "linear"))
    if built:
        raise ValueError(
            "Argument `averaging` can't be set after the first step, when the slots have been "
            f"made. Received: averaging={averaging!r}"
        )
    if averaging and use_ema:
        raise ValueError(
            "Arguments `averaging` and `use_ema` exclude each other: both decide what the "
            "weights become when training ends. "
            f"Received: averaging={averaging!r}, use_ema=True"
        )


def check_rule(method: str, rule: rules.Rule, slot_names: Sequence[str] | None) -> None:
    """Checks that a rule finds its slots.

    Args:
        method: The optimizer's class.
        rule: A new rule.
        slot_names: The slots that were made, or `None` before they are.

    Raises:
        ValueError: If it does not.
    """
    if slot_names is None or set(rule.slots) <= set(slot_names):
        return
    missing = sorted(set(rule.slots) - set(slot_names))
    raise ValueError(
        f"{method} keeps no {' and no '.join(missing)} of its variables, which {rule} needs. "
        "Set it before the first step."
    )


def settings(optimizer: Any, moving: Moving | None) -> Settings:
    """The settings of an optimizer's next step, with its threshold if it moves."""
    return Settings(
        optimizer.rule,
        optimizer.weight_decay or None,
        optimizer.averaging is not None,
        optimizer.projection_radius,
        optimizer.skip_nonfinite,
        moving,
        optimizer.record_every,
    )


def step(
    settings: Settings,
    indices: Sequence[int],
    *,
    variables: Sequence[Variable],
    slots: Sequence[dict[str, Variable]],
    averages: Sequence[Variable | None],
    places: Sequence[int],
    decays: Sequence[bool],
    counters: Counters,
    kept: record.Kept,
) -> Step:
    """What a step reads and assigns.

    Args:
        settings: What it does.
        indices: Which variables have a gradient.
        variables: All variables that the optimizer was built with.
        slots: Each one's slots, by name; none for a variable that its gradient overwrites.
        averages: Each one's linear average, or `None`.
        places: Which threshold each one has.
        decays: Whether weight decay applies to each.
        counters: The counters.
        kept: What is kept of the clipping.
    """
    cells = [
        Cell(variable, tuple(own[n] for n in settings.rule.slots if own), average, place, decay, i)
        for i, (variable, own, average, place, decay) in enumerate(
            zip(variables, slots, averages, places, decays, strict=True)
        )
    ]
    if not settings.skip_nonfinite:
        counters = counters._replace(skipped=None, last_skipped=None)
    return Step(
        settings,
        [cells[i] for i in indices],
        [cell for i, cell in enumerate(cells) if i not in indices and cell.average is not None],
        [variable for variable in variables if not is_overwritten(variable)],
        counters,
        kept,
    )


def is_overwritten(variable: Variable) -> bool:
    """Whether the variable's gradient is its next value, as with float8 scales."""
    return getattr(variable, "overwrite_with_gradient", False)


def places(moving: Moving | None, rule: rules.Rule, threshold: Any, paths: Sequence[str]) -> list:
    """Which threshold each variable has: of one that moves with each, its row."""
    if moving is not None and not rule.clips_jointly:
        return list(range(len(paths)))
    return held.places(threshold, paths)


def norms(rule: rules.Rule, variables: Sequence[Variable]) -> int:
    """How many norms a moving threshold follows."""
    return 1 if rule.clips_jointly else len(variables)
