"""Gradients with rows (`tf.IndexedSlices`), as embeddings have them."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_acclip import ACClip, CClip, GClip
from tests import paths, reference
from tests.tiers import some

ROWS, WIDTH = 12, 3
MAKERS = {
    "GClip": lambda **k: GClip(0.5, 0.7, **k),
    "CClip": lambda **k: CClip(0.5, 0.3, **k),
    "GClip, momentum": lambda **k: GClip(0.5, 0.7, momentum=0.9, **k),
    "CClip, momentum": lambda **k: CClip(0.5, 0.3, momentum=0.9, nesterov=True, **k),
    "GClip, averaging": lambda **k: GClip(0.5, 0.7, averaging="linear", **k),
    "GClip, decay": lambda **k: GClip(0.5, 0.7, weight_decay=0.1, **k),
    "GClip, projection": lambda **k: GClip(0.5, 0.7, projection_radius=1.0, **k),
    "ACClip": lambda **k: ACClip(0.05, **k),
    "ACClip rms": lambda **k: ACClip(0.05, step_size="rms", **k),
}
WRAP = {
    "eager": lambda f: f,
    "graph": tf.function,
    "XLA": lambda f: tf.function(f, jit_compile=True),
}


def random_slices(rng, count, dtype=np.int64):
    values = np.float32(rng.standard_t(1.5, (count, WIDTH)))
    indices = rng.integers(0, ROWS // 2, count).astype(dtype)
    return tf.IndexedSlices(tf.constant(values), tf.constant(indices), tf.constant([ROWS, WIDTH]))


# Every optimizer in a graph, and those that keep rows and those that don't on the other paths.
WAYS = [(name, "graph") for name in MAKERS] + [
    (name, wrap) for name in ("GClip", "CClip", "ACClip") for wrap in ("eager", "XLA")
]


QUICK_WAYS = [way for way in WAYS if way[0].startswith("ACClip") or way[1] == "XLA"]


@pytest.mark.parametrize("way", some(WAYS, QUICK_WAYS), ids="-".join)
def test_equals_the_dense_result(way):
    name, wrap = way
    rng = np.random.default_rng(0)
    results = []
    index_dtype = np.int32 if wrap == "eager" else np.int64
    slices = [random_slices(rng, 9, index_dtype) for _ in range(4)]
    dense_part = [tf.constant(np.float32(rng.standard_normal(4))) for _ in slices]
    for convert in (tf.identity, tf.convert_to_tensor):
        table = keras.Variable(np.ones((ROWS, WIDTH), np.float32), name="table")
        bias = keras.Variable(np.ones(4, np.float32), name="bias")
        optimizer = MAKERS[name]()
        optimizer.build([table, bias])

        def step(values, indices, b):
            g = tf.IndexedSlices(values, indices, tf.constant([ROWS, WIDTH]))
            optimizer.apply([convert(g), b], [table, bias])  # noqa: B023

        step = WRAP[wrap](step)
        for g, b in zip(slices, dense_part, strict=True):
            step(g.values, g.indices, b)
        results.append([table, bias])
    assert reference.relative_error(*results) <= 1e-6


def test_the_norm_sums_repeated_rows_first():
    """Two rows of 3 at one index make a norm of 6, not of √18."""
    g = tf.IndexedSlices(tf.constant([[3.0], [3.0]]), tf.constant([2, 2]), tf.constant([4, 1]))
    v = keras.Variable(np.zeros((4, 1), np.float32))
    GClip(1.0, 0.6).apply([g], [v])
    np.testing.assert_allclose(v[:, 0], [0, 0, -0.6, 0], rtol=1e-6)


@pytest.mark.parametrize("cls", [GClip, CClip])
def test_without_momentum_only_the_rows_concerned_are_touched(cls):
    """Rows without a gradient may hold anything, even a NaN, and no dense gradient is made."""
    g = random_slices(np.random.default_rng(0), 4)
    values = np.ones((ROWS, WIDTH), np.float32)
    rest = np.setdiff1d(np.arange(ROWS), g.indices)
    values[rest] = np.nan
    v = keras.Variable(values)
    optimizer = cls(0.5, 0.7)
    optimizer.build([v])

    @tf.function
    def step(g):
        optimizer.apply([g], [v])

    step(g)
    assert np.all(np.isnan(np.array(v)[rest]))
    assert np.all(np.isfinite(np.array(v)[g.indices.numpy()]))
    graph = step.get_concrete_function(g).graph
    dense = [
        op.name
        for op in graph.get_operations()
        for output in op.outputs
        if output.shape.rank == 2 and output.shape[0] == ROWS
    ]
    assert not dense


def test_a_changing_number_of_rows_does_not_retrace_the_compiled_step():
    rng = np.random.default_rng(0)
    v = keras.Variable(np.ones((ROWS, WIDTH), np.float32))
    optimizer = ACClip(0.1)
    for count in (3, 7, 5, 1):
        optimizer.apply([random_slices(rng, count)], [v])
    (compiled,) = optimizer.compiled_steps.values()
    assert compiled.experimental_get_tracing_count() == 1


@pytest.mark.parametrize("cls", [GClip, CClip])
def test_no_rows_at_all(cls):
    empty = tf.IndexedSlices(tf.zeros((0, 2)), tf.zeros((0,), tf.int64), tf.constant([3, 2]))
    v = keras.Variable(np.ones((3, 2), np.float32))
    other = keras.Variable(np.ones(2, np.float32))
    cls(0.5, 0.7).apply([empty, tf.ones(2)], [v, other])
    np.testing.assert_array_equal(v, np.ones((3, 2)))
    assert np.all(np.array(other) < 1)


def test_skip_nonfinite_with_rows():
    g = tf.IndexedSlices(tf.constant([[np.nan]]), tf.constant([1]), tf.constant([2, 1]))
    v = keras.Variable(np.ones((2, 1), np.float32))
    optimizer = GClip(0.5, skip_nonfinite=True)
    optimizer.apply([g], [v])
    np.testing.assert_array_equal(v, np.ones((2, 1)))
    assert int(optimizer.skipped_steps) == 1


@pytest.mark.parametrize("name", some(MAKERS, ["ACClip", "CClip, momentum"]))
def test_two_replicas(name):
    """Rows that occur on both replicas are summed over replicas before their norm is taken."""
    rng = np.random.default_rng(0)
    strategy = paths.two_replicas()
    halves = [[random_slices(rng, 5) for _ in range(2)] for _ in range(4)]
    with strategy.scope():
        table = keras.Variable(np.ones((ROWS, WIDTH), np.float32))
        optimizer = MAKERS[name]()
        optimizer.build([table])

    @tf.function
    def step(first, second):
        def replica(first, second):
            here = tf.distribute.get_replica_context().replica_id_in_sync_group == 0
            g = tf.nest.map_structure(
                lambda a, b: tf.where(here, a, b), first, second, expand_composites=True
            )
            optimizer.apply([g], [table])

        strategy.run(replica, args=(first, second))

    single = keras.Variable(np.ones((ROWS, WIDTH), np.float32))
    alone = MAKERS[name]()
    for first, second in halves:
        step(first, second)
        alone.apply([tf.convert_to_tensor(first) + tf.convert_to_tensor(second)], [single])
    assert reference.relative_error([table], [single]) <= 1e-6


@pytest.mark.parametrize("jit_compile", [True, False])
@pytest.mark.parametrize("cls", some([GClip, CClip, ACClip], [ACClip]))
def test_an_embedding_trains_in_fit(cls, jit_compile):
    model = keras.Sequential(
        [
            keras.Input((4,), dtype="int32"),
            keras.layers.Embedding(20, 8),
            keras.layers.Flatten(),
            keras.layers.Dense(1),
        ]
    )
    rate = 0.01 if cls is ACClip else 0.3
    model.compile(cls(rate), "mse", jit_compile=jit_compile)
    x = np.random.default_rng(0).integers(0, 20, (128, 4))
    losses = model.fit(x, x[:, 0] / 20, epochs=8, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
