"""What stops a command of this package with one line."""


class ExperimentError(ValueError):
    """An experiment that can't be run as it is; the message names the parameter and its value."""
