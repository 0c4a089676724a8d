"""The whole training step in one XLA computation of static shapes, as a TPU runs it.

What is compiled is the trainer's own step: dropout, forward pass, loss, gradient, optimizer,
metrics and the counting of steps, all but the reading of the data.
"""

import itertools

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from official.core import task_factory, train_utils
from official.modeling import performance

from keras_acclip.garden import Trainer
from tests.integration.garden.runs import (
    ENCODER,
    LENGTH,
    overrides,
    parse,
    write_answers,
    write_records,
)
from tests.tiers import some

OPTIMIZERS = {
    "acclip": {},
    "gclip": {"threshold": 0.1, "momentum": 0.9},
    "cclip": {"threshold": 0.01},
    "adamw": {},
}
STEPS = 6


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    return {
        "acclip/bert_pretraining": write_records(folder, files=1),
        "acclip/bert_squad": write_answers(folder),
    }


@pytest.fixture
def bfloat16():
    performance.set_mixed_precision_policy("bfloat16")
    yield
    performance.set_mixed_precision_policy("float32")


def parameters(experiment, optimizer, path, dropout=0.0, **arguments):
    changes = overrides({"input_path": path})
    rates = {"dropout_rate": dropout, "attention_dropout_rate": dropout}
    model = {"encoder": {"bert": ENCODER | rates}}
    if experiment == "acclip/bert_pretraining":
        model["cls_heads"] = [{"dropout_rate": dropout}]
    else:
        shape = {"input_path": path, "seq_length": LENGTH, "global_batch_size": 4}
        changes["task"] = {"train_data": shape}
    changes["task"]["model"] = model
    arguments |= OPTIMIZERS[optimizer]
    changes["trainer"]["optimizer_config"]["optimizer"] = {"type": optimizer, optimizer: arguments}
    params = parse(changes, experiment, ("tpu",))
    return params.replace(task={"train_data": {"seed": 0}}, runtime={"enable_xla": False})


def make_trainer(params):
    tf_keras.utils.set_random_seed(0)
    with tf.distribute.OneDeviceStrategy("CPU:0").scope():
        task = task_factory.get_task(params.task)
        return train_utils.create_trainer(
            params, task, train=True, evaluate=False, trainer_cls=Trainer
        )


def take_steps(params, **compilation):
    """Returns the weights before and after the steps, the metrics, and whether a step but the first
    was traced.
    """
    trainer = make_trainer(params)

    @tf.function(**compilation)
    def step(inputs):
        trainer.train_step(iter([inputs]))

    dataset = trainer.task.build_inputs(params.task.train_data)
    for spec in tf.nest.flatten(dataset.element_spec):
        assert spec.shape.is_fully_defined()
    before = trainer.model.get_weights()
    traces = []
    for batch in dataset.take(STEPS):
        step(batch)
        traces.append(step.experimental_get_tracing_count())
    assert trainer.global_step.numpy() == STEPS
    metrics = {name: float(v) for name, v in trainer.train_loop_end().items()}
    return before, trainer.model.get_weights(), metrics, traces[-1] > traces[0]


def distance(weights, others):
    return np.sqrt(sum(np.sum((a - b) ** 2) for a, b in zip(weights, others, strict=True)))


def assert_compiles(experiment, optimizer, data, tolerance):
    ours = optimizer != "adamw"
    params = parameters(experiment, optimizer, data[experiment])
    before, compiled, metrics, retraced = take_steps(params, jit_compile=True)
    assert not retraced
    no = {"jit_compile": False} if ours else {}
    params = parameters(experiment, optimizer, data[experiment], **no)
    start, plain, expected, _ = take_steps(params)
    assert distance(before, start) == 0
    assert distance(compiled, plain) <= tolerance * distance(plain, start)
    # Accuracies jump where a prediction tips over.
    losses = {name for name in metrics if name.endswith("loss")}
    assert "training_loss" in losses
    for name in losses:
        assert metrics[name] == pytest.approx(expected[name], rel=tolerance)


def all_but(*quick):
    """Parameters for each experiment and optimizer, those that are not `quick` marked slow."""
    every = itertools.product(["acclip/bert_pretraining", "acclip/bert_squad"], OPTIMIZERS)
    return pytest.mark.parametrize(
        ("experiment", "optimizer"),
        [pytest.param(*p, marks=() if p in quick else pytest.mark.slow) for p in every],
    )


@all_but(("acclip/bert_pretraining", "acclip"))
def test_the_whole_step_compiles(experiment, optimizer, data):
    assert_compiles(experiment, optimizer, data, 1e-4)


@pytest.mark.slow
@all_but(("acclip/bert_squad", "gclip"))
def test_the_whole_step_compiles_in_bfloat16(experiment, optimizer, data, bfloat16):
    """As `tpu.yaml` has it; XLA rounds to bfloat16 in other places, by 2⁻⁹ each time."""
    assert_compiles(experiment, optimizer, data, 0.15)


@pytest.mark.slow
def test_dropout_compiles(data):
    name = "acclip/bert_pretraining"
    params = parameters(name, "acclip", data[name], dropout=0.1)
    _, weights, _, retraced = take_steps(params, jit_compile=True)
    _, again, _, _ = take_steps(params, jit_compile=True)
    _, without, _, _ = take_steps(parameters(name, "acclip", data[name]), jit_compile=True)
    assert not retraced
    assert distance(weights, again) == 0 < distance(weights, without)


@pytest.mark.parametrize("enabled", some([False, True], [True]))
def test_xla_can_be_enabled_on_a_cpu(enabled, data):
    """In the Model Garden's trainer, `runtime.enable_xla` acts on GPUs alone."""
    name = "acclip/bert_pretraining"
    params = parameters(name, "adamw", data[name]).replace(runtime={"enable_xla": enabled})
    trainer = make_trainer(params)
    iterator = iter(trainer.task.build_inputs(params.task.train_data))
    graph = tf.function(trainer.train_step).get_concrete_function(iterator).graph
    functions = graph.as_graph_def().library.function
    assert any(f.attr["_XlaMustCompile"].b for f in functions) == enabled
