import errno
import os
import pathlib
import shutil

import numpy as np
import pytest
import tensorflow as tf

from keras_acclip.garden import checkpoints, runner
from keras_acclip.garden.checkpoints import CheckpointError, last_checkpoint
from tests.integration.garden import runs


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A directory with checkpoints at steps 10 and 20."""
    folder = tmp_path_factory.mktemp("finished")
    checkpoint = tf.train.Checkpoint(v=tf.Variable(np.random.default_rng(0).random(5000)))
    manager = tf.train.CheckpointManager(checkpoint, str(folder), max_to_keep=5)
    for number in (10, 20):
        manager.save(number)
    return folder


@pytest.mark.parametrize("damage", ["flipped", "truncated", "no data", "no index", "state"])
def test_an_unreadable_checkpoint_is_named(finished, damage, tmp_path):
    folder = pathlib.Path(shutil.copytree(finished, tmp_path / "model"))
    assert last_checkpoint(folder) == str(folder / "ckpt-20")
    shards, index = folder / "ckpt-20.data-00000-of-00001", folder / "ckpt-20.index"
    if damage == "flipped":
        content = bytearray(shards.read_bytes())
        content[1000] ^= 1
        shards.write_bytes(content)
    elif damage == "truncated":
        shards.write_bytes(shards.read_bytes()[:-9])
    elif damage == "state":
        (folder / "checkpoint").write_bytes(b"\x00\x01broken")
    else:
        (shards if damage == "no data" else index).unlink()
    content = {path: path.read_bytes() for path in folder.iterdir()}
    good = "ckpt-20" if damage == "state" else "ckpt-10"
    what = "checkpoint, which names" if damage == "state" else "ckpt-20 cannot be read: "
    with pytest.raises(CheckpointError, match=what) as error:
        runner.run(runs.parse({}), "train", str(folder))
    assert f"last good checkpoint is {folder / good}." in str(error.value)
    assert {path: path.read_bytes() for path in folder.iterdir()} == content
    # The way out that the message shows.
    assert "\n" not in str(error.value)
    (folder / "checkpoint").write_text(str(error.value).partition("checkpoint: ")[2])
    assert last_checkpoint(folder) == str(folder / good)


def test_without_any_good_checkpoint_it_says_so(finished, tmp_path):
    folder = pathlib.Path(shutil.copytree(finished, tmp_path / "model"))
    for shard in folder.glob("*.data-*"):
        shard.unlink()
    with pytest.raises(CheckpointError, match="no other checkpoint"):
        last_checkpoint(folder)


def test_there_may_be_no_checkpoint(tmp_path):
    assert last_checkpoint(tmp_path) is None


@pytest.mark.parametrize(
    "error",
    [
        tf.errors.ResourceExhaustedError(None, None, f"x; {os.strerror(errno.ENOSPC)}"),
        OSError(errno.ENOSPC, "x"),
        OSError(errno.EDQUOT, "x"),
    ],
)
def test_a_full_disk_is_told_from_other_errors(error):
    assert checkpoints.is_full_disk(error)
    assert not checkpoints.is_full_disk(tf.errors.ResourceExhaustedError(None, None, "OOM"))
    assert not checkpoints.is_full_disk(OSError(errno.EACCES, "x"))


def test_halves_of_checkpoints_are_removed(finished, tmp_path):
    folder = pathlib.Path(shutil.copytree(finished, tmp_path / "model"))
    whole = sorted(folder.iterdir())
    (folder / "ckpt-30_temp").mkdir()
    (folder / "ckpt-30_temp/part-00000-of-00001.data").write_bytes(b"half")
    checkpoints.remove_halves(folder)
    assert sorted(folder.iterdir()) == whole
