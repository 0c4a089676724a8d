import pytest
import yaml

from keras_acclip.garden import model_dirs
from keras_acclip.garden.errors import ExperimentError

PARAMS = {
    "task": {
        "model": {"encoder": {"type": "bert", "bert": {"num_layers": 2}}, "heads": [{"a": 1}]},
        "train_data": {"global_batch_size": 32, "input_path": "a", "seed": 0},
        "validation_data": {"input_path": "b"},
        "init_checkpoint": "",
    },
    "trainer": {
        "train_steps": 100,
        "gradient_accumulation_steps": 1,
        "optimizer_config": {"optimizer": {"type": "acclip", "acclip": {"beta_1": 0.9}}},
    },
    "runtime": {"num_gpus": 0},
}


def changed(path, value):
    params = yaml.safe_load(yaml.safe_dump(PARAMS))
    *parents, name = path.split(".")
    at = params
    for parent in parents:
        at = at[parent]
    at[name] = value
    return params


@pytest.fixture
def trained(tmp_path):
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(PARAMS))
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "ckpt-10"')
    return str(tmp_path)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("trainer.train_steps", 200),
        ("task.validation_data.input_path", "c"),
        ("runtime.num_gpus", 4),
        ("task.model.heads", ({"a": 1},)),
    ],
)
def test_a_run_goes_on_to_a_later_end_and_on_other_devices(trained, path, value):
    model_dirs.check(changed(path, value), trained, "train")


CHANGES = [
    ("task.model.encoder.bert.num_layers", 6, "2 → 6"),
    ("task.train_data.global_batch_size", 64, "32 → 64"),
    ("task.train_data.input_path", "z", "'a' → 'z'"),
    ("task.train_data.seed", 1, "0 → 1"),
    ("task.init_checkpoint", "d", "'' → 'd'"),
    ("trainer.optimizer_config.optimizer", {"type": "adamw"}, "'acclip' → 'adamw'"),
    ("trainer.optimizer_config.optimizer.acclip.beta_1", 0.8, "0.9 → 0.8"),
    ("task.model.new", 5, "None → 5"),
    ("trainer.gradient_accumulation_steps", 2, "1 → 2"),
]


@pytest.mark.parametrize(("path", "value", "shown"), CHANGES)
@pytest.mark.parametrize("mode", ["train", "train_and_eval"])
def test_another_experiment_is_refused(trained, path, value, shown, mode):
    with pytest.raises(ExperimentError) as error:
        model_dirs.check(changed(path, value), trained, mode)
    for part in (path, shown, "--fresh", "--allow_changed", "task.init_checkpoint", trained):
        assert part in str(error.value)
    assert "\n" not in str(error.value)


def test_another_optimizer_is_told_by_its_name_alone(trained):
    other = {"type": "adamw", "adamw": {"beta_1": 0.9}}
    with pytest.raises(ExperimentError) as error:
        model_dirs.check(changed("trainer.optimizer_config.optimizer", other), trained, "train")
    assert "'acclip' → 'adamw'" in str(error.value) and "beta_1" not in str(error.value)


def test_a_section_that_only_one_has_is_told_by_its_size(trained):
    with pytest.raises(ExperimentError, match=r"task.model.heads_of None → \{2 settings\}"):
        model_dirs.check(changed("task.model.heads_of", {"a": 1, "b": 2}), trained, "train")


@pytest.mark.parametrize(("path", "value", "_"), CHANGES)
def test_what_is_allowed_may_change(trained, path, value, _):
    for allowed in (path, path.rpartition(".")[0]):
        model_dirs.check(changed(path, value), trained, "train", [allowed])
    with pytest.raises(ExperimentError, match=r"no such parameter; did you mean "):
        model_dirs.check(changed(path, value), trained, "train", [path[:-1]])


def with_data(folder, content, name="0.tfrecord"):
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(content)
    return changed("task.train_data.input_path", f"{folder}/*.tfrecord")


def train_on(params, folder):
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    model_dirs.keep_data(params, str(folder))


def test_moved_data_are_the_same_and_others_are_refused(trained, tmp_path):
    train_on(with_data(tmp_path / "a", b"one" * 9), tmp_path)
    model_dirs.check(with_data(tmp_path / "b", b"one" * 9), trained, "train")
    for other in (
        with_data(tmp_path / "c", b"two" * 9),
        with_data(tmp_path / "d", b"one" * 8),
        with_data(tmp_path / "e", b"one" * 9, "1.tfrecord"),
    ):
        with pytest.raises(ExperimentError, match=r"input_path '.*/a/\*.tfrecord' → '.*tfrecord'"):
            model_dirs.check(other, trained, "train")
        model_dirs.check(other, trained, "train", ["task.train_data.input_path"])
        model_dirs.check(other, trained, "eval")
    changed_in_place = with_data(tmp_path / "a", b"two" * 9)
    with pytest.raises(ExperimentError, match=r"input_path holds other data than it did\. Name"):
        model_dirs.check(changed_in_place, trained, "train")
    model_dirs.check(changed_in_place, trained, "train", ["task.train_data"])


