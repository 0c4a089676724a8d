import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorflow as tf
import tensorflow.experimental.numpy as tnp

from keras_acclip.noise.engines import jax as on_jax
from keras_acclip.noise.engines import tensorflow as on_tensorflow
from keras_acclip.noise.sketch import CountSketch

SHAPES = [(300, 40), (7,), (5, 31), (1000,), (9, 11, 13)]


def make_arrays(seed, shapes=SHAPES):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=shape).astype("float32") for shape in shapes]


def murmur_finalizer(h):
    h ^= h >> 16
    h = h * 0x85EBCA6B % 2**32
    h ^= h >> 13
    h = h * 0xC2B2AE35 % 2**32
    return h ^ h >> 16


def reference(arrays, buckets, seed):
    """The sketch, one coordinate at a time: small variables come before large ones."""
    order = sorted(arrays, key=lambda a: a.size >= 8 * buckets)
    flat = np.concatenate([a.ravel() for a in order]).astype("float64")
    sketch = np.zeros(min(buckets, flat.size))
    for i, value in enumerate(flat):
        sign = -1 if murmur_finalizer(i ^ murmur_finalizer(seed)) & 1 else 1
        sketch[i % len(sketch)] += sign * value
    return sketch


@pytest.mark.parametrize("buckets", [7, 97, 499, 2003, 100_003])
@pytest.mark.parametrize("seed", [0, 12345])
def test_is_a_sum_by_index_with_hashed_signs(buckets, seed):
    arrays = make_arrays(seed)
    sketch = CountSketch([a.size for a in arrays], buckets=buckets, seed=seed)
    squares, projected = sketch.digest(np, arrays)
    norm = np.linalg.norm(np.concatenate([a.ravel() for a in arrays]))
    np.testing.assert_allclose(np.sqrt(squares), [norm], rtol=1e-5)
    np.testing.assert_allclose(projected, reference(arrays, buckets, seed), atol=1e-4)
    assert sketch.is_whole == (buckets == 100_003)


@pytest.mark.parametrize("framework", ["tensorflow", "xla", "jax"])
@pytest.mark.parametrize("swept", [True, False])
def test_is_the_same_in_every_framework(framework, swept):
    arrays, others = make_arrays(3), make_arrays(4)
    sizes, groups = [a.size for a in arrays], [[0, 3], [1, 2, 4]]
    expected = CountSketch(sizes, groups, buckets=29, seed=1)
    if framework == "jax":
        xp, compiled, sweep = jnp, jax.jit, on_jax.sweep
    else:
        xp, sweep = tnp, on_tensorflow.sweep
        compiled = tf.function(jit_compile=framework == "xla", autograph=False)
    sketch = CountSketch(sizes, groups, buckets=29, seed=1, sweep=sweep if swept else None)
    squares, projected = compiled(lambda a: sketch.digest(xp, a))(arrays)
    np.testing.assert_allclose(projected, expected.digest(np, arrays)[1], atol=1e-4)
    np.testing.assert_allclose(squares, expected.digest(np, arrays)[0], rtol=1e-5)
    np.testing.assert_allclose(compiled(lambda a: sketch.squares(xp, a))(arrays), squares, 1e-5)
    deviations = compiled(lambda a, b: sketch.deviations(xp, a, b, 0.5, 2.0))(arrays, others)
    scaled = [0.5 * a - 2.0 * b for a, b in zip(arrays, others, strict=True)]
    np.testing.assert_allclose(deviations, expected.squares(np, scaled), rtol=1e-5)


def test_groups_have_sketches_of_their_own():
    arrays = make_arrays(5)
    sizes = [a.size for a in arrays]
    both = CountSketch(sizes, [[0, 3], [1, 2, 4]], buckets=499, seed=1)
    alone = CountSketch([sizes[0], sizes[3]], buckets=499, seed=1)
    assert both.lengths == [499, 499]
    np.testing.assert_array_equal(
        both.digest(np, arrays)[1][:499], alone.digest(np, [arrays[0], arrays[3]])[1]
    )


def test_squared_norm_is_unbiased_and_as_precise_as_stated():
    buckets, shapes = 499, [(150, 60), (20, 11), (3000,)]
    arrays = make_arrays(0, shapes)
    # A common sign is the worst case for a sum, and structure for buckets by index.
    arrays[0] = np.abs(arrays[0]) * np.linspace(0, 2, 60, dtype="float32")
    sizes = [a.size for a in arrays]
    true = sum((a.astype("float64") ** 2).sum() for a in arrays)
    ratios = np.array(
        [
            np.square(CountSketch(sizes, buckets=buckets, seed=s).digest(np, arrays)[1]).sum()
            / true
            for s in range(400)
        ]
    )
    stderr = np.sqrt(2 / buckets)
    assert abs(ratios.mean() - 1) < 4 * stderr / np.sqrt(len(ratios))
    assert ratios.std() < 1.15 * stderr
