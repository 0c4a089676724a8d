"""The ways to train that are compared, each different from ACClip in one part."""

from collections.abc import Callable
from dataclasses import dataclass

import keras_acclip


@dataclass(frozen=True)
class Variant:
    """One way to train.

    Attributes:
        make: Function without arguments that makes the optimizer; Keras loads when it is called.
        rate: The middle of the rates to try, for the small scale.
        batch: Its batch size, in units of `--batch-size`.
    """

    make: Callable
    rate: float
    batch: float = 1


def acclip(**changes):
    """A maker of ACClip with its defaults but for the changes."""
    return lambda: keras_acclip.ACClip(**changes)


def adam():
    """Makes Keras's Adam."""
    import keras

    return keras.optimizers.Adam()


def sgd():
    """Makes Keras's SGD with momentum."""
    import keras

    return keras.optimizers.SGD(momentum=0.9)


def global_moving():
    """Makes `GlobalMoving`."""
    from .global_moving import GlobalMoving

    return GlobalMoving(0.0)


VARIANTS = {
    "acclip": Variant(acclip(), 1.8e-3),
    "coordinate-fixed": Variant(lambda: keras_acclip.CClip(threshold=1e-3, momentum=0.9), 1.0),
    "global-fixed": Variant(lambda: keras_acclip.GClip(threshold=0.5, momentum=0.9), 0.4),
    "global-moving": Variant(global_moving, 1.0),
    "alpha-1.25": Variant(acclip(alpha=1.25), 1.8e-3),
    "alpha-1.5": Variant(acclip(alpha=1.5), 5e-3),
    "alpha-2": Variant(acclip(alpha=2.0), 2.5e-3),
    "beta2-0.9": Variant(acclip(beta_2=0.9), 2.5e-3),
    "beta2-0.999": Variant(acclip(beta_2=0.999), 2e-3),
    "epsilon-1e-8": Variant(acclip(epsilon=1e-8), 1.5e-3),
    "epsilon-1e-3": Variant(acclip(epsilon=1e-3), 1e-2),
    "step-rms": Variant(acclip(step_size="rms"), 4e-3),
    "step-constant": Variant(acclip(step_size="constant"), 2.0),
    "acclip-small-batch": Variant(acclip(), 1.8e-3, 1 / 4),
    "adam-small-batch": Variant(adam, 8e-3, 1 / 4),
    "acclip-large-batch": Variant(acclip(), 2.5e-3, 4),
    "adam-large-batch": Variant(adam, 8e-3, 4),
    "adam": Variant(adam, 4e-3),
    "sgd": Variant(sgd, 0.2),
}
# Heading: which variants differ in that part, each beside what it is compared with.
PARTS = {
    "Clip and threshold; ACClip: coordinate, moving": [
        ("coordinate-fixed", "acclip"),
        ("global-moving", "acclip"),
        ("global-fixed", "acclip"),
    ],
    "α; ACClip: 1": [("alpha-1.25", "acclip"), ("alpha-1.5", "acclip"), ("alpha-2", "acclip")],
    "β₂; ACClip: 0.99": [("beta2-0.9", "acclip"), ("beta2-0.999", "acclip")],
    "ε; ACClip: 1e-5": [("epsilon-1e-8", "acclip"), ("epsilon-1e-3", "acclip")],
    "step_size; ACClip: moment": [("step-rms", "acclip"), ("step-constant", "acclip")],
    "Batch size, a quarter, 1 and 4 times: ACClip less Adam": [
        ("acclip-small-batch", "adam-small-batch"),
        ("acclip", "adam"),
        ("acclip-large-batch", "adam-large-batch"),
    ],
    "Other methods": [("adam", "acclip"), ("sgd", "acclip")],
}
