import keras
import numpy as np
import pytest
import tensorflow as tf
from lab import bert, masked_lm
from scipy import stats

ROWS = np.random.default_rng(0).integers(5, 100, (40, 32)).astype("int32")
ROWS[:, 0], ROWS[:, -1], ROWS[:, 7] = masked_lm.CLS, masked_lm.SEP, masked_lm.SEP
SETTINGS = {"layers": 1, "hidden": 64, "sequence_length": 32}
VOCABULARY = 512
DESIGNS = [(attention, text) for attention in (True, False) for text in (True, False)]


# --- Data ---


def test_masks_follow_berts_recipe():
    tokens = np.tile(ROWS, (100, 1))
    inputs, labels = masked_lm.mask_tokens(tf.constant(tokens), 100, (3, 4))
    masked, positions, labels = (
        value.numpy() for value in (inputs["token_ids"], inputs["mask_positions"], labels)
    )
    assert positions.shape == labels.shape == (4000, 5)  # 15% of 32.
    assert all(len(set(row)) == 5 for row in positions)
    np.testing.assert_array_equal(np.take_along_axis(tokens, positions, 1), labels)
    assert (labels > masked_lm.MASK).all()  # [CLS] and [SEP] are never to be predicted.
    untouched = masked.copy()
    np.put_along_axis(untouched, positions, labels, 1)
    np.testing.assert_array_equal(untouched, tokens)

    seen = np.take_along_axis(masked, positions, 1)
    other = seen[(seen != masked_lm.MASK) & (seen != labels)]
    # 20,000 draws: four standard deviations. A random token is the old one in 1 of 95.
    assert (seen == masked_lm.MASK).mean() == pytest.approx(0.8, abs=0.012)
    assert other.size / seen.size == pytest.approx(0.1 * 94 / 95, abs=0.009)
    assert other.min() > masked_lm.MASK
    assert other.max() == 99
    np.testing.assert_allclose(np.bincount(positions.ravel())[1:7], 20_000 / 29, rtol=0.2)


def batches(seed, first, last):
    return [
        {name: value.numpy() for name, value in inputs.items()} | {"labels": labels.numpy()}
        for inputs, labels in masked_lm.training_batches(ROWS, 100, 8, seed, first, last)
    ]


def test_a_batch_depends_on_its_number_and_the_seed_alone():
    whole, resumed, other = batches(1, 0, 12), batches(1, 7, 12), batches(2, 0, 12)
    assert len(whole) == 12
    for expected, found in zip(whole[7:], resumed, strict=True):
        for name, value in expected.items():
            np.testing.assert_array_equal(found[name], value, err_msg=name)
    assert any((a["token_ids"] != b["token_ids"]).any() for a, b in zip(whole, other, strict=True))


def test_each_pass_takes_every_row_once_in_a_new_order_with_new_masks():
    def restore(batch):
        rows = batch["token_ids"].copy()
        np.put_along_axis(rows, batch["mask_positions"], batch["labels"], 1)
        return rows

    whole = batches(1, 0, 10)  # Two passes over 40 rows.
    first, second = (np.concatenate([restore(b) for b in part]) for part in (whole[:5], whole[5:]))
    for rows in (first, second):
        np.testing.assert_array_equal(np.unique(rows, axis=0), np.unique(ROWS, axis=0))
    assert (first != second).any()
    positions = [np.concatenate([b["mask_positions"] for b in p]) for p in (whole[:5], whole[5:])]
    ranks = [np.lexsort(rows.T) for rows in (first, second)]
    assert (positions[0][ranks[0]] != positions[1][ranks[1]]).any()


def test_validation_batches_are_always_the_same():
    first, second = (list(masked_lm.validation_batches(ROWS, 100, 8, 20)) for _ in range(2))
    assert sum(len(labels) for _, labels in first) == 20
    for (a, x), (b, y) in zip(first, second, strict=True):
        np.testing.assert_array_equal(x, y)
        np.testing.assert_array_equal(a["token_ids"], b["token_ids"])


# --- Model ---


def inputs_of(text, count=3):
    generator = np.random.default_rng(0)
    length = SETTINGS["sequence_length"]
    if text:
        inputs = {"token_ids": generator.integers(5, 500, (count, length))}
    else:
        inputs = {"embeddings": generator.normal(size=(count, length, SETTINGS["hidden"]))}
    return inputs | {"mask_positions": np.tile(np.array([2, 5, 11]), (count, 1))}


