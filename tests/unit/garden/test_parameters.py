import pytest
from official.core import exp_factory, train_utils
from official.modeling import optimization

from keras_acclip.garden import configs, experiments, flags, parameters
from keras_acclip.garden.errors import ExperimentError

assert experiments
STOCK = ("bert/squad", "bert/sentence_prediction", "resnet_imagenet", "mobilenet_imagenet")


def parse(override="", files=(), experiment="acclip/bert_pretraining"):
    paths = [configs.find(name) for name in files]
    options = train_utils.ParseConfigOptions(experiment, paths, params_override=override)
    return parameters.parse(options)


@pytest.mark.parametrize("experiment", [*flags.EXPERIMENTS, *STOCK])
def test_experiments_are_read_as_the_model_garden_reads_them(experiment):
    override = "trainer.steps_per_loop=7,task.train_data.global_batch_size=6"
    ours = parse(override, experiment=experiment)
    options = train_utils.ParseConfigOptions(experiment, [], params_override=override)
    theirs = train_utils.parse_configuration(options, print_return=False)
    assert ours.as_dict() == theirs.as_dict()
    with pytest.raises(ValueError, match="locked"):
        ours.trainer = None


@pytest.mark.parametrize("name", configs.shipped())
def test_every_shipped_file_is_read(name):
    experiment = "acclip/bert_squad" if name == "squad" else "acclip/bert_pretraining"
    assert parse(files=[name], experiment=experiment).trainer


def test_what_the_help_shows_is_taken():
    for name, value in flags.OVERRIDES.items():
        assert parse(f"{name}={value}")
    for name in flags.OPTIMIZERS:
        place = "trainer.optimizer_config.optimizer"
        inner = f",{place}.clip.optimizer.type=adamw" if name == "clip" else ""
        config = parse(f"{place}.type={name}{inner}").trainer.optimizer_config
        factory = optimization.OptimizerFactory(config)
        assert factory.build_optimizer(factory.build_learning_rate())


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("trainer.train_steps=abc", r"trainer.train_steps must be a whole number. Received: 'abc'"),
        ("trainer.train_steps=1.5", r"trainer.train_steps must be a whole number. Received: 1.5"),
        ("trainer.train_steps=true", r"trainer.train_steps must be a whole number.*True"),
        ("trainer.train_tf_function=5", r"trainer.train_tf_function must be true or false.*5"),
        ("task.scale_loss=perhaps", r"task.scale_loss must be true or false. .*'perhaps'"),
        ("trainer=5", r"trainer must have parameters of its own. Received: 5"),
        ("trainer.nope=1", r"^trainer.nope: no such parameter. trainer has: allow_tpu"),
        ("trainer.train_step=1", r"trainer.train_step: .*; did you mean train_steps\? trainer has"),
        ("nope=1", r"^nope: no such parameter. There are: runtime, task, trainer"),
        (
            "trainer.optimizer_config.optimizer.acclip.beta_1=x",
            r"optimizer.acclip.beta_1 must be a number. Received: 'x'",
        ),
        (
            "trainer.optimizer_config.optimizer.type=adamm",
            r"optimizer.type must be one of acclip, adafactor,.* sgd.*Received: 'adamm'",
        ),
        ("task.model.encoder.type=bret", r"task.model.encoder.type must be one of .*bert.*'bret'"),
        ("{task: {model: {cls_heads: 5}}}", r"task.model.cls_heads must be a list"),
        ("runtime.distribution_strategy=5", r"distribution_strategy must be a text. Received: 5"),
    ],
)
def test_what_cant_be_meant_is_named(override, message):
    with pytest.raises(ExperimentError, match=message):
        parse(override)


@pytest.mark.parametrize(
    ("override", "name", "value"),
    [
        ("trainer.optimizer_config.optimizer.acclip.epsilon=1", "epsilon", 1),
        ("trainer.optimizer_config.optimizer.acclip.epsilon=1e-7", "epsilon", 1e-7),
        ("{trainer: {optimizer_config: {optimizer: {acclip: {name: X}}}}}", "name", "X"),
    ],
)
def test_whole_numbers_and_powers_of_ten_are_numbers(override, name, value):
    assert getattr(parse(override).trainer.optimizer_config.optimizer.acclip, name) == value


def test_the_cpu_may_be_allowed_in_the_place_of_gpus():
    assert parse("runtime.allow_cpu=true").runtime.allow_cpu is True
    # Else the Model Garden's own driver refuses the file of parameters.
    assert "allow_cpu" not in parse().as_dict()["runtime"]
    with pytest.raises(ExperimentError, match="no such parameter"):
        list(map(_raise, parameters.unknown(_stock().runtime, {"allow_cpu": True}, "runtime")))


def _stock():
    return exp_factory.get_exp_config("bert/squad")


def _raise(fault):
    raise ExperimentError(fault)


RATE = "trainer.optimizer_config.learning_rate.polynomial.decay_steps"
WARMUP = "trainer.optimizer_config.warmup.polynomial.warmup_steps"


def schedule(override, files=(), experiment="acclip/bert_squad"):
    """Steps of the training, of its decay and of its warm-up."""
    trainer = parse(override, files, experiment).trainer
    config = trainer.optimizer_config
    rate, warmup = config.learning_rate.get(), config.warmup.get()
    return trainer.train_steps, rate.decay_steps, warmup.warmup_steps


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("", (8310, 8310, 831)),
        ("trainer.train_steps=8310", (8310, 8310, 831)),
        ("trainer.train_steps=1000", (1000, 1000, 100)),
        ("trainer.train_steps=2", (2, 2, 1)),
        (f"trainer.train_steps=1000,{RATE}=500", (1000, 500, 100)),
        (f"trainer.train_steps=1000,{WARMUP}=7", (1000, 1000, 7)),
        (f"trainer.train_steps=1000,{WARMUP}=0", (1000, 1000, 0)),
        (f"{RATE}=500", (8310, 500, 831)),
    ],
)
def test_a_schedule_keeps_its_part_of_the_training(override, expected):
    assert schedule(override) == expected


def test_each_file_stretches_the_schedule_that_it_finds(tmp_path):
    (tmp_path / "data.yaml").write_text("trainer: {train_steps: 831}")
    files = ["squad", str(tmp_path / "data.yaml")]
    assert schedule("", files) == (831, 831, 83)
    assert schedule("trainer.train_steps=1662", files) == (1662, 1662, 166)
    # BERT's second phase is on the schedule of the first.
    phases = [["pretraining_128"], ["pretraining_128", "pretraining_512"]]
    first, second = (schedule("", files, "acclip/bert_pretraining") for files in phases)
    assert first[1:] == second[1:] == (1_000_000, 10_000)


def test_a_wrong_number_of_steps_may_be_overridden(tmp_path):
    (tmp_path / "steps.yaml").write_text("trainer: {train_steps: abc}")
    assert schedule("trainer.train_steps=5", [str(tmp_path / "steps.yaml")])[0] == 5


def test_a_schedule_that_has_no_length_gets_none():
    config = parse("trainer.train_steps=5", experiment="bert/sentence_prediction").trainer
    assert config.optimizer_config.learning_rate.polynomial.decay_steps is None
