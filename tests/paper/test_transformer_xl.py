import itertools
import json

import numpy as np
import pytest
import tensorflow as tf
import transformer_xl as job
from lab import plans, resuming
from lab.search import BETAS
from lab.transformer import text as texts

from keras_acclip.text.corpus import TextError

tf_keras = pytest.importorskip("tf_keras")
pytest.importorskip("official")

from lab.transformer import model as models  # noqa: E402
from lab.transformer import training  # noqa: E402

SETTINGS = job.SCALES["smoke"] | {"batch_size": 2, "target_length": 5, "memory_length": 7}


# --- Data ---


def test_segments_of_a_pass_are_the_text_row_by_row():
    documents = [np.arange(start, start + 40, dtype="int32") for start in range(0, 400, 40)]
    stream = texts.training_segments(documents, SETTINGS, seed=3, first=0)
    count = texts.segments_in(documents, SETTINGS)
    assert count == (200 - 1) // 5
    taken = [next(stream) for _ in range(2 * count)]
    assert [number for number, _ in taken] == 2 * list(range(count))
    passes = []
    for found in (taken[:count], taken[count:]):
        for (_, before), (_, after) in itertools.pairwise(found):
            np.testing.assert_array_equal(before[:, -1], after[:, 0])
        rows = np.concatenate([tokens[:, :-1] for _, tokens in found], 1)
        assert rows.shape == (2, 5 * count)
        # Within a document each token follows the one before it.
        assert ((np.diff(rows) == 1) | (rows[:, 1:] % 40 == 0)).all()
        assert len(np.unique(rows)) == rows.size
        passes.append(rows)
    assert (passes[0] != passes[1]).any()

    resumed = texts.training_segments(documents, SETTINGS, seed=3, first=count + 4)
    for (number, tokens), (other_number, other) in zip(taken[count + 4 :], resumed, strict=False):
        assert number == other_number
        np.testing.assert_array_equal(tokens, other)
    other = next(texts.training_segments(documents, SETTINGS, seed=4, first=0))[1]
    assert (other != taken[0][1]).any()


def test_validation_segments_are_always_the_same_and_no_more_than_there_are():
    documents = [np.arange(60, dtype="int32"), np.arange(60, 90, dtype="int32")]
    first, second = (texts.validation_segments(documents, SETTINGS) for _ in range(2))
    assert len(first) == SETTINGS["validation_segments"]
    np.testing.assert_array_equal(first, second)
    few = texts.validation_segments(documents, SETTINGS | {"validation_segments": 1000})
    assert len(few) == texts.segments_in(documents, SETTINGS) == 8


def write_ptb(folder, train, valid):
    (folder / "ptb.train.txt").write_text(train)
    (folder / "ptb.valid.txt").write_text(valid)


def test_penn_treebank_is_words_with_line_ends(tmp_path):
    write_ptb(tmp_path, " the cat \n the <unk> sat \n", "the dog sat\n")
    text = texts.penn_treebank(tmp_path)
    names = dict(zip(["the", "<eos>", "cat", "<unk>", "sat"], range(5), strict=True))
    expected = (
        ["the", "cat", "<eos>", "the", "<unk>", "sat", "<eos>"],
        ["the", "<unk>", "sat", "<eos>"],
    )
    for (document,), words in zip((text.train, text.validation), expected, strict=True):
        np.testing.assert_array_equal(document, [names[word] for word in words])
    assert text.vocabulary_size == 5

    write_ptb(tmp_path, "the cat\n", "the dog\n")
    with pytest.raises(TextError, match=r"valid.txt: 'dog' is not in .*train.txt"):
        texts.penn_treebank(tmp_path)


# --- Model ---


def model_and_tokens(length, **settings):
    settings = SETTINGS | {"target_length": length} | settings
    model = models.build_model(50, settings, seed=1)
    for variable in model.trainable_variables:  # Away from symmetric starts: biases of 0.
        variable.assign_add(tf.random.stateless_normal(variable.shape, (1, 2), stddev=0.1))
    tokens = np.random.default_rng(0).integers(0, 50, (2, length)).astype("int32")
    return model, tf.constant(tokens)


