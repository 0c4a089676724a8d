"""The ways to train that are compared, each different from ACClip in one part."""

from collections.abc import Callable
from dataclasses import dataclass

import keras_acclip

from ..plans import STUDY, Spec


@dataclass(frozen=True)
class Variant:
    """One way to train.

    Attributes:
        make: Function from a spec to the optimizer of its betas; Keras loads when it is called.
        rate: The middle of the rates to try, for the small scale.
        study_rate: The same for the size of a study.
        batch: Its batch size, in units of `--batch-size`.
        base: The variant whose betas it takes, where it is given none of its own.
        has_beta_2: Whether it has a β₂ that is not the part it differs in.
    """

    make: Callable
    rate: float
    study_rate: float
    batch: float = 1
    base: str = "acclip"
    has_beta_2: bool = True


def acclip(**changes):
    """A maker of ACClip with its defaults but for the changes and the spec's betas."""
    return lambda spec: keras_acclip.ACClip(**changes | spec.betas)


def cclip(spec):
    """Makes CClip, whose momentum is β₁."""
    return keras_acclip.CClip(threshold=1e-3, momentum=spec.momentum())


def gclip(spec):
    """Makes GClip, whose momentum is β₁."""
    return keras_acclip.GClip(threshold=0.5, momentum=spec.momentum())


def adam(spec):
    """Makes Keras's Adam."""
    import keras

    return keras.optimizers.Adam(**spec.betas)


def sgd(spec):
    """Makes Keras's SGD with momentum."""
    import keras

    return keras.optimizers.SGD(momentum=spec.momentum())


def global_moving(spec):
    """Makes `GlobalMoving`."""
    from .global_moving import GlobalMoving

    return GlobalMoving(0.0, **spec.betas)


# A study's rates of ACClip, Adam and SGD are the best of its `--tune`, those of the global clips of
# five twice apart; that of ε 1e-3 is as far above ACClip's as in small, and that of the fixed
# threshold for coordinates three times small's: momentum 0.7 adds up a third of what 0.9 does.
VARIANTS = {
    "acclip": Variant(acclip(), 1.8e-3, 1.6e-2),
    "coordinate-fixed": Variant(cclip, 1.0, 3.0, has_beta_2=False),
    "global-fixed": Variant(gclip, 0.4, 2.4, has_beta_2=False),
    "global-moving": Variant(global_moving, 1.0, 2.0),
    "alpha-1.25": Variant(acclip(alpha=1.25), 1.8e-3, 1.6e-2),
    "alpha-1.5": Variant(acclip(alpha=1.5), 5e-3, 1.6e-2),
    "alpha-2": Variant(acclip(alpha=2.0), 2.5e-3, 1.6e-2),
    "beta2-0.9": Variant(acclip(beta_2=0.9), 2.5e-3, 1.6e-2, has_beta_2=False),
    "beta2-0.999": Variant(acclip(beta_2=0.999), 2e-3, 1.6e-2, has_beta_2=False),
    "epsilon-1e-8": Variant(acclip(epsilon=1e-8), 1.5e-3, 1.6e-2),
    "epsilon-1e-3": Variant(acclip(epsilon=1e-3), 1e-2, 9e-2),
    "step-rms": Variant(acclip(step_size="rms"), 4e-3, 3.2e-2),
    "step-constant": Variant(acclip(step_size="constant"), 2.0, 2.0),
    "acclip-small-batch": Variant(acclip(), 1.8e-3, 1.6e-2, 1 / 4),
    "adam-small-batch": Variant(adam, 8e-3, 3.2e-2, 1 / 4, "adam"),
    "acclip-large-batch": Variant(acclip(), 2.5e-3, 1.6e-2, 4),
    "adam-large-batch": Variant(adam, 8e-3, 3.2e-2, 4, "adam"),
    "adam": Variant(adam, 4e-3, 3.2e-2, base="adam"),
    "sgd": Variant(sgd, 0.2, 0.63, base="sgd", has_beta_2=False),
}
WITHOUT_BETA_2 = [name for name, variant in VARIANTS.items() if not variant.has_beta_2]
STUDY_BETAS = {"acclip": (0.7, 0.95), "adam": (0.7, 0.95), "sgd": (0.9, None)}  # By `base`.
# Heading: which variants differ in that part, each beside what it is compared with.
PARTS = {
    "Clip and threshold; ACClip: coordinate, moving": [
        ("coordinate-fixed", "acclip"),
        ("global-moving", "acclip"),
        ("global-fixed", "acclip"),
    ],
    "α; ACClip: 1": [("alpha-1.25", "acclip"), ("alpha-1.5", "acclip"), ("alpha-2", "acclip")],
    "β₂; ACClip: {beta_2:g}": [("beta2-0.9", "acclip"), ("beta2-0.999", "acclip")],
    "ε; ACClip: 1e-5": [("epsilon-1e-8", "acclip"), ("epsilon-1e-3", "acclip")],
    "step_size; ACClip: moment": [("step-rms", "acclip"), ("step-constant", "acclip")],
    "Batch size, a quarter, 1 and 4 times: ACClip less Adam": [
        ("acclip-small-batch", "adam-small-batch"),
        ("acclip", "adam"),
        ("acclip-large-batch", "adam-large-batch"),
    ],
    "Other methods": [("adam", "acclip"), ("sgd", "acclip")],
}


def start(name, seed, options):
    """The spec of a variant as the command line has it, or else its scale.

    Args:
        name: A name in `VARIANTS`.
        seed: The run's seed.
        options: The parsed command line, of which `scale`, `rates`, `beta_1` and `beta_2` count.
    """
    variant, study = VARIANTS[name], options.scale == STUDY
    rate = options.rates.get(name, variant.study_rate if study else variant.rate)
    defaults = STUDY_BETAS[variant.base] if study else (None, None)
    beta_1, beta_2 = (
        given.get(name, given.get(variant.base, default))
        for given, default in zip((options.beta_1, options.beta_2), defaults, strict=True)
    )
    return Spec(name, rate, seed, beta_1, beta_2 if variant.has_beta_2 else None)
