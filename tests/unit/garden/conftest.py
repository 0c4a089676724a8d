import importlib.util

import pytest

from keras_acclip.text import corpus as texts
from tests.unit.garden import samples

# The Model Garden needs an older TensorFlow than the rest; the `test` extra brings it.
collect_ignore_glob = [] if importlib.util.find_spec("official") else ["test_*.py"]


@pytest.fixture(scope="session")
def corpus(english):
    """About 40,000 characters of English."""
    return texts.excerpt(texts.text_files([english]), 40_000)


@pytest.fixture(scope="session")
def made(corpus, tmp_path_factory):
    """A finished folder of pretraining data, and the numbers of what is in it."""
    from keras_acclip.garden.data import make_pretraining_data

    folder = tmp_path_factory.mktemp("made") / "data"
    return folder, make_pretraining_data(corpus, folder, **samples.small())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def records(folder):
    from tests.integration.garden import runs

    return runs.write_records(folder, files=2, examples=4)
