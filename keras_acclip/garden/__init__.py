"""The TensorFlow Model Garden with the paper's optimizers: configs, experiments, data, training.

Importing it, before or after the Model Garden, makes `acclip`, `gclip`, `cclip` and `clip` valid
optimizer types in every experiment.

`python -m keras_acclip.garden.data` makes data, `.train` is the Model Garden's driver with this
package's experiments, `.compare` puts finished runs beside each other. Importing
`keras_acclip.garden.experiments` registers the experiments for a program of your own.

The public names load where they are first used, as the Model Garden takes seconds to import.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from typing import TYPE_CHECKING

import wrapt

from keras_acclip._utils import lazy

if TYPE_CHECKING:
    from keras_acclip.garden import compare as compare
    from keras_acclip.garden import configs as configs
    from keras_acclip.garden import data as data
    from keras_acclip.garden import experiments as experiments
    from keras_acclip.garden.actions import FollowAction as FollowAction
    from keras_acclip.garden.actions import MetricsAction as MetricsAction
    from keras_acclip.garden.actions import NoiseAction as NoiseAction
    from keras_acclip.garden.checkpoints import CheckpointError as CheckpointError
    from keras_acclip.garden.checkpoints import last_checkpoint as last_checkpoint
    from keras_acclip.garden.runner import run as run
    from keras_acclip.garden.trainer import Trainer as Trainer

if importlib.util.find_spec("official") is None:
    _NEEDED = (
        "keras_acclip.garden needs the TensorFlow Model Garden: pip install 'keras-acclip[garden]'"
    )
    # "-m" is what Python calls the program while it looks for the module of `python -m`: this
    # package's command, not a program of a user's that does without.
    if sys.argv[:1] == ["-m"] and any(word.startswith(__name__) for word in sys.orig_argv):
        print(f"error: {_NEEDED}", file=sys.stderr)
        sys.exit(2)
    raise ImportError(_NEEDED)


@wrapt.when_imported("official.modeling.optimization")
def _extend(_: object) -> None:
    """Adds the optimizers to the Model Garden's, once it is there: it takes seconds to import."""
    importlib.import_module("keras_acclip.garden.configs.optimizers")


__all__ = [
    "CheckpointError",
    "FollowAction",
    "MetricsAction",
    "NoiseAction",
    "Trainer",
    "compare",
    "configs",
    "data",
    "experiments",
    "last_checkpoint",
    "run",
]

# Type checkers would otherwise take any name for one of the package.
if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy.attach(
        __name__,
        {
            "compare": "compare",
            "configs": "configs",
            "data": "data",
            "experiments": "experiments",
            "FollowAction": "actions",
            "MetricsAction": "actions",
            "NoiseAction": "actions",
            "CheckpointError": "checkpoints",
            "last_checkpoint": "checkpoints",
            "run": "runner",
            "Trainer": "trainer",
        },
    )
