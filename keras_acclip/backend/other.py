"""One optimizer step on the JAX and PyTorch backends, which have no sparse gradients.

JAX's `fit` compiles the whole training step, the optimizer's included; PyTorch runs it op by op.
`backend.tensorflow` describes the functions.
"""

import keras

OBSTACLE = f"the {keras.backend.backend()} backend runs it with the training step around it"
NORM_SLICES = 1


def update(optimizer, gradients, variables, learning_rate):
    """Runs one step over all variables."""
    optimizer.update_all(gradients, variables, learning_rate)


def overwrite(optimizer, variables, averages):
    """Assigns the averages to the variables."""
    for variable, average in zip(variables, averages, strict=True):
        variable.assign(keras.ops.cast(average, variable.dtype))


def colocated(optimizer, variable, make):
    """Returns `make()`, a variable placed where the backend places them."""
    return make()


def is_sparse(gradient):
    """Returns `False`: there are no sparse gradients."""
    return False


def dense(gradient):
    """Returns the gradient."""
    return gradient


def map_rows(function, gradient):
    """Applies a function to a gradient."""
    return function(gradient)


def rows(gradient):
    """Returns the gradient."""
    return gradient


def sum_repeated_rows(gradient):
    """Returns the gradient."""
    return gradient


def subtract_rows(variable, indices, step, finite):
    """Is never reached without sparse gradients."""
    raise NotImplementedError("sparse gradients exist on the TensorFlow backend alone")
