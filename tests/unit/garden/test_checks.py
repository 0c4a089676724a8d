import math

import pytest
import tensorflow as tf
from official.core import exp_factory

from keras_acclip.garden import checks
from keras_acclip.garden.errors import ExperimentError
from tests.integration.garden import runs


def test_an_optimizers_values_are_checked_by_itself():
    def trainer(**optimizer):
        changes = {"trainer": {"optimizer_config": {"optimizer": optimizer}}}
        return runs.parse(changes, files=("cpu", "acclip")).trainer

    checks.check_optimizer(trainer())
    checks.check_optimizer(trainer(type="adamw"))
    with pytest.raises(ExperimentError, match=r"trainer.optimizer_config: Argument `alpha`"):
        checks.check_optimizer(trainer(type="acclip", acclip={"alpha": -1.0}))
    with pytest.raises(ExperimentError, match=r"optimizer.type is not set"):
        checks.check_optimizer(trainer(type=None))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "TF_CONFIG does not describe this worker: Expecting"),
        ("[]", "TF_CONFIG does not describe"),
        ('{"cluster": {"worker": ["a:1"]}}', "it has no 'task'"),
        (
            '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 7}}',
            "there is no worker 7 in its cluster",
        ),
    ],
)
def test_a_cluster_must_be_described(monkeypatch, text, message):
    monkeypatch.setenv("TF_CONFIG", text)
    runtime = runs.parse({"runtime": {"distribution_strategy": "multi_worker_mirrored"}}).runtime
    with pytest.raises(ExperimentError, match=message):
        checks.strategy(runtime)


def test_batches_must_be_whole_micro_batches(records):
    params = runs.parse(runs.overrides({"input_path": records}))
    strategy = checks.strategy(params.runtime)
    checks.check_accumulation(params, strategy)
    params = params.replace(trainer={"gradient_accumulation_steps": 3})
    with pytest.raises(ExperimentError, match=r"gradient_accumulation_steps=3 micro-batches"):
        checks.check_accumulation(params, strategy)


def test_fresh_does_not_remove_what_a_training_starts_from(tmp_path):
    config = runs.parse({}).task
    for inside in (tmp_path / "runs/a", tmp_path / "runs/a/ckpt-10"):
        with pytest.raises(ExperimentError, match="which --fresh clears"):
            checks.check_outside(
                config.replace(init_checkpoint=str(inside)), str(tmp_path / "runs/a")
            )
    for outside in ("", tmp_path / "runs", tmp_path / "runs/ab/ckpt-1"):
        checks.check_outside(config.replace(init_checkpoint=str(outside)), str(tmp_path / "runs/a"))


def test_gpus_that_arent_there_stop_the_run():
    if tf.config.list_physical_devices("GPU"):
        pytest.skip("there are GPUs")
    for name, count in (("gpu", 1), ("gpus", 8), ("multi_worker", 8)):
        runtime = runs.parse({}, files=[name]).runtime
        with pytest.raises(ExperimentError, match=rf"num_gpus={count} .*has no GPU.*allow_cpu"):
            checks.available(runtime)
        allowed = runtime.replace()
        allowed.override({"allow_cpu": True}, is_strict=False)
        assert checks.available(allowed).num_gpus == 0
    runtime = runs.parse({}).runtime
    assert checks.available(runtime) == runtime


def test_a_strategy_that_isnt_there_is_named():
    runtime = runs.parse({"runtime": {"distribution_strategy": "mirorred"}}).runtime
    with pytest.raises(ExperimentError, match=r"distribution_strategy='mirorred': Unrecogni"):
        checks.strategy(runtime)


def test_a_checkpoint_to_start_from_must_be_there(tmp_path):
    (tmp_path / "empty").mkdir()
    checkpoint = tf.train.Checkpoint(v=tf.Variable(0.0)).save(str(tmp_path / "some/ckpt"))
    config = runs.parse({}).task
    for good in ("", checkpoint, str(tmp_path / "some")):
        checks.check_initial(config.replace(init_checkpoint=good))
    (tmp_path / "broken").mkdir()
    for name in ("checkpoint", "ckpt-1.data-00000-of-00001"):
        (tmp_path / "broken" / name).write_bytes((tmp_path / "some" / name).read_bytes())
    (tmp_path / "broken/ckpt-1.index").touch()
    for bad, message in (
        ("empty", "holds no checkpoint"),
        ("nowhere", "neither such a folder"),
        ("some/ckpt-1.index", f"a file of a checkpoint; the checkpoint is {checkpoint}"),
        ("some/ckpt-1.data-00000-of-00001", f"the checkpoint is {checkpoint}"),
        ("broken/ckpt-1", "broken/ckpt-1 can't be read"),
        ("broken", "can't be read"),
    ):
        path = str(tmp_path / bad)
        with pytest.raises(ExperimentError, match=rf"task.init_checkpoint={path}: .*{message}"):
            checks.check_initial(config.replace(init_checkpoint=path))


def test_intervals_are_whole_loops():
    def trainer(loop, summary):
        return runs.parse(
            {"trainer": {"steps_per_loop": loop, "summary_interval": summary}}
        ).trainer

    for loop, summary in ((1, 1), (10, 10), (10, 30)):
        checks.check_intervals(trainer(loop, summary))
    for loop, summary in ((10, 5), (10, 15), (10, 0), (10, -10)):
        with pytest.raises(
            ExperimentError,
            match=rf"trainer.summary_interval must be a multiple of trainer.steps_per_loop={loop}. "
            rf"Received: {summary}$",
        ):
            checks.check_intervals(trainer(loop, summary))
    for name in ("train_steps", "checkpoint_interval", "validation_interval"):
        broken = runs.parse({"trainer": {name: 0}}).trainer
        with pytest.raises(ExperimentError, match=rf"trainer.{name} must be at least 1"):
            checks.check_intervals(broken)
    for loop in (0, -1):
        with pytest.raises(ExperimentError, match=rf"steps_per_loop must .* Received: {loop}$"):
            checks.check_intervals(trainer(loop, 10))


def test_a_number_that_a_schedule_needs_is_named():
    checks.check_schedule(runs.parse({}).trainer)
    stock = exp_factory.get_exp_config("bert/sentence_prediction").trainer
    with pytest.raises(ExperimentError, match=r"decay_steps and .*warmup_steps are not set. The"):
        checks.check_schedule(stock)
    for value in (math.inf, -math.inf, math.nan):
        rate = {"polynomial": {"initial_learning_rate": value}}
        changes = {"trainer": {"optimizer_config": {"learning_rate": rate}}}
        with pytest.raises(ExperimentError, match=r"initial_learning_rate must be a finite number"):
            checks.check_schedule(runs.parse(changes).trainer)
    schedule = {"polynomial": {"initial_learning_rate": None}}
    changes = {"trainer": {"optimizer_config": {"learning_rate": schedule}}}
    with pytest.raises(ExperimentError, match=r"learning_rate.polynomial.initial_learning_rate "):
        checks.check_schedule(runs.parse(changes).trainer)
