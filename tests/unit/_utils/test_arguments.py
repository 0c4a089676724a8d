import math

import numpy as np
import pytest

from keras_acclip._utils import arguments


def test_numbers():
    assert arguments.real("x", np.float32(0.5)) == 0.5
    assert arguments.positive("x", 3) == 3.0
    assert arguments.positive_integer("n", np.int64(4)) == 4
    for value, error in [("1", TypeError), (True, TypeError), (math.nan, ValueError)]:
        with pytest.raises(error, match=r"Argument `x`.*Received: x="):
            arguments.real("x", value)
    with pytest.raises(ValueError, match=r"in \[0, 1\)\. Received: x=1"):
        arguments.real("x", 1, low=0.0, high=1.0, open_high=True)
    for value in (0, -1, 1.5, True, "2"):
        with pytest.raises(ValueError, match=r"Argument `n` must be a whole number of at least 1"):
            arguments.positive_integer("n", value)


def test_choices():
    assert arguments.one_of("x", None, (None, "linear")) is None
    assert arguments.flag("x", False) is False
    with pytest.raises(ValueError, match="one of None, 'linear'"):
        arguments.one_of("x", "cubic", (None, "linear"))
    with pytest.raises(TypeError, match="must be True or False"):
        arguments.flag("x", 1)


@pytest.mark.parametrize(
    ("value", "dtype", "inside"),
    [
        (0.0, "float16", True),
        (1e-3, "float16", True),
        (1e5, "float16", False),
        (1e-9, "float16", False),
        (1e38, "bfloat16", True),
        (2e47, "float32", False),
        (1e-49, "float32", False),
        (1e-44, "float32", False),
        (2e47, "float64", True),
    ],
)
def test_representable(value, dtype, inside):
    if inside:
        assert arguments.representable("x", value, dtype) == value
    else:
        with pytest.raises(ValueError, match=f"representable in {dtype}.*Received: x="):
            arguments.representable("x", value, dtype)