@pytest.mark.parametrize("whole", [2**20, 100], ids=["whole", "in pieces"])
@pytest.mark.parametrize("place", [0, 30_000, 59_999])
def test_data_that_differ_late_are_others(trained, tmp_path, monkeypatch, whole, place):
    monkeypatch.setattr(model_dirs, "_WHOLE", whole)
    content = bytearray(60_000)
    train_on(with_data(tmp_path / "a", content), tmp_path)
    model_dirs.check(with_data(tmp_path / "b", content), trained, "train")
    content[place] = 1
    with pytest.raises(ExperimentError, match=r"input_path"):
        model_dirs.check(with_data(tmp_path / "a", content), trained, "train")


def test_a_longer_training_may_have_a_longer_schedule(trained, tmp_path):
    def longer(steps, decay):
        params = yaml.safe_load(yaml.safe_dump(PARAMS))
        rate = {"type": "polynomial", "polynomial": {"decay_steps": decay}}
        params["trainer"]["optimizer_config"]["learning_rate"] = rate
        return params | {"trainer": params["trainer"] | {"train_steps": steps}}

    (tmp_path / "params.yaml").write_text(yaml.safe_dump(longer(100, 90)))
    model_dirs.check(longer(200, 180), trained, "train")
    model_dirs.check(longer(200, 90), trained, "train")
    for steps, decay in ((200, 150), (100, 180)):
        with pytest.raises(ExperimentError, match=r"polynomial.decay_steps 90 → "):
            model_dirs.check(longer(steps, decay), trained, "train")


def test_a_training_of_the_model_gardens_own_driver_goes_on(trained, tmp_path):
    theirs = yaml.safe_load(yaml.safe_dump(PARAMS))
    del theirs["trainer"]["gradient_accumulation_steps"]
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(theirs))
    model_dirs.check(PARAMS, trained, "train")
    with pytest.raises(ExperimentError, match=r"gradient_accumulation_steps None → 2"):
        model_dirs.check(changed("trainer.gradient_accumulation_steps", 2), trained, "train")


def test_a_training_goes_on_without_the_checkpoint_that_it_began_from(trained, tmp_path):
    began = changed("task.init_checkpoint", "pretrained")
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(began))
    model_dirs.check(began, trained, "train")
    model_dirs.check(PARAMS, trained, "train")
    with pytest.raises(ExperimentError, match=r"task.init_checkpoint 'pretrained' → 'other'"):
        model_dirs.check(changed("task.init_checkpoint", "other"), trained, "train")


def test_what_the_data_were_must_be_readable(trained, tmp_path):
    (tmp_path / "data.json").write_text("[1")
    with pytest.raises(ExperimentError, match=r"data.json can't be read"):
        model_dirs.check(PARAMS, trained, "train")


def test_evaluation_needs_the_same_model_only(trained):
    model_dirs.check(changed("trainer.optimizer_config", {}), trained, "eval")
    with pytest.raises(ExperimentError, match=r"another model: .*num_layers 2 → 6"):
        model_dirs.check(changed("task.model.encoder.bert.num_layers", 6), trained, "eval")


def test_a_folder_without_checkpoints_is_anyones(trained, tmp_path):
    (tmp_path / "checkpoint").unlink()
    model_dirs.check(changed("task.train_data.seed", 1), trained, "train")


def test_checkpoints_of_an_unknown_experiment_are_evaluated_and_not_trained(trained, tmp_path):
    (tmp_path / "params.yaml").unlink()
    model_dirs.check(PARAMS, trained, "eval")
    with pytest.raises(ExperimentError, match=r"no params.yaml says of what.*--fresh"):
        model_dirs.check(PARAMS, trained, "train_and_eval")


@pytest.mark.parametrize("name", ["params.yaml", "data.json"])
def test_a_folder_in_the_place_of_a_file_is_named(trained, tmp_path, name):
    (tmp_path / name).unlink(missing_ok=True)
    (tmp_path / name).mkdir()
    with pytest.raises(ExperimentError, match=rf"{name} can't be read"):
        model_dirs.check(PARAMS, trained, "train")


@pytest.mark.parametrize("content", ["- 1", "a: [", "5"])
def test_parameters_that_cant_be_read_are_named(trained, tmp_path, content):
    (tmp_path / "params.yaml").write_text(content)
    with pytest.raises(ExperimentError, match=r"params.yaml can't be read"):
        model_dirs.check(PARAMS, trained, "train")


def test_many_changes_are_cut_short(trained):
    params = changed("task.train_data", {f"field {i}": i for i in range(40)})
    with pytest.raises(ExperimentError, match=r"and 38 more"):
        model_dirs.check(params, trained, "train")


def test_clearing_removes_a_runs_own_files_alone(tmp_path):
    own = ("checkpoint", "ckpt-10.index", "ckpt-10.data-00000-of-00001", "metrics.json")
    for name in (
        *own,
        "params.yaml",
        "data.json",
        "operative_config.train.gin",
        "notes.txt",
        "train/e",
        "x/y",
    ):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    (tmp_path / "noise").mkdir()
    model_dirs.clear(str(tmp_path), ("train", "validation", ""))
    assert {path.name for path in tmp_path.iterdir()} == {"notes.txt", "x"}
