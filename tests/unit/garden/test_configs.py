import importlib
import pathlib
import sys

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from official.core import exp_factory, task_factory, train_utils
from official.modeling import optimization

from keras_acclip.garden import configs, experiments
from keras_acclip.garden.configs import optimizers, registration
from keras_acclip.tf_keras import ACClip, CClip, Clip, GClip
from tests.tiers import some

NAMES = ["gamma:0", "layer_0/output_layer_norm/beta:0", "layer_0/dense/bias:0", "layer_0/kernel:0"]


def make_optimizer(type, **fields):
    config = optimization.OptimizationConfig(
        {
            "optimizer": {"type": type, type: fields},
            "learning_rate": {"type": "constant", "constant": {"learning_rate": 0.5}},
        }
    )
    factory = optimization.OptimizerFactory(config)
    return factory.build_optimizer(factory.build_learning_rate())


def decayed(optimizer):
    """Applies zero gradients; returns the names of the variables that move."""
    variables = [tf.Variable([1.0, -2.0], name=name.removesuffix(":0")) for name in NAMES]
    optimizer.apply_gradients([(tf.zeros(2), v) for v in variables])
    moved = []
    for variable in variables:
        if not np.array_equal(variable.numpy(), [1.0, -2.0]):
            np.testing.assert_allclose(variable.numpy(), [0.95, -1.9], rtol=1e-6)
            moved.append(variable.name)
    return moved


@pytest.mark.parametrize(
    ("type", "cls", "fields"),
    [
        (
            "acclip",
            ACClip,
            {"beta_1": 0.8, "beta_2": 0.7, "epsilon": 1e-3, "alpha": 1.5, "step_size": "rms"},
        ),
        ("gclip", GClip, {"threshold": 0.3, "momentum": 0.6, "nesterov": True}),
        ("cclip", CClip, {"threshold": 0.3, "momentum": 0.6, "nesterov": True}),
    ],
)
def test_every_field_reaches_the_optimizer(type, cls, fields):
    shared = {"projection_radius": 3.0, "skip_nonfinite": True, "jit_compile": False}
    optimizer = make_optimizer(type, weight_decay_rate=0.25, name="mine", **fields, **shared)
    assert isinstance(optimizer, cls) and isinstance(optimizer, tf_keras.optimizers.Optimizer)
    wanted = {"learning_rate": 0.5, "weight_decay": 0.25, "name": "mine", **fields, **shared}
    config = optimizer.get_config()
    assert {name: config[name] for name in wanted} == pytest.approx(wanted)


def step(optimizer, gradients):
    variables = [tf.Variable([1.0, -2.0], name=name.removesuffix(":0")) for name in NAMES]
    for gradient in gradients:
        pairs = [(tf.constant(gradient) * (i + 1), v) for i, v in enumerate(variables)]
        optimizer.apply_gradients(pairs)
    return np.array([v.numpy() for v in variables])


@pytest.mark.parametrize("type", ["adamw", "sgd", "adam_experimental", "acclip"])
def test_clip_goes_around_the_model_gardens_optimizers(type):
    """What is clipped before it gives the steps of the optimizer alone."""
    gradients = [[3.0, 4.0], [0.03, -0.04]]
    # ‖g‖ is √(1 + 4 + 9 + 16) times that of the first variable's.
    clipped = [[3.0 / 30**0.5, 4.0 / 30**0.5], [0.03, -0.04]]
    fields = {"name": "inner"} | ({"gradient_clip_norm": 0.0} if type == "adamw" else {})
    inner = {"type": type, type: {"name": "inner"}}
    optimizer = make_optimizer("clip", optimizer=inner, threshold=5.0)
    assert isinstance(optimizer, Clip)
    expected = step(make_optimizer(type, **fields), clipped)
    np.testing.assert_allclose(step(optimizer, gradients), expected, rtol=1e-5, atol=1e-6)
    assert int(optimizer.clipping.clipped_steps) == 1