def layer_normalized(x, norm):
    centred = x - x.mean(-1, keepdims=True)
    scale = np.sqrt((centred**2).mean(-1, keepdims=True) + norm.epsilon)
    return centred / scale * norm.gamma.numpy() + norm.beta.numpy()


def reference_block(block, model, content, memory, remembered):
    """One layer after Dai et al. (2019), Section 3.3, a query and a head at a time."""
    attention = block._attention_layer
    kernels = (attention._query_dense, attention._key_dense, attention._value_dense)
    query, key, value, position, output = (
        layer.kernel.numpy()
        for layer in (*kernels, attention._encoding_dense, attention._output_dense)
    )
    u = model.transformer.content_attention_bias.numpy()
    v = model.transformer.positional_attention_bias.numpy()
    batch, length, hidden = content.shape
    heads, size = u.shape
    kept = memory.shape[1]
    context = np.concatenate([memory, content], 1)
    attended = np.zeros((batch, length, heads, size))
    frequencies = 1 / 10000 ** (np.arange(0, hidden, 2) / hidden)
    for b in range(batch):
        for i in range(length):
            for h in range(heads):
                q = content[b, i] @ query[:, h]
                js = range(kept - remembered, kept + i + 1)
                scores = []
                for j in js:
                    angles = (kept + i - j) * frequencies
                    r = np.concatenate([np.sin(angles), np.cos(angles)]) @ position[:, h]
                    k = context[b, j] @ key[:, h]
                    scores.append((q @ k + q @ r + u[h] @ k + v[h] @ r) / np.sqrt(size))
                weights = np.exp(scores - np.max(scores))
                weights /= weights.sum()
                attended[b, i, h] = weights @ (context[b, js] @ value[:, h])
    x = np.einsum("bihs,hsd->bid", attended, output) + content
    x = layer_normalized(x, block._attention_layer_norm)
    inner = np.maximum(x @ block._inner_dense.kernel.numpy() + block._inner_dense.bias.numpy(), 0)
    y = inner @ block._output_dense.kernel.numpy() + block._output_dense.bias.numpy()
    return layer_normalized(x + y, block._output_layer_norm)


@pytest.mark.parametrize(("remembered", "hidden"), [(0, 32), (3, 10), (7, 32)])
def test_model_is_transformer_xls(remembered, hidden):
    model, tokens = model_and_tokens(5, hidden=hidden)
    memory = [tf.random.stateless_normal((2, 7, hidden), (9, i)) for i in range(2)]
    logits, new_memory = model(tokens, memory, remembered)

    table = model.embedding.embeddings.numpy().astype("float64")
    content = table[tokens.numpy()] * np.sqrt(hidden)
    for i, block in enumerate(model.transformer.transformer_xl_layers):
        kept = np.concatenate([memory[i].numpy(), content], 1)[:, -7:]
        np.testing.assert_allclose(new_memory[i], kept, atol=1e-4)
        content = reference_block(block, model, content, memory[i].numpy(), remembered)
    np.testing.assert_allclose(logits, content @ table.T + model.bias.numpy(), atol=1e-3)


def test_segments_with_memory_predict_as_one_long_segment():
    model, tokens = model_and_tokens(12, memory_length=12)
    whole, _ = model(tokens, model.empty_memory(), 0)
    memory, parts = model.empty_memory(), []
    for number in range(3):
        part = tokens[:, 4 * number : 4 * (number + 1)]
        logits, memory = model(part, memory, 4 * number)
        parts.append(logits)
    np.testing.assert_allclose(tf.concat(parts, 1), whole, atol=1e-4)


def test_dropout_is_on_in_training_alone():
    model, tokens = model_and_tokens(5, dropout=0.5)
    once, twice = (model(tokens, model.empty_memory(), 0)[0] for _ in range(2))
    np.testing.assert_array_equal(once, twice)
    outputs = [model(tokens, model.empty_memory(), 0, training=True)[0] for _ in range(2)]
    assert not np.allclose(*outputs)


