"""Trains a model in stages and measures something at each."""

import itertools


def train_in_stages(model, stages, batches, measure, history, verbose=0):
    """Trains a model and measures it at each of `stages`, from the start or where it was.

    Args:
        model: A compiled model as it was made; its optimizer must be built.
        stages: Numbers of steps, ascending.
        batches: Function from the numbers of the first and the last step to the batches between.
        measure: Function from the number of steps taken to a dict of JSON values.
        history: `experiment.History`, with a row for each stage that is done. A row holds `step`,
            the mean training `loss` since the stage before, if there was a step, and what was
            measured.
        verbose: As in `model.fit`.

    Returns:
        The history's rows, as a list.
    """
    if history:
        model.load_weights(history.state_path(len(history)))
    for first, last in list(itertools.pairwise([0, *stages]))[len(history) :]:
        row = {"step": last}
        if last > first:
            fitted = model.fit(batches(first, last), shuffle=False, verbose=verbose)
            row["loss"] = float(fitted.history["loss"][0])
        history.add(measure(last) | row, model.save_weights)
    history.finish()
    return list(history)
