"""Configs of the paper's optimizers for the Model Garden, and the YAML files to layer.

The configs are dataclasses. Where they load, every experiment's `optimizer_config.optimizer` can be
of the types `acclip`, `gclip`, `cclip`, and `clip` around any other.

The YAML files of this package hold what `--config_file` takes by its bare name: a model, a task, an
optimizer and a runtime, each setting its own part of an experiment. Where two files name the same
parameter, as a task and an optimizer do with the learning rate, the later one wins.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from keras_acclip._utils import lazy

if TYPE_CHECKING:
    from keras_acclip.garden.configs.files import find as find
    from keras_acclip.garden.configs.files import shipped as shipped
    from keras_acclip.garden.configs.optimizers import ACClipConfig as ACClipConfig
    from keras_acclip.garden.configs.optimizers import CClipConfig as CClipConfig
    from keras_acclip.garden.configs.optimizers import ClipConfig as ClipConfig
    from keras_acclip.garden.configs.optimizers import GClipConfig as GClipConfig
    from keras_acclip.garden.configs.optimizers import MovingConfig as MovingConfig

__all__ = [
    "ACClipConfig",
    "CClipConfig",
    "ClipConfig",
    "GClipConfig",
    "MovingConfig",
    "find",
    "shipped",
]

# Type checkers would otherwise take any name for one of the package.
if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy.attach(
        __name__,
        {
            "find": "files",
            "shipped": "files",
            "ACClipConfig": "optimizers",
            "CClipConfig": "optimizers",
            "ClipConfig": "optimizers",
            "MovingConfig": "optimizers",
            "GClipConfig": "optimizers",
        },
    )
