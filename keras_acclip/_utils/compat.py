"""Private names of Keras, `tf_keras`, TensorFlow and the Model Garden, each used here alone.

Each function stands for one private name, and says what for. `tests/unit/_utils/test_compat.py`
calls them all, so that a new release that moves one shows in this file.
"""

from __future__ import annotations