def test_thresholds_that_move_are_configured():
    moving = {"type": "quantile", "quantile": {"q": 0.7, "window": 9, "warmup": 9}}
    inner = {"type": "adamw"}
    for optimizer in (
        make_optimizer("clip", optimizer=inner, moving=moving, by="variable"),
        make_optimizer("gclip", moving=moving),
    ):
        got = optimizer.get_config()["threshold"]
        assert got == {
            "class_name": "MovingQuantile",
            "config": {"q": 0.7, "window": 9, "warmup": 9},
        }
    with pytest.raises(ValueError, match=r"clip.optimizer.type.*Received: 'None'"):
        make_optimizer("clip")


@pytest.mark.parametrize("type", some(["acclip", "gclip", "cclip"], ["acclip"]))
@pytest.mark.parametrize(
    ("include", "exclude"),
    [
        (None, None),
        (None, ["layer_norm", "bias"]),
        (["output_.*beta"], ["layer_norm", "bias"]),
        (["^gamma", "bias:0$"], [".*"]),
        (["bias"], None),
        ([], ["^layer_0"]),
    ],
)
def test_the_same_variables_decay_as_under_adamw(type, include, exclude):
    fields = {
        "weight_decay_rate": 0.1,
        "include_in_weight_decay": include,
        "exclude_from_weight_decay": exclude,
    }
    assert decayed(make_optimizer(type, **fields)) == decayed(make_optimizer("adamw", **fields))


def test_without_a_rate_nothing_decays():
    assert decayed(make_optimizer("acclip", include_in_weight_decay=[".*"])) == []


@pytest.mark.parametrize("field", ["include_in_weight_decay", "exclude_from_weight_decay"])
def test_a_broken_regular_expression_is_named(field):
    with pytest.raises(ValueError, match=rf"`{field}`.*\(unfinished"):
        make_optimizer("acclip", **{field: ["(unfinished"]})


def test_importing_again_registers_nothing_twice():
    for module in (registration, optimizers, experiments):
        importlib.reload(module)
    for module in (registration, optimizers, experiments):
        sys.modules.pop(module.__name__)
    importlib.import_module("keras_acclip.garden.experiments")
    experiment = exp_factory.get_exp_config("acclip/bert_pretraining")
    task = task_factory.get_task(experiment.task)
    assert task.create_optimizer(experiment.trainer.optimizer_config).name == "ACClip"


def test_an_optimizer_of_the_same_name_is_not_used_instead(monkeypatch):
    from official.modeling.optimization import optimizer_factory

    monkeypatch.setitem(optimizer_factory.LEGACY_OPTIMIZERS_CLS, "gclip", tf_keras.optimizers.SGD)
    with pytest.raises(ValueError, match="gclip already registered"):
        registration.register()


def test_files_are_found_by_name_and_by_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    packaged = configs.find("bert_tiny")
    assert configs.find("bert_tiny.yaml") == packaged
    assert "hidden_size: 128" in pathlib.Path(packaged).read_text()
    (tmp_path / "bert_tiny").mkdir()  # Not a file: a model directory, say.
    assert configs.find("bert_tiny") == packaged
    for path in ("bert_tiny.yaml", "data/bert_tiny.yaml"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text("{}")
        assert configs.find(path) == path
    with pytest.raises(FileNotFoundError, match=r"'bert_tyni'.*bert_tiny"):
        configs.find("bert_tyni")


def test_a_config_survives_its_file(tmp_path):
    override = "trainer.optimizer_config.optimizer.acclip.alpha=1.25"
    options = train_utils.ParseConfigOptions(
        "acclip/bert_pretraining", [], params_override=override
    )
    params = train_utils.parse_configuration(options)
    train_utils.serialize_config(params, str(tmp_path))
    options = train_utils.ParseConfigOptions(
        "acclip/bert_pretraining", [str(tmp_path / "params.yaml")]
    )
    again = train_utils.parse_configuration(options)
    assert again.as_dict() == params.as_dict()
    assert again.trainer.optimizer_config.optimizer.acclip.alpha == 1.25