# --- Training ---


@pytest.mark.slow
@pytest.mark.parametrize("name", job.RATES["small"])
def test_each_optimizer_steps_as_it_does_outside_the_compiled_step(name):
    rule = plans.Spec(name)
    trainer = training.Trainer(rule, 50, SETTINGS, jit=True)
    rates = np.array([0.02, 0.01], "float32")
    segments = np.random.default_rng(0).integers(0, 50, (2, 2, 6)).astype("int32")
    memory = trainer.start(seed=5)
    for number, (tokens, rate) in enumerate(zip(segments, rates, strict=True)):
        remembered = trainer.remembered(number)
        _, memory = trainer.step(tf.constant(tokens), memory, remembered, tf.constant(rate))

    model = models.build_model(50, SETTINGS, 5)
    optimizer = training.make_optimizer(rule, SETTINGS)
    trained = [v for v in model.trainable_variables if "segment" not in v.name]
    memory = model.empty_memory()
    for number, (tokens, rate) in enumerate(zip(segments, rates, strict=True)):
        with tf.GradientTape() as tape:
            logits, memory = model(tf.constant(tokens[:, :-1]), memory, 5 * number)
            loss = tf_keras.losses.sparse_categorical_crossentropy(tokens[:, 1:], logits, True)
            loss = tf.reduce_mean(loss)
        optimizer.learning_rate = rate
        optimizer.apply_gradients(zip(tape.gradient(loss, trained), trained, strict=True))
    for found, expected in zip(trainer.model.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_allclose(found, expected, atol=2e-3)


@pytest.mark.parametrize("name", job.RATES["small"])
def test_betas_reach_the_optimizer(name, tmp_path, monkeypatch):
    given = (0.7, None) if name in plans.MOMENTUM_ALONE else (0.8, 0.95)
    for betas, expected in ((given, given), ((None, None), OWN[name])):
        config = training.make_optimizer(plans.Spec(name, None, None, *betas), SETTINGS)
        config = config.get_config()
        found = config.get("beta_1", config.get("momentum")), config.get("beta_2")
        assert found == pytest.approx(expected)

    def found(rule, *_):
        raise LookupError(rule)

    spec = plans.Spec(name, 0.1, 3, *given)
    monkeypatch.setattr(training, "Trainer", found)
    work = resuming.Work(tmp_path, SETTINGS)
    with pytest.raises(LookupError) as seen:
        training.train(spec, texts.Text([], [], 50, "a text"), work, jit=False)
    assert seen.value.args == (plans.Spec(name, None, None, *given),)


OWN = {
    "sgd": (0.9, None),
    "gclip": (0.9, None),
    "cclip": (0.9, None),
    "adam": (0.9, 0.999),
    "acclip": (0.9, 0.99),
}


def test_a_study_has_the_tokens_of_one_and_betas_for_all():
    settings = job.SCALES["study"]
    step = settings["batch_size"] * settings["target_length"]
    assert step >= 4096
    assert step * settings["steps"] >= 5e6
    assert settings["epochs"] >= 12
    assert set(job.BETAS["study"]) == set(job.RATES["study"]) == set(job.RATES["small"])
    # Beginning at one of the values that are tried, all try as many.
    for name, (beta_1, beta_2) in job.BETAS["study"].items():
        assert beta_1 in BETAS["beta_1"]
        assert beta_2 is None if name in plans.MOMENTUM_ALONE else beta_2 in BETAS["beta_2"]


def test_every_scale_goes_together():
    for scale, settings in job.SCALES.items():
        assert job.parse_arguments(["--scale", scale]).hidden == settings["hidden"]


def test_every_optimizer_is_tuned_over_as_many_rates_as_far_apart():
    options = job.parse_arguments(["--tune"])
    plan = plans.plan(options, job.RATES["small"], job.GRID)
    for name in job.RATES["small"]:
        rates = sorted({spec.rate for spec in plan if spec.optimizer == name})
        assert len(rates) == len(job.GRID)
        np.testing.assert_allclose(np.diff(np.log10(rates)), 0.5, atol=0.03)


# --- The command ---


@pytest.fixture
def command(tmp_path):
    rng = np.random.default_rng(0)
    train, valid = (
        "\n".join(" ".join(f"w{i}" for i in rng.zipf(1.5, 20) % 60) for _ in range(count))
        for count in (200, 60)
    )
    write_ptb(tmp_path, train + " <unk>\n", valid + "\n")

    def run(output, *arguments):
        fixed = ["--scale", "smoke", "--ptb", tmp_path, "--output", output, "--no-jit"]
        jobs = () if "--jobs" in arguments else ("--jobs", "1")
        return job.main([str(argument) for argument in (*fixed, *jobs, *arguments)])

    return run


@pytest.mark.slow
def test_smoke_scale_reports_and_goes_on_where_it_was(
    command, tmp_path, interrupt_next, monkeypatch, capsys
):
    arguments = ("--optimizers", "acclip,adam")
    assert command(tmp_path / "unbroken", *arguments) == 0
    printed = capsys.readouterr().out
    assert "| acclip " in printed
    assert "acclip − adam, validation loss" in printed
    results = json.loads((tmp_path / "unbroken" / "results.json").read_text())
    assert [row["optimizer"] for row in results["summary"]] == ["acclip", "adam"]
    for run in results["runs"]:
        assert [row["step"] for row in run["history"]] == [4, 8]
        for row in run["history"]:
            assert np.log(row["val_perplexity"]) == pytest.approx(row["val_loss"])
            assert 0 < row["val_loss"] < 5
    assert (tmp_path / "unbroken" / "perplexity.png").stat().st_size > 10_000
    assert not list(tmp_path.rglob("*.npz"))

    interrupt_next(resuming)
    assert command(tmp_path / "broken", *arguments) == 130
    assert "goes on from here" in capsys.readouterr().out
    assert command(tmp_path / "broken", *arguments) == 0
    broken = json.loads((tmp_path / "broken" / "results.json").read_text())
    for run, other in zip(results["runs"], broken["runs"], strict=True):
        for row, again in zip(run["history"], other["history"], strict=True):
            assert (row["loss"], row["val_loss"]) == (again["loss"], again["val_loss"])

    monkeypatch.setattr(training, "Trainer", lambda *_: pytest.fail("trained again"))
    assert command(tmp_path / "broken", *arguments) == 0


@pytest.mark.slow
def test_two_at_a_time_come_to_the_same(command, tmp_path):
    for jobs in ("1", "2"):
        assert (
            command(tmp_path / jobs, "--optimizers", "acclip,sgd", "--seeds", "2", "--jobs", jobs)
            == 0
        )
    one, two = (
        json.loads((tmp_path / jobs / "results.json").read_text())["runs"] for jobs in ("1", "2")
    )
    assert len(one) == 4
    for run, other in zip(one, two, strict=True):
        ends = [(r["optimizer"], r["seed"], r["history"][-1]["val_loss"]) for r in (run, other)]
        assert ends[0] == pytest.approx(ends[1], rel=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--steps", "15", "--warmup", "5"], "--steps 15 must be a multiple of --epochs 6"),
        (["--warmup", "3000"], "must be below --steps"),
        (["--hidden", "63"], "must be even and a multiple of --heads 2"),
        (["--optimizers", "adma"], "'adma' is none of sgd, gclip, cclip, adam, acclip"),
    ],
)
def test_a_bad_argument_is_named(arguments, message, capsys):
    with pytest.raises(SystemExit):
        job.parse_arguments(arguments)
    assert message in capsys.readouterr().err


def test_an_unusable_text_is_an_error_that_names_it(tmp_path, capsys):
    output = tmp_path / "out"
    arguments = ["--ptb", str(tmp_path), "--output", str(output)]
    assert job.main(arguments) == 2
    assert "ptb.train.txt: can't be read" in capsys.readouterr().err
    write_ptb(tmp_path, "a <unk>\n" * 3, "a\n")
    assert job.main(arguments) == 2
    assert "too short: the training text has 9 tokens" in capsys.readouterr().err
    assert not output.exists()
