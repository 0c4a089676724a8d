"""The optimizers in experiments that are not this package's."""

import copy
import subprocess
import sys

import pytest
import tensorflow as tf
import tf_keras
import yaml
from official.core import config_definitions, exp_factory, task_factory, train_utils
from official.modeling import optimization

from keras_acclip.garden import experiments, runner  # noqa: F401
from keras_acclip.tf_keras import ACClip, CClip, Clip, GClip
from tests.tiers import some

CLASSES = {"acclip": ACClip, "gclip": GClip, "cclip": CClip, "clip": Clip}
BERT = {
    "trainer": {
        "optimizer_config": {
            "learning_rate": {"polynomial": {"decay_steps": 100}},
            "warmup": {"polynomial": {"warmup_steps": 10}},
        }
    }
}
STOCK = {
    "bert/sentence_prediction": BERT,
    "bert/pretraining": BERT,
    "bert/squad": BERT,
    "resnet_imagenet": {},
    "mobilenet_imagenet": {},
    "seg_deeplabv3_pascal": {},
    "wmt_transformer/large": {"task": {"sentencepiece_model_path": "a path"}},
}


def parse(experiment, override, files=()):
    options = train_utils.ParseConfigOptions(
        experiment, [str(file) for file in files], params_override=override
    )
    return train_utils.parse_configuration(options, print_return=False)


def optimizer_of(params):
    task_config = exp_factory.get_exp_config("bert/sentence_prediction").task
    task = task_factory.get_task(task_config)
    made = task.create_optimizer(params.trainer.optimizer_config, params.runtime)
    ema = params.trainer.optimizer_config.ema
    return made._optimizer if ema is not None else made


@pytest.mark.parametrize("type", CLASSES)
@pytest.mark.parametrize("experiment", STOCK)
def test_stock_experiments_take_them_by_one_override(experiment, type, tmp_path):
    base = STOCK[experiment]
    path = tmp_path / "base.yaml"
    path.write_text(yaml.safe_dump(base))
    line = f"trainer.optimizer_config.optimizer.type={type}"
    if type == "clip":
        line += ",trainer.optimizer_config.optimizer.clip.optimizer.type=adamw"
    params = parse(experiment, line, [path])
    assert params.trainer.optimizer_config.optimizer.as_dict().keys() == {"type", type}
    assert isinstance(optimizer_of(params), CLASSES[type])


@pytest.mark.parametrize("experiment", some(["bert/squad", "resnet_imagenet"], ["bert/squad"]))
def test_a_yaml_file_sets_their_fields(experiment, tmp_path):
    path = tmp_path / "mine.yaml"
    content = copy.deepcopy(STOCK[experiment])
    choice = {"type": "acclip", "acclip": {"alpha": 1.5, "weight_decay_rate": 0.25}}
    content.setdefault("trainer", {}).setdefault("optimizer_config", {})["optimizer"] = choice
    path.write_text(yaml.safe_dump(content))
    params = parse(experiment, "", [path])
    made = optimizer_of(params).get_config()
    assert (made["alpha"], made["weight_decay"]) == (1.5, 0.25)
    # What a run writes beside its checkpoints gives the same again.
    train_utils.serialize_config(params, str(tmp_path))
    assert parse(experiment, "", [tmp_path / "params.yaml"]).as_dict() == params.as_dict()
    misspelt = "trainer.optimizer_config.optimizer.acclip.alhpa=1"
    with pytest.raises(KeyError, match="alhpa"):
        parse(experiment, misspelt)


def test_clip_does_not_go_around_itself():
    config = optimization.OptimizerConfig()
    assert config.clip.optimizer.clip is None
    assert config.clip.optimizer.adamw.gradient_clip_norm == 0.0
    assert config.adamw.gradient_clip_norm == 1.0


def test_a_user_s_own_experiment_takes_them_and_trains():
    @exp_factory.register_config_factory("test/mine")
    def mine():
        return config_definitions.ExperimentConfig(
            task=exp_factory.get_exp_config("bert/sentence_prediction").task,
            trainer=config_definitions.TrainerConfig(
                optimizer_config=optimization.OptimizationConfig(
                    {
                        "optimizer": {"type": "adam"},
                        "learning_rate": {"type": "constant", "constant": {"learning_rate": 0.5}},
                    }
                )
            ),
        )

    params = parse("test/mine", "trainer.optimizer_config.optimizer.type=acclip")
    model = tf_keras.Sequential([tf_keras.layers.Dense(1)])
    x = tf.constant([[1.0, 2.0]])
    model.build(x.shape)
    before = model.get_weights()
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(model(x) ** 2)
    gradients = tape.gradient(loss, model.trainable_variables)
    optimizer_of(params).apply_gradients(zip(gradients, model.trainable_variables, strict=True))
    assert (model.get_weights()[0] != before[0]).all()


IN_ANY_ORDER = """
import sys
{first}
assert "tensorflow" not in sys.modules or {loaded}
{second}
from official.modeling import optimization
optimizer = optimization.OptimizerConfig(type="acclip").get()
assert type(optimizer).__module__ == "keras_acclip.garden.configs.optimizers"
"""


@pytest.mark.slow
@pytest.mark.parametrize("garden_first", [True, False])
def test_one_import_is_enough_before_and_after_the_model_garden(garden_first):
    lines = ["import keras_acclip.garden", "import official.modeling.optimization"]
    first, second = lines if garden_first else lines[::-1]
    code = IN_ANY_ORDER.format(first=first, second=second, loaded=not garden_first)
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
