"""Fields that are added to the Model Garden's configs (`keras_acclip._utils.compat`)."""

import copy
import dataclasses
import pickle

import pytest
from official.modeling.hyperparams import base_config, oneof

from keras_acclip._utils import compat


def test_fields_are_added_to_a_config_class_its_subclasses_and_older_instances():
    @dataclasses.dataclass
    class Part(base_config.Config):
        size: int = 1

    @dataclasses.dataclass
    class Choice(oneof.OneOfConfig):
        old: Part = dataclasses.field(default_factory=Part)

    @dataclasses.dataclass
    class Mine(Choice):
        mine: Choice = dataclasses.field(default_factory=Choice)
        numbers: tuple[int, ...] = (1, 2)

    @dataclasses.dataclass
    class Own(Choice):
        new: None = None

    def older():
        return copy.copy(before)

    before, own = Choice(type="old"), Own()
    mine, locked = Mine(type="old"), Choice(type="old")
    locked.lock()
    compat.add_fields(Choice, {"new": (Part, lambda: Part(size=2))})
    compat.add_fields(Choice, {"new": (Part, Part)})  # There already.

    assert older() == Choice(type="old") != Choice(type="old", new=Part(size=3))
    assert "new=" in repr(Choice())
    assert "new" in older() and older().new == Part(size=2)
    assert older().as_dict() == {"type": "old", "old": {"size": 1}}
    for config in (older(), copy.deepcopy(before), Choice(), Choice({"new": {"size": 2}})):
        config.override({"type": "new"})
        assert config.get() == Part(size=2)
        config.override({"new": {"size": 5}})
        assert config.as_dict() == {"type": "new", "new": {"size": 5}}
        with pytest.raises(KeyError, match="sise"):
            config.override({"new": {"sise": 5}})
    chosen = older()
    chosen.type = "new"
    assert chosen.get() == Part(size=2)
    chosen.new = {"size": 4}
    assert type(chosen.new) is Part and chosen.get().size == 4
    assert older().replace(type="new").get() == Part(size=2)
    with pytest.raises(AttributeError):
        _ = before.nothing

    assert locked.new == Part(size=2)
    with pytest.raises(ValueError, match="locked"):
        locked.type = "new"

    for config in (mine, Mine(), Mine(new=Part(size=2))):
        config.override({"mine": {"new": {"size": 3}}})
        assert (config.new.size, config.mine.new.size, config.numbers) == (2, 3, (1, 2))
    assert Mine(new=Part(size=7)) != Mine()
    assert {f.name for f in dataclasses.fields(Mine)} == {"type", "old", "mine", "numbers", "new"}
    assert own.new is None and Own().new is None and Own() == own


@dataclasses.dataclass
class Known(base_config.Config):
    """One that can be pickled, as it is found by its name."""

    old: int = 1


def test_added_fields_are_pickled():
    before, pickled_before = Known(), pickle.dumps(Known())
    compat.add_fields(Known, {"new": (int, lambda: 2)})
    for config in (before, pickle.loads(pickled_before), pickle.loads(pickle.dumps(Known(new=2)))):
        assert config.as_dict() == {"old": 1, "new": 2}
    assert pickle.loads(pickle.dumps(Known(new=3))).new == 3
