import itertools
import math

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from official.core import task_factory, train_utils
from official.modeling.optimization import OptimizerFactory, legacy_adamw

from keras_acclip.garden import configs, experiments
from keras_acclip.garden.flags import EXPERIMENTS
from keras_acclip.tf_keras import ACClip, CClip, GClip

MODELS = ("bert_base_6l", "bert_base_12l", "bert_large_24l", "bert_tiny")
OPTIMIZERS = {
    "acclip": ACClip,
    "adamw": legacy_adamw.AdamWeightDecay,
    "gclip": GClip,
    "sgd": tf_keras.optimizers.legacy.SGD,
}
TASKS = {
    "pretraining_128": ("acclip/bert_pretraining", "acclip/bert_pretraining_text"),
    "pretraining_512": ("acclip/bert_pretraining", "acclip/bert_pretraining_text"),
    "squad": ("acclip/bert_squad",),
}
QUICK = (("bert_base_6l", "pretraining_128"), ("bert_large_24l", "squad"))
RUNTIMES = ("cpu", "gpu", "gpus", "multi_worker", "tpu")
OTHERS = ("acclip/bert_sentence_prediction", "acclip/resnet_imagenet")


def parse(experiment, *names, override=""):
    options = train_utils.ParseConfigOptions(
        experiment, [configs.find(name) for name in names], params_override=override
    )
    return train_utils.parse_configuration(options, print_return=False)


def test_all_files_and_experiments_are_covered_here():
    assert {*sum(TASKS.values(), ()), *OTHERS} == {*EXPERIMENTS}
    assert sorted([*MODELS, *OPTIMIZERS, *TASKS, *RUNTIMES]) == configs.shipped()


@pytest.mark.parametrize(
    ("model", "task_file"),
    [
        pytest.param(*pair, marks=() if pair in QUICK else pytest.mark.slow)
        for pair in itertools.product(MODELS, TASKS)
    ],
)
def test_every_combination_gives_its_task_and_optimizer(model, task_file):
    for experiment, optimizer, runtime in itertools.product(TASKS[task_file], OPTIMIZERS, RUNTIMES):
        params = parse(experiment, model, optimizer, task_file, runtime)
        task = task_factory.get_task(params.task)
        assert task.task_config.model.encoder.bert.num_layers in (2, 6, 12, 24)
        assert task.task_config.train_data.seq_length == task.task_config.validation_data.seq_length
        made = task.create_optimizer(params.trainer.optimizer_config, params.runtime)
        assert type(made) is OPTIMIZERS[optimizer]
        learning_rate = OptimizerFactory(params.trainer.optimizer_config).build_learning_rate()
        assert float(learning_rate(0)) < float(learning_rate(831)) / 800
        assert float(learning_rate(params.trainer.train_steps - 1)) > 0
        assert params.runtime.enable_xla


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize(
    "experiment", ["acclip/bert_sentence_prediction", "acclip/resnet_imagenet"]
)
def test_the_other_experiments_take_every_optimizer_and_runtime(experiment, optimizer, runtime):
    params = parse(experiment, optimizer, runtime)
    task = task_factory.get_task(params.task)
    made = task.create_optimizer(params.trainer.optimizer_config, params.runtime)
    assert type(made) is OPTIMIZERS[optimizer]


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_the_baseline_is_one_line_away(experiment):
    ours = parse(experiment).as_dict()
    assert ours["trainer"]["optimizer_config"]["optimizer"]["type"] == "acclip"
    line = "trainer.optimizer_config.optimizer.type={}"
    for name, cls in OPTIMIZERS.items():
        params = parse(experiment, override=line.format(name))
        task = task_factory.get_task(params.task)
        assert type(task.create_optimizer(params.trainer.optimizer_config)) is cls
        theirs = params.as_dict()
        chosen = theirs["trainer"]["optimizer_config"].pop("optimizer")
        file = parse(experiment, name).as_dict()
        assert chosen == file["trainer"]["optimizer_config"]["optimizer"]
        assert theirs == {
            **ours,
            "trainer": {
                **ours["trainer"],
                "optimizer_config": {
                    k: v for k, v in ours["trainer"]["optimizer_config"].items() if k != "optimizer"
                },
            },
        }
    params = parse(experiment, override=line.format("cclip"))
    task = task_factory.get_task(params.task)
    assert type(task.create_optimizer(params.trainer.optimizer_config)) is CClip


def test_acclip_has_the_papers_values():
    params = parse("acclip/bert_pretraining")
    optimizer = params.trainer.optimizer_config
    assert optimizer.learning_rate.polynomial.initial_learning_rate == 1e-4
    made = experiments.MaskedLMTask.create_optimizer(optimizer).get_config()
    wanted = {"beta_1": 0.9, "beta_2": 0.99, "epsilon": 1e-5, "alpha": 1, "weight_decay": 1e-5}
    assert {name: made[name] for name in wanted} == wanted


def test_squad_is_trained_as_in_the_bert_paper():
    params = parse("acclip/bert_squad", "bert_base_12l", "adamw", "squad")
    learning_rate = OptimizerFactory(params.trainer.optimizer_config).build_learning_rate()
    assert float(learning_rate(831)) == pytest.approx(5e-5 * 0.9)
    assert float(learning_rate(8310)) == 0
    data = params.task.train_data
    assert (data.seq_length, data.global_batch_size, data.is_training) == (384, 32, True)
    assert not params.task.validation_data.is_training


# The sizes of the originals with their heads: BERT base has 110 M, BERT large 340 M parameters.
@pytest.mark.parametrize(
    ("model", "width", "layers"),
    [
        ("bert_tiny", 128, 2),
        pytest.param("bert_base_6l", 768, 6, marks=pytest.mark.slow),
        pytest.param("bert_base_12l", 768, 12, marks=pytest.mark.slow),
        pytest.param("bert_large_24l", 1024, 24, marks=pytest.mark.slow),
    ],
)
def test_models_have_their_size(model, width, layers):
    params = parse("acclip/bert_pretraining", model)
    built = task_factory.get_task(params.task).build_model()
    built(built.inputs)
    a_layer = 12 * width**2 + 13 * width
    embeddings = (30522 + 512 + 2) * width + 2 * width
    masked_lm = width**2 + 3 * width + 30522
    next_sentence = width**2 + width + 2 * width + 2
    # The encoder has a pooler of its own, which this task does not use.
    pooler = width**2 + width
    total = sum(math.prod(v.shape) for v in built.trainable_variables)
    assert total == layers * a_layer + embeddings + masked_lm + next_sentence + pooler


@pytest.mark.parametrize("experiment", [name for name in EXPERIMENTS if "bert" in name])
def test_a_tiny_model_is_built_for_every_task(experiment):
    params = parse(experiment, "bert_tiny")
    task = task_factory.get_task(params.task)
    assert task.build_model().trainable_variables
    assert params.task == parse(experiment, "bert_tiny").task


def test_numbers_are_predicted_one_by_one():
    config = experiments.bert_sentence_prediction().task
    task = task_factory.get_task(config.replace(model={"num_classes": 1}))
    labels = np.array([1.0, 2.0, 4.0], np.float32)
    outputs = np.array([[1.5], [2.0], [3.0]], np.float32)
    loss = task.build_losses({"label_ids": tf.constant(labels)}, tf.constant(outputs))
    np.testing.assert_allclose(loss, np.mean((outputs[:, 0] - labels) ** 2), rtol=1e-6)
