"""What the gradient is clipped by."""

CONTESTANTS = ("none", "fixed", "moment", "quantile", "z-score")
MOVING = CONTESTANTS[2:]


def make_optimizer(optimizer, contestant):
    """`Clip` around an optimizer, at the contestant's threshold; the moving ones as they come.

    Args:
        optimizer: A Keras optimizer.
        contestant: One of `CONTESTANTS`.
    """
    import keras_acclip
    from keras_acclip import thresholds

    threshold = {
        "none": lambda: 1e30,
        "fixed": lambda: 1.0,
        "moment": thresholds.MovingMoment,
        "quantile": thresholds.MovingQuantile,
        "z-score": thresholds.ZScore,
    }[contestant]()
    return keras_acclip.Clip(optimizer, threshold)
