import os
import signal
import threading
import time

import pytest

from keras_acclip._utils import processes


def square(number):
    return number * number


def sleep(folder):
    (folder / f"{os.getpid()}").touch()
    time.sleep(600)


def die(_):
    os.kill(os.getpid(), signal.SIGKILL)


def fail(number):
    raise ZeroDivisionError(number)


@pytest.mark.parametrize("count", [1, 2])
def test_every_task_is_done_once(count):
    assert sorted(processes.run(square, [1, 2, 3, 4], count)) == [1, 4, 9, 16]


def test_one_process_is_this_one():
    (pid,) = processes.run(lambda _: os.getpid(), [None], 1)
    assert pid == os.getpid()


def test_what_a_task_raises_is_raised():
    with pytest.raises(ZeroDivisionError):
        list(processes.run(fail, [1, 2], 2))


def test_a_killed_process_is_reported():
    with pytest.raises(processes.KilledError, match="was killed"):
        list(processes.run(die, [1, 2], 2))


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
        with pytest.raises(KeyboardInterrupt):
            next(processes.run(sleep, [tmp_path, tmp_path], 2))
    finally:
        signal.signal(signal.SIGALRM, before)
    for path in tmp_path.iterdir():
        with pytest.raises(ProcessLookupError):
            os.kill(int(path.name), 0)
