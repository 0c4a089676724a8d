"""Model directories with made-up curves, as a training leaves them."""

import numpy as np
import tensorflow as tf
import yaml


def write_events(folder, scalars):
    """Writes an event file as Orbit does; `scalars` are (name, step, value)s."""
    writer = tf.summary.create_file_writer(str(folder))
    with writer.as_default():
        for name, step, value in scalars:
            tf.summary.scalar(name, value, step=step)
    writer.close()


def write_run(folder, optimizer="acclip", steps=40, **validation):
    """A model directory with random losses, and with the last values of the validations."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    trainer = {
        "train_steps": steps,
        "validation_summary_subdir": "validation",
        "optimizer_config": {"optimizer": {"type": optimizer, optimizer: {}}},
    }
    (folder / "params.yaml").write_text(yaml.safe_dump({"trainer": trainer}))
    loops = range(10, steps + 1, 10)
    write_events(
        folder / "train",
        [("training_loss", step, rng.random()) for step in loops]
        + [("learning_rate", step, 1e-3 * min(step, 20)) for step in loops]
        + [
            ("steps_per_second", step, speed)
            for step, speed in zip(loops, (1, 7, 5, 9), strict=False)
        ],
    )
    write_events(
        folder / "validation",
        [
            (name, step, value + 1.0 - i)
            for name, value in validation.items()
            for i, step in enumerate((steps // 2, steps))
        ],
    )
    return folder
