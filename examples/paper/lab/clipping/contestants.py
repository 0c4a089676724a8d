"""What the gradient is clipped by."""

CONTESTANTS = (
    "none",
    "fixed",
    "moment",
    "quantile",
    "z-score",
    "moment, tuned",
    "quantile, tuned",
)
MOVING = CONTESTANTS[2:]
# What is tuned beside the rate, and where its grid starts: a threshold is in the gradient's units,
# the multiple and the odds q/(1 − q) are not.
TUNED = {
    "fixed": {"threshold": 1.0},
    "moment, tuned": {"multiple": 1.0},
    "quantile, tuned": {"odds": 1.0},
}


def make_optimizer(optimizer, contestant, multiple=2.0, odds=9.0):
    """`Clip` around an optimizer, at the contestant's threshold.

    Args:
        optimizer: A Keras optimizer.
        contestant: One of `CONTESTANTS`.
        multiple: Of a moving moment.
        odds: q/(1 − q) of a moving quantile.
    """
    import keras_acclip
    from keras_acclip import thresholds

    threshold = {
        "none": lambda: 1e30,
        "fixed": lambda: 1.0,
        "moment": lambda: thresholds.MovingMoment(multiple),
        "quantile": lambda: thresholds.MovingQuantile(odds / (1 + odds)),
        "z-score": thresholds.ZScore,
    }[contestant.removesuffix(", tuned")]()
    return keras_acclip.Clip(optimizer, threshold)
