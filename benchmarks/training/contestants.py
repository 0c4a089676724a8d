"""Who takes part: how each optimizer is made, and the grid that its settings are tuned on.

A variant of ACClip takes part as soon as `CONTESTANTS` has an entry for it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

RATES = (1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2)
LOW_RATES = (2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3)  # Every coordinate of Lion moves.
HIGH_RATES = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
BETA_1 = (0.7, 0.8, 0.9, 0.95)
BETA_2 = (0.9, 0.95, 0.99, 0.999)
WARMUP = (0.02, 0.05, 0.1, 0.2, 0.4)
DECAY = (0.0, 1e-3, 1e-2, 1e-1)
# Parts of the names of what BERT leaves out of the weight decay: biases and normalizations.
WITHOUT_DECAY = ("bias", "gamma", "beta")
# Where a grid is extended: times these beyond its first and last value.
EXTENDED_BY = 2.0


@dataclasses.dataclass(frozen=True)
class Contestant:
    """One optimizer.

    Attributes:
        make: A function of a schedule of the rate and the hyperparameters without `rate` and
            `warmup`, to a Keras optimizer.
        grid: Dict from a hyperparameter to its values, ascending; `rate` and `warmup` among them.
        default: The first trial, one value of each of the grid's.
        core: Whether it runs on every workload.
        decays: Whether its rate falls linearly to 0 after the warm-up; else it is held.
        traced: Whether trials can share a compiled step; not where the optimizer branches on what
            it was given.
        decays_by_itself: Whether its weight decay is another than x ← x − lr·wd·x before the step.
    """

    make: Callable[..., Any]
    grid: Mapping[str, tuple[float, ...]]
    default: Mapping[str, float]
    core: bool = False
    decays: bool = True
    traced: bool = True
    decays_by_itself: bool = False


def without_decay_of_biases(optimizer):
    """The optimizer, which leaves biases and normalizations out of its weight decay, as BERT does.

    Args:
        optimizer: A Keras optimizer.
    """
    optimizer.exclude_from_weight_decay(var_names=list(WITHOUT_DECAY))
    return optimizer


def _acclip(schedule, **settings):
    import keras_acclip

    return without_decay_of_biases(keras_acclip.ACClip(schedule, jit_compile=False, **settings))


def _variant(switches, schedule, **settings):
    from training.acclip_variants import ACClipVariant

    return without_decay_of_biases(ACClipVariant(schedule, **switches, **settings))


def _keras(name, schedule, **settings):
    import keras

    return without_decay_of_biases(getattr(keras.optimizers, name)(schedule, **settings))


def _muon(schedule, beta_1, beta_2, weight_decay):
    import keras

    # Matrices by Muon, of which Keras means arrays of two axes; the rest by AdamW.
    return without_decay_of_biases(
        keras.optimizers.Muon(
            schedule,
            momentum=beta_1,
            adam_beta_1=beta_1,
            adam_beta_2=beta_2,
            weight_decay=weight_decay,
            adam_weight_decay=weight_decay,
        )
    )


def _stable_adamw(schedule, **settings):
    from training.stable_adamw import StableAdamW

    return without_decay_of_biases(StableAdamW(schedule, **settings))


def _schedule_free(schedule, weight_decay, **settings):
    from training.schedule_free import ScheduleFreeAdamW

    return ScheduleFreeAdamW(schedule, decay=weight_decay, **settings)


def _clipped(of, schedule, beta_1, threshold, weight_decay):
    import keras_acclip

    made = getattr(keras_acclip, of)(
        schedule,
        threshold=threshold,
        momentum=beta_1,
        weight_decay=weight_decay,
        jit_compile=False,
    )
    return without_decay_of_biases(made)


def _clip_adamw(threshold_of, schedule, threshold, **settings):
    import keras_acclip

    return keras_acclip.Clip(
        _keras("AdamW", schedule, **settings), threshold_of(threshold), jit_compile=False
    )


def _fixed(value):
    return value


def _moment(value):
    from keras_acclip import thresholds

    return thresholds.MovingMoment(multiple=value)


def _quantile(value):
    from keras_acclip import thresholds

    return thresholds.MovingQuantile(q=value)


def _z_score(value):
    from keras_acclip import thresholds

    return thresholds.ZScore(z=value)


def _bound(function, first):
    """A maker whose first argument is given; it can be sent to another process by its name."""

    def make(schedule, **settings):
        return function(first, schedule, **settings)

    return make


def _adam_like(
    make, core=False, rates=RATES, decays=True, traced=True, decays_by_itself=False, **further
):
    """A contestant with a rate, two decays of moments, a warm-up and a weight decay.

    Args:
        make: As `Contestant` has it.
        core: The same.
        rates: The grid of its rates; the default is the one in the middle.
        decays: As `Contestant` has it.
        traced: The same.
        decays_by_itself: The same.
        **further: More of the grid: values and default. `None` takes a name out.
    """
    grid = {
        "rate": (rates, rates[len(rates) // 2 - 1]),
        "beta_1": (BETA_1, 0.9),
        "beta_2": (BETA_2, 0.99),
        "warmup": (WARMUP, 0.1),
        "weight_decay": (DECAY, 1e-2),
    } | further
    grid = {name: both for name, both in grid.items() if both}
    return Contestant(
        make=make,
        grid={name: values for name, (values, _) in grid.items()},
        default={name: default for name, (_, default) in grid.items()},
        core=core,
        decays=decays,
        traced=traced,
        decays_by_itself=decays_by_itself,
    )


# Whoever divides by a root of a moment has its ε tuned: a lead must not be ε's.
EPSILON = ((1e-8, 1e-7, 1e-6, 1e-5), 1e-7)

CONTESTANTS = {
    "adamw": _adam_like(_bound(_keras, "AdamW"), core=True, epsilon=EPSILON),
    "acclip": _adam_like(
        _acclip, core=True, epsilon=((1e-7, 1e-6, 1e-5, 1e-4), 1e-5), weight_decay=(DECAY, 0.0)
    ),
    "adam": _adam_like(
        _bound(_keras, "Adam"),
        core=True,
        weight_decay=None,
        epsilon=EPSILON,
    ),
    "lion": _adam_like(_bound(_keras, "Lion"), core=True, rates=LOW_RATES),
    "muon": _adam_like(_muon, core=True),
    "clip_adamw_moment": _adam_like(
        _bound(_clip_adamw, _moment),
        core=True,
        epsilon=EPSILON,
        threshold=((1.0, 1.5, 2.0, 3.0), 2.0),
    ),
    "clip_adamw_quantile": _adam_like(
        _bound(_clip_adamw, _quantile),
        epsilon=EPSILON,
        threshold=((0.1, 0.25, 0.5, 0.75, 0.9), 0.9),
    ),
    "clip_adamw_z_score": _adam_like(
        _bound(_clip_adamw, _z_score),
        epsilon=EPSILON,
        threshold=((0.0625, 0.5, 1.0, 2.5, 4.0), 2.5),
    ),
    "clip_adamw_fixed": _adam_like(
        _bound(_clip_adamw, _fixed), epsilon=EPSILON, threshold=((0.1, 0.25, 0.5, 1.0, 2.0), 1.0)
    ),
    "nadam": _adam_like(_bound(_keras, "Nadam"), epsilon=EPSILON, weight_decay=(DECAY, 0.0)),
    "stable_adamw": _adam_like(_stable_adamw, epsilon=EPSILON),
    "schedule_free_adamw": _adam_like(
        _schedule_free, decays=False, decays_by_itself=True, epsilon=EPSILON
    ),
    "adafactor": _adam_like(
        _bound(_keras, "Adafactor"),
        rates=HIGH_RATES,
        beta_1=None,
        beta_2=None,
        beta_2_decay=((-1.0, -0.8, -0.6, -0.4), -0.8),
        clip_threshold=((0.25, 0.5, 1.0, 2.0), 1.0),
    ),
    "sgd": _adam_like(
        lambda schedule, beta_1, **settings: _keras("SGD", schedule, momentum=beta_1, **settings),
        traced=False,
        rates=HIGH_RATES,
        beta_2=None,
        weight_decay=((0.0, 1e-5, 1e-4, 1e-3), 0.0),
    ),
    "gclip": _adam_like(
        _bound(_clipped, "GClip"),
        traced=False,
        rates=HIGH_RATES,
        beta_2=None,
        weight_decay=((0.0, 1e-5, 1e-4, 1e-3), 0.0),
        threshold=((0.05, 0.1, 0.2, 0.5, 1.0), 0.2),
    ),
    "cclip": _adam_like(
        _bound(_clipped, "CClip"),
        traced=False,
        rates=HIGH_RATES,
        beta_2=None,
        weight_decay=((0.0, 1e-5, 1e-4, 1e-3), 0.0),
        threshold=((1e-4, 3e-4, 1e-3, 3e-3, 1e-2), 1e-3),
    ),
}


def _candidate(further=None, **switches):
    """A candidate for a better ACClip, tuned as ACClip is.

    Args:
        further: More of the grid: values and default.
        **switches: Of `ACClipVariant`.
    """
    same = {"epsilon": ((1e-7, 1e-6, 1e-5, 1e-4), 1e-5), "weight_decay": (DECAY, 0.0)}
    return _adam_like(_bound(_variant, switches), **(same | (further or {})))


RELATIVE = {"epsilon": ((1e-3, 1e-2, 0.1, 1.0), 0.1)}
CANDIDATES = {
    "acclip_nesterov": _candidate(nesterov=True),
    "acclip_cautious": _candidate(cautious=True),
    "acclip_smooth": _candidate(smooth=True),
    "acclip_corrected": _candidate(corrected=True),
    "acclip_relative": _candidate(RELATIVE, relative_epsilon=True),
    "acclip_gradient": _candidate({"gradient_multiple": ((1.0, 3.0, 10.0, 30.0), 3.0)}),
    "acclip_multiple": _candidate({"multiple": ((0.25, 0.5, 2.0, 4.0), 2.0)}),
    "acclip_nesterov_relative": _candidate(RELATIVE, nesterov=True, relative_epsilon=True),
    "acclip_nesterov_cautious": _candidate(nesterov=True, cautious=True),
    "acclip_nesterov_smooth": _candidate(nesterov=True, smooth=True),
}
CONTESTANTS |= CANDIDATES

# What a user gets who sets the rate alone: Keras's values, and this package's.
OWN_DEFAULTS = {
    "adamw": {"beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-7, "weight_decay": 0.004},
    "acclip": {"beta_1": 0.9, "beta_2": 0.99, "epsilon": 1e-5, "weight_decay": 0.0},
}
USUAL = {"rate": 1e-3, "warmup": 0.1}
# What ACClip's defaults may become: whose step it is, and what differs from its defaults of today.
NEW_DEFAULTS = {
    "β1 0.8": ("acclip", {"beta_1": 0.8}),
    "β1 0.8, β2 0.95": ("acclip", {"beta_1": 0.8, "beta_2": 0.95}),
    "β1 0.7, β2 0.95": ("acclip", {"beta_1": 0.7, "beta_2": 0.95}),
    "look-ahead, β1 0.8, β2 0.95": ("acclip_nesterov", {"beta_1": 0.8, "beta_2": 0.95}),
}
# On their tuning seeds the best of these is chosen; fresh seeds of all workloads compare it.
CHOOSE_DEFAULTS = ("mlm-16", "mlm-128")

# Where a grid can't be extended, as its values would mean nothing beyond.
LIMITS = {
    "beta_1": (0.0, 0.999),
    "beta_2": (0.0, 0.9999),
    "warmup": (0.0, 0.9),
    "weight_decay": (0.0, 10.0),
    "beta_2_decay": (-2.0, -0.01),
}


def beyond(name: str, values: tuple[float, ...], contestant: str, low: bool) -> float | None:
    """The next value beyond a grid's end, or `None` where the grid has its natural end.

    Args:
        name: The hyperparameter.
        values: Its grid so far, ascending.
        contestant: Whose it is.
        low: Whether to go below the first; else above the last.
    """
    end = values[0] if low else values[-1]
    if name in ("beta_1", "beta_2") or (name == "threshold" and contestant.endswith("quantile")):
        # 1 − β counts: its half above, its double below.
        value = 1 - (1 - end) * (2.0 if low else 0.5)
        low_limit, high_limit = LIMITS.get(name, (0.0, 0.999))
    else:
        low_limit, high_limit = LIMITS.get(name, (0.0, float("inf")))
        # Of a negative one, twice as much lies below.
        value = end / EXTENDED_BY if low is (end > 0) else end * EXTENDED_BY
    value = float(f"{value:.6g}")
    if value == end or (low and value < low_limit) or (not low and value > high_limit):
        return None
    return value
