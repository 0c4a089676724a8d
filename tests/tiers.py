"""Which cases of a test run by default, and which with `-m slow` alone."""

import pytest


def some(names, quick):
    """The names as parameters of a test, all but the quick ones slow."""
    unknown = [each for each in quick if each not in names]
    assert not unknown, unknown
    return [n if n in quick else pytest.param(n, marks=pytest.mark.slow) for n in names]
