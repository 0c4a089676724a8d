import functools
import os
import signal
import threading
import time

import pytest

from keras_acclip._utils import processes


def square(number):
    return number * number


def touch(folder):
    (folder / f"{os.getpid()}").touch()


def sleep(folder):
    touch(folder)
    time.sleep(600)


def pause(seconds):
    time.sleep(seconds)
    return seconds


def die(_):
    os.kill(os.getpid(), signal.SIGKILL)


def fail(number):
    raise ZeroDivisionError(number)


@pytest.mark.parametrize("count", [1, 2])
def test_every_task_is_done_once(count):
    with processes.Pool(count) as pool:
        assert sorted(pool.map(square, [1, 2, 3, 4])) == [1, 4, 9, 16]
        assert list(pool.map(square, [])) == []
        assert pool.call(square, 5) == 25
        assert sorted(pool.map(square, (n for n in (6, 7)))) == [36, 49]
    assert sorted(processes.run(square, [1, 2, 3, 4], count)) == [1, 4, 9, 16]
    assert list(processes.run(square, [], count)) == []


def test_one_process_is_this_one():
    with processes.Pool(1, prepare=pytest.fail) as pool:
        assert pool.call(lambda: os.getpid()) == os.getpid()
        assert list(pool.map(lambda _: os.getpid(), [None])) == [os.getpid()]


def test_processes_get_ready_before_there_is_work(tmp_path):
    with processes.Pool(2, functools.partial(touch, tmp_path)) as pool:
        while len(list(tmp_path.iterdir())) < 2:
            time.sleep(0.05)
        pids = {pool.call(os.getpid) for _ in range(4)}
    assert pids <= {int(path.name) for path in tmp_path.iterdir()}
    assert os.getpid() not in pids


def test_what_a_task_raises_is_raised():
    with processes.Pool(2) as pool:
        with pytest.raises(ZeroDivisionError):
            list(pool.map(fail, [1, 2]))
        with pytest.raises(ZeroDivisionError):
            pool.call(fail, 1)


def test_a_killed_process_is_reported():
    with processes.Pool(2) as pool, pytest.raises(processes.KilledError, match="was killed"):
        list(pool.map(die, [1, 2]))
    with processes.Pool(2) as pool, pytest.raises(processes.KilledError, match="was killed"):
        pool.call(die, 1)


def test_work_that_nobody_waits_for_ends(tmp_path):
    started = time.perf_counter()
    with processes.Pool(2) as pool:
        results = pool.map(pause, [0, 600])
        assert next(results) == 0
    assert time.perf_counter() - started < 60


def test_a_caller_that_stops_ends_the_work(tmp_path):
    def interrupt(*_):
        raise KeyboardInterrupt

    def wait_and_interrupt():
        while not any(tmp_path.iterdir()):
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGALRM)

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        threading.Thread(target=wait_and_interrupt, daemon=True).start()
        with pytest.raises(KeyboardInterrupt), processes.Pool(2) as pool:
            next(pool.map(sleep, [tmp_path, tmp_path]))
    finally:
        signal.signal(signal.SIGALRM, before)
    for path in tmp_path.iterdir():
        with pytest.raises(ProcessLookupError):
            os.kill(int(path.name), 0)
