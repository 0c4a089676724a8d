"""What stands in saved files, and where."""

import numpy as np

from tests import versions


def test_variables_keep_the_order_of_files_that_people_have(version):
    """Keras reads a saved optimizer by position; what is newer stands at the end."""
    optimizer = version.ACClip(step_size="rms", averaging="linear", skip_nonfinite=True)
    optimizer.build(version.make_variables([np.zeros(2, "float32"), np.zeros(3, "float32")]))
    names = [v.name.split(":")[0].split("/")[0] for v in optimizer.variables]
    assert names[-3:] == ["clipping_counts", "clipping_sums", "clipping_squares"]
    kinds = ("moment", "threshold_power", "second_moment", "linear_average")
    slots = [max((k for k in kinds if k in name), key=len) for name in names[-11:-3]]
    assert slots == [*kinds, *kinds]
    scalars = [name for name in names[:-11] if name not in ("iteration", "learning_rate")]
    assert scalars == ["averaged_steps", "skipped_steps", "last_step_skipped"]
    optimizer = version.GClip(skip_nonfinite=True)
    names = [v.name.split(":")[0] for v in optimizer.variables]
    assert names[-1] == ("threshold" if version.name == "Keras 3" else "last_step_skipped")


def test_files_without_a_record_are_read(version):
    """As optimizers before 0.2.0 wrote them."""

    def trained(steps):
        optimizer = version.ACClip(0.1)
        variables = version.make_variables([np.zeros(2, "float32")])
        optimizer.build(variables)
        for _ in range(steps):
            versions.update(optimizer, [[1.0, 2.0]], variables)
        return optimizer

    store = {}
    old = trained(3)
    old.save_own_variables(store)
    for _ in range(3):
        del store[str(len(store) - 1)]
    new = trained(0)
    new.load_own_variables(store)
    for a, b in list(zip(old.variables, new.variables, strict=True))[:-3]:
        np.testing.assert_array_equal(a, b)
    assert int(new.clipping.steps) == 0