@pytest.fixture(scope="module")
def models():
    """All four designs, of one layer."""
    return {design: bert.build_model(VOCABULARY, SETTINGS, *design) for design in DESIGNS}


@pytest.mark.parametrize("design", DESIGNS)
def test_only_attention_carries_information_from_place_to_place(design, models):
    (attention, text), model = design, models[design]
    inputs = inputs_of(text)
    before = np.asarray(model(inputs))
    assert before.shape == (3, 3, VOCABULARY)
    name = "token_ids" if text else "embeddings"
    inputs[name][:, 5] = inputs[name][:, 5][::-1] + 1
    change = np.abs(np.asarray(model(inputs)) - before).max((0, 2))
    assert change[1] > 1e-3
    if attention:
        assert (change > 1e-6).all()
    else:
        np.testing.assert_array_equal(change[[0, 2]], 0)


def test_the_designs_have_as_many_parameters_and_start_from_as_large_weights(models):
    scale = bert.INITIAL_SCALE * stats.truncnorm(-2, 2).std()
    for model in models.values():
        for weight in model.trainable_variables:
            if weight.path.endswith("kernel"):
                assert np.std(weight) == pytest.approx(scale, rel=0.05), weight.path
    sizes = {design: model.count_params() for design, model in models.items()}
    assert sizes[True, True] == sizes[True, False]
    assert sizes[False, True] == sizes[False, False]
    # The biases alone differ: 4 · hidden with attention, 3 · hidden without.
    assert sizes[True, True] - sizes[False, True] == SETTINGS["hidden"]


@pytest.mark.parametrize("attention", [True, False])
def test_no_two_layers_start_from_the_same_values(attention):
    model = bert.build_model(VOCABULARY, SETTINGS | {"layers": 2}, attention)
    matrices = [
        v.numpy().ravel()
        for v in model.trainable_variables
        if v.path.endswith(("kernel", "embeddings"))
    ]
    assert len(matrices) > 8
    for i, first in enumerate(matrices):
        for second in matrices[:i]:
            size = min(len(first), len(second))
            assert abs(np.corrcoef(first[:size], second[:size])[0, 1]) < 0.1


@pytest.mark.parametrize("attention", [True, False])
def test_the_last_block_loses_nothing_by_leaving_out_what_is_not_masked(attention):
    """Where every place is masked, nothing is left out: the logits of a place are the same."""
    model = bert.build_model(VOCABULARY, SETTINGS | {"layers": 2}, attention)
    inputs = inputs_of(text=True)
    everywhere = np.tile(np.arange(SETTINGS["sequence_length"]), (3, 1))
    whole = np.asarray(model(inputs | {"mask_positions": everywhere}))
    np.testing.assert_allclose(model(inputs), whole[:, [2, 5, 11]], atol=1e-5)


def test_the_span_model_is_the_same_encoder():
    """At the places of a row that is not filled up, the two encoders agree to rounding."""
    first = bert.build_model(VOCABULARY, SETTINGS)
    second = bert.build_span_model(VOCABULARY, SETTINGS)
    bert.copy_encoder({v.path: np.asarray(v) for v in first.trainable_variables}, second)
    length, last = SETTINGS["sequence_length"], f"feedforward_{SETTINGS['layers'] - 1}_norm"
    tokens = np.random.default_rng(0).integers(1, VOCABULARY, (3, length))
    inputs = {"token_ids": tokens, "mask_positions": np.tile(np.arange(length), (3, 1))}
    inner = keras.Model(first.inputs, first.get_layer(last).output)
    expected = inner([inputs[x.name] for x in first.inputs])
    got = keras.Model(second.inputs, second.get_layer(last).output)(tokens)
    np.testing.assert_allclose(got, expected, atol=1e-5)
    # What a row is filled up with, token 0, is attended to by none, and no answer's place.
    short = np.where(np.arange(length) < length // 2, tokens, 0)
    logits = np.asarray(second(short))
    table = second.get_layer("token_embedding").trainable_variables[0]
    table.assign(np.where(np.arange(VOCABULARY)[:, None] == 0, 7.0, table))
    np.testing.assert_allclose(second(short), logits, atol=1e-5)
    assert np.all(logits[..., length // 2 :] == -1e9) and np.ptp(logits[..., : length // 2]) > 0
    with pytest.raises(ValueError, match="No weights for"):
        bert.copy_encoder({}, second)
