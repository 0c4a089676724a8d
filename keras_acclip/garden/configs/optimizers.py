"""Configs of the paper's optimizers for the Model Garden.

As this module is imported, the Model Garden's own `OptimizerConfig` gets the fields `acclip`,
`gclip`, `cclip` and `clip`, so that every experiment can choose them.
"""

# A field of a config takes a class that extends the Model Garden's.
# pyright: reportIncompatibleVariableOverride=false

import dataclasses

from official.modeling.hyperparams import base_config, oneof
from official.modeling.optimization.configs import optimization_config, optimizer_config

from keras_acclip._utils import compat
from keras_acclip.garden.configs import registration  # noqa: F401  (registers what these name)


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

    Example:

    >>> from keras_acclip.garden import experiments
    >>> experiment = experiments.bert_pretraining()
    >>> optimizer = experiment.trainer.optimizer_config.optimizer
    >>> optimizer.override({"type": "acclip", "acclip": {"alpha": 1.5}})
    >>> type(optimizer.acclip).__name__, optimizer.acclip.alpha
    ('ACClipConfig', 1.5)
    """

    name: str = "ACClip"
    beta_1: float = 0.9
    beta_2: float = 0.99
    epsilon: float = 1e-5
    alpha: float = 1.0
    step_size: str = "moment"


@dataclasses.dataclass
class MovingMomentConfig(base_config.Config):
    """Config of `keras_acclip.thresholds.MovingMoment`.

    Attributes:
        multiple: Factor on the moving moment's root.
        alpha: Order of the moment, in [1, 2].
        decay: Decay of the moving average.
        warmup: Steps before any norm is clipped.
    """

    multiple: float = 2.0
    alpha: float = 1.0
    decay: float = 0.98
    warmup: int = 10


@dataclasses.dataclass
class MovingQuantileConfig(base_config.Config):
    """Config of `keras_acclip.thresholds.MovingQuantile`.

    Attributes:
        q: The quantile.
        window: How many norms are looked back on.
        warmup: Steps before any norm is clipped.
    """

    q: float = 0.9
    window: int = 128
    warmup: int = 10


@dataclasses.dataclass
class ZScoreConfig(base_config.Config):
    """Config of `keras_acclip.thresholds.ZScore`.

    Attributes:
        z: Standard deviations above the mean.
        decay: Decay of the moving averages.
        warmup: Steps before any norm is clipped.
    """

    z: float = 2.5
    decay: float = 0.97
    warmup: int = 25


@dataclasses.dataclass
class MovingConfig(oneof.OneOfConfig):
    """A threshold that moves, in the place of a fixed one.

    Attributes:
        type: `"moment"`, `"quantile"`, `"z_score"`, or none for a fixed threshold.
        moment: MovingMoment.
        quantile: MovingQuantile.
        z_score: ZScore.

    Example:

    >>> from keras_acclip.garden.configs import GClipConfig
    >>> config = GClipConfig()
    >>> config.moving.override({"type": "quantile", "quantile": {"q": 0.5}})
    >>> config.moving.get()
    MovingQuantileConfig(q=0.5, window=128, warmup=10)
    """

    type: str | None = None
    moment: MovingMomentConfig = dataclasses.field(default_factory=MovingMomentConfig)
    quantile: MovingQuantileConfig = dataclasses.field(default_factory=MovingQuantileConfig)
    z_score: ZScoreConfig = dataclasses.field(default_factory=ZScoreConfig)


@dataclasses.dataclass
class _ThresholdConfig(_ClippedConfig):
    """What GClip and CClip share.

    Attributes:
        threshold: The clipping threshold, where none moves.
        moving: A threshold that moves.
        momentum: Momentum in [0, 1).
        nesterov: Whether the momentum looks ahead.
    """

    threshold: float = 1.0
    moving: MovingConfig = dataclasses.field(default_factory=MovingConfig)
    momentum: float = 0.0
    nesterov: bool = False


@dataclasses.dataclass
class GClipConfig(_ThresholdConfig):
    """Config of `keras_acclip.tf_keras.GClip`.

    Attributes:
        name: Name of the optimizer.

    Example:

    >>> from keras_acclip.garden import experiments
    >>> experiment = experiments.bert_pretraining()
    >>> optimizer = experiment.trainer.optimizer_config.optimizer
    >>> optimizer.override({"type": "gclip", "gclip": {"threshold": 0.5, "momentum": 0.9}})
    >>> type(optimizer.gclip).__name__, optimizer.gclip.threshold
    ('GClipConfig', 0.5)
    """

    name: str = "GClip"


@dataclasses.dataclass
class CClipConfig(_ThresholdConfig):
    """Config of `keras_acclip.tf_keras.CClip`.

    Attributes:
        name: Name of the optimizer.

    Example:

    >>> from keras_acclip.garden import experiments
    >>> experiment = experiments.bert_pretraining()
    >>> optimizer = experiment.trainer.optimizer_config.optimizer
    >>> optimizer.override({"type": "cclip", "cclip": {"threshold": 0.01, "momentum": 0.9}})
    >>> type(optimizer.cclip).__name__, optimizer.cclip.threshold
    ('CClipConfig', 0.01)
    """

    name: str = "CClip"


def _unclipped_adamw() -> optimizer_config.AdamWeightDecayConfig:
    return optimizer_config.AdamWeightDecayConfig(gradient_clip_norm=0.0)


@dataclasses.dataclass
class InnerOptimizerConfig(optimization_config.OptimizerConfig):
    """The optimizers that `clip` goes around.

    Attributes:
        adamw: The Model Garden's AdamW. Its own clipping, of each replica's gradient, is off.
        acclip: ACClip.
        gclip: GClip.
        cclip: CClip.
        clip: None, as `clip` does not go around itself.
    """

    adamw: optimizer_config.AdamWeightDecayConfig = dataclasses.field(
        default_factory=_unclipped_adamw
    )
    acclip: ACClipConfig = dataclasses.field(default_factory=ACClipConfig)
    gclip: GClipConfig = dataclasses.field(default_factory=GClipConfig)
    cclip: CClipConfig = dataclasses.field(default_factory=CClipConfig)
    clip: None = None


@dataclasses.dataclass
class ClipConfig(optimizer_config.BaseOptimizerConfig):
    """Config of `keras_acclip.tf_keras.Clip`: the gradient clipped before any optimizer.

    Attributes:
        name: Name of the optimizer.
        optimizer: Which optimizer, and its arguments, as in an experiment.
        threshold: The clipping threshold, where none moves.
        moving: A threshold that moves.
        by: `"global"`, `"variable"` or `"coordinate"`.
        skip_nonfinite: Whether a step whose gradient is not finite changes nothing.
        jit_compile: Whether the whole step runs as one XLA computation.

    Example:

    >>> from keras_acclip.garden import experiments
    >>> experiment = experiments.bert_pretraining()
    >>> optimizer = experiment.trainer.optimizer_config.optimizer
    >>> optimizer.override({"type": "clip", "clip": {"optimizer": {"type": "adamw"}}})
    >>> type(optimizer.clip).__name__, optimizer.clip.optimizer.type
    ('ClipConfig', 'adamw')
    """

    name: str = "Clip"
    optimizer: InnerOptimizerConfig = dataclasses.field(default_factory=InnerOptimizerConfig)
    threshold: float = 1.0
    moving: MovingConfig = dataclasses.field(default_factory=MovingConfig)
    by: str = "global"
    skip_nonfinite: bool = False
    jit_compile: bool = True


def extend() -> None:
    """Gives every choice of an optimizer in the Model Garden's experiments the ones of above."""
    classes = {"acclip": ACClipConfig, "gclip": GClipConfig, "cclip": CClipConfig}
    fields = {name: (cls, cls) for name, cls in {**classes, "clip": ClipConfig}.items()}
    compat.add_fields(optimization_config.OptimizerConfig, fields)


extend()
