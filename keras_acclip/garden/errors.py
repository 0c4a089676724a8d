"""What stops a command of this package with one line."""


class ExperimentError(ValueError):
    """An experiment that can't be run as it is; the message names the parameter and its value.

    Example:

    >>> from keras_acclip.garden import checks, experiments
    >>> from keras_acclip.garden.errors import ExperimentError
    >>> params = experiments.bert_pretraining()
    >>> params.trainer.train_steps = 0
    >>> try:
    ...     checks.check_intervals(params.trainer)
    ... except ExperimentError as error:
    ...     print(error)
    trainer.train_steps must be at least 1. Received: 0
    """
