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
