import sysconfig

import keras
import pytest
import tensorflow as tf

# Two logical devices, so that tf.distribute can be tested on any machine.
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)


@pytest.fixture(autouse=True)
def same_names_and_seeds():
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(0)


@pytest.fixture(scope="session")
def english(tmp_path_factory):
    """A file of about 100,000 characters of English: some of Python's own help topics."""
    from keras_acclip.text import docstrings

    topics = docstrings.language_topics(sysconfig.get_paths()["stdlib"])
    path = tmp_path_factory.mktemp("text") / "english.txt"
    path.write_text("\n\n".join(topics[name] for name in sorted(topics))[:100_000], "utf-8")
    return path
