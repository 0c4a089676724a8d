"""The TensorFlow Model Garden with the paper's optimizers: configs, experiments, data, training.

Importing `keras_acclip.garden.experiments` registers them all; `python -m
keras_acclip.garden.train` is the Model Garden's driver with them.
"""

import importlib.util

if importlib.util.find_spec("official") is None:
    raise ImportError(
        "keras_acclip.garden needs the TensorFlow Model Garden: pip install 'keras-acclip[garden]'"
    )
