import fcntl
import os
import resource
import signal

import pytest

from keras_acclip.garden.data import shards
from keras_acclip.garden.data.pretraining import make_pretraining_data
from keras_acclip.garden.data.shards import DataError
from tests.unit.garden.samples import contents, small

# The fixtures run once, in one process.
pytestmark = pytest.mark.xdist_group("garden data")


def test_a_folder_of_other_settings_is_refused(made, corpus, tmp_path):
    before = contents(made[0])
    with pytest.raises(DataError, match=r"other settings \(num_shards: 3 → 4\)"):
        make_pretraining_data(corpus, made[0], **small() | {"num_shards": 4})
    assert contents(made[0]) == before
    (tmp_path / "old.tfrecord").write_bytes(b"")
    with pytest.raises(DataError, match=r"holds TFRecords, but no settings.json"):
        make_pretraining_data(corpus, tmp_path, **small())


def test_a_broken_settings_file_is_named(made, corpus, tmp_path):
    (tmp_path / "settings.json").write_text("{")
    with pytest.raises(DataError, match=r"settings.json: can't be read"):
        make_pretraining_data(corpus, tmp_path, **small())


def test_two_processes_do_not_share_a_folder(corpus, tmp_path):
    with (tmp_path / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(DataError, match="another process is making data here"):
            make_pretraining_data(corpus, tmp_path, **small())


def test_an_output_that_cannot_be_written_is_named(corpus, tmp_path):
    (tmp_path / "file").write_text("")
    for output in (tmp_path / "file", tmp_path / "file" / "folder"):
        with pytest.raises(DataError, match=r"file.*: can't be written"):
            make_pretraining_data(corpus, output, **small())
    with pytest.raises(DataError, match="read , "):
        make_pretraining_data(corpus, tmp_path / "a,b", **small())


def test_a_full_disk_leaves_no_half_shard(made, corpus, tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(DataError, match=r"train-00000-of-00003.tfrecord: can't be written"):
            make_pretraining_data(corpus, tmp_path, **small())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not contents(tmp_path) and not list(tmp_path.glob("*.partial"))
    make_pretraining_data(corpus, tmp_path, **small())
    assert contents(tmp_path) == contents(made[0])


@pytest.mark.slow
def test_a_dead_worker_is_reported(tmp_path):
    tasks = {tmp_path / f"{i}.tfrecord": None for i in range(2)}
    with pytest.raises(DataError, match="a process was killed while it made a shard"):
        shards.make_missing(_die, tasks, 2, "train")


def _die(path, task):
    os.kill(os.getpid(), signal.SIGKILL)
