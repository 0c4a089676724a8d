"""Configs of the paper's optimizers for the Model Garden, and the YAML files to layer.

Importing this module registers `acclip`, `gclip` and `cclip` with the Model Garden's optimizer
registry. The YAML files beside it hold what `--config_file` takes by its bare name: a model, a
task, an optimizer and a runtime, each setting its own part of an experiment. Where two files name
the same parameter, as a task and an optimizer do with the learning rate, the later one wins.
"""

import dataclasses
import pathlib
import re

from official.modeling.optimization import optimizer_factory
from official.modeling.optimization.configs import optimization_config, optimizer_config

from keras_acclip import tf_keras as optimizers

__all__ = [
    "ACClipConfig",
    "CClipConfig",
    "GClipConfig",
    "OptimizationConfig",
    "OptimizerConfig",
    "find",
    "shipped",
]

_FOLDER = pathlib.Path(__file__).parent / "yaml"


@dataclasses.dataclass
class _ClippedConfig(optimizer_config.BaseOptimizerConfig):
    """What the three optimizers share; see `keras_acclip.tf_keras`.

    Attributes:
        weight_decay_rate: Rate of decoupled weight decay. Defaults to 0.
        include_in_weight_decay: Regular expressions, searched for in variable names: these decay,
            whatever `exclude_from_weight_decay` says.
        exclude_from_weight_decay: Regular expressions, searched for in variable names: these do not
            decay. All others do.
        projection_radius: Radius of the ball that variables are projected onto, or none.
        skip_nonfinite: Whether a step whose gradient is not finite changes nothing.
        jit_compile: Whether all variables' updates run as one XLA computation.
    """

    weight_decay_rate: float = 0.0
    include_in_weight_decay: list[str] | None = None
    exclude_from_weight_decay: list[str] | None = None
    projection_radius: float | None = None
    skip_nonfinite: bool = False
    jit_compile: bool = True


@dataclasses.dataclass
class ACClipConfig(_ClippedConfig):
    """Config of `keras_acclip.tf_keras.ACClip`, with the paper's values for BERT as defaults.

    Attributes:
        name: Name of the optimizer.
        beta_1: Decay of the moment.
        beta_2: Decay of the threshold's power.
        epsilon: Added to denominators, in the gradient's units.
        alpha: Order, in [1, 2], of the moment that the threshold follows.
        step_size: `"moment"`, `"rms"` or `"constant"`.
    """

    name: str = "ACClip"
    beta_1: float = 0.9
    beta_2: float = 0.99
    epsilon: float = 1e-5
    alpha: float = 1.0
    step_size: str = "moment"


@dataclasses.dataclass
class _ThresholdConfig(_ClippedConfig):
    """What GClip and CClip share.

    Attributes:
        threshold: The clipping threshold.
        momentum: Momentum in [0, 1).
        nesterov: Whether the momentum looks ahead.
    """

    threshold: float = 1.0
    momentum: float = 0.0
    nesterov: bool = False


@dataclasses.dataclass
class GClipConfig(_ThresholdConfig):
    """Config of `keras_acclip.tf_keras.GClip`.

    Attributes:
        name: Name of the optimizer.
    """

    name: str = "GClip"


@dataclasses.dataclass
class CClipConfig(_ThresholdConfig):
    """Config of `keras_acclip.tf_keras.CClip`.

    Attributes:
        name: Name of the optimizer.
    """

    name: str = "CClip"


@dataclasses.dataclass
class OptimizerConfig(optimization_config.OptimizerConfig):
    """The Model Garden's choice of optimizers, and the paper's.

    Attributes:
        acclip: ACClip.
        gclip: GClip.
        cclip: CClip.
    """

    acclip: ACClipConfig = dataclasses.field(default_factory=ACClipConfig)
    gclip: GClipConfig = dataclasses.field(default_factory=GClipConfig)
    cclip: CClipConfig = dataclasses.field(default_factory=CClipConfig)


@dataclasses.dataclass
class OptimizationConfig(optimization_config.OptimizationConfig):
    """Optimizer, learning rate and warm-up; `optimizer.type` may be `acclip`, `gclip` or `cclip`.

    Attributes:
        optimizer: Which optimizer, and its arguments.

    Example:

    >>> config = OptimizationConfig(
    ...     {
    ...         "optimizer": {"type": "acclip", "acclip": {"weight_decay_rate": 1e-5}},
    ...         "learning_rate": {"type": "constant", "constant": {"learning_rate": 1e-4}},
    ...     }
    ... )
    """

    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)


def shipped():
    """Returns the bare names of the YAML files in this package, sorted."""
    return sorted(path.stem for path in _FOLDER.glob("*.yaml"))


def find(config_file):
    """Returns the path of a YAML file: `config_file` itself, or the package's of that bare name.

    Args:
        config_file: A path, or a name such as `"bert_tiny"` or `"bert_tiny.yaml"`. A file of that
            name in the current directory comes first.

    Returns:
        The path, a string.

    Raises:
        FileNotFoundError: If it is a bare name, and there is no such file anywhere.
    """
    path = pathlib.Path(config_file)
    if path.is_file() or len(path.parts) > 1 or "://" in str(config_file):
        return str(config_file)
    packaged = _FOLDER / f"{config_file.removesuffix('.yaml')}.yaml"
    if packaged.exists():
        return str(packaged)
    raise FileNotFoundError(
        f"There is no file {config_file!r} here, and none of that name in keras_acclip.garden. "
        f"There are: {', '.join(shipped())}"
    )


def _maker(cls):
    """Returns a function that makes an optimizer of `cls` from the fields of its config."""

    def make(
        weight_decay_rate, include_in_weight_decay, exclude_from_weight_decay, **optimizer_arguments
    ):
        optimizer = cls(weight_decay=weight_decay_rate or None, **optimizer_arguments)
        optimizer.exclude_from_weight_decay(
            var_names=_excluded(include_in_weight_decay or [], exclude_from_weight_decay or [])
        )
        return optimizer

    return make


def _excluded(include, exclude):
    """Returns regular expressions found in the names that do not decay; `include` comes first."""
    for field, patterns in (("include", include), ("exclude", exclude)):
        for pattern in patterns:
            try:
                re.compile(pattern)
            except re.error as error:
                name = "include_in" if field == "include" else "exclude_from"
                raise ValueError(
                    f"Field `{name}_weight_decay` must hold regular expressions ({error}). "
                    f"Received: {pattern!r}"
                ) from None
    if not include:
        return exclude
    included = "|".join(f"(?:{pattern})" for pattern in include)
    return [f"^(?!.*(?:{included})).*(?:{pattern})" for pattern in exclude]


def _register():
    """Registers the optimizers, unless an earlier import of this module has done so."""
    makers = {
        "acclip": optimizers.ACClip,
        "gclip": optimizers.GClip,
        "cclip": optimizers.CClip,
    }
    registries = {
        True: optimizer_factory.LEGACY_OPTIMIZERS_CLS,
        False: optimizer_factory.NEW_OPTIMIZERS_CLS,
    }
    for legacy, registry in registries.items():
        for name, cls in makers.items():
            if getattr(registry.get(name), "__module__", None) != __name__:
                optimizer_factory.register_optimizer_cls(name, _maker(cls), legacy)


_register()
