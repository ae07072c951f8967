"""One Snakemake a study, one process a job, and nobody kept out by a process that was killed."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from memedynamics import lock
from memedynamics.errors import InputError

HOLDS = "import sys, time, pathlib; from memedynamics import lock; root = pathlib.Path(sys.argv[1]); "
STUDY = HOLDS + "held = lock.hold_study(root); print('held', flush=True); time.sleep(60)"
JOB = HOLDS + "\nwith lock.alone(root / 'job.lock', sys.argv[2]): print('held', flush=True); sys.stdin.readline()"
NO_LOCKS = """
import errno, fcntl, os
def flock(*_):
    raise OSError(errno.{error}, os.strerror(errno.{error}))
fcntl.flock = flock
"""
PATH = {**os.environ, "PYTHONPATH": os.path.dirname(os.path.dirname(lock.__file__))}


@contextmanager
def process(code, *arguments):
    """A process that runs `code` up to where it says that it holds its lock; killed at the end."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], env=PATH, **pipes) as other:
        assert other.stdout.readline() == "held\n"
        yield other
        other.send_signal(signal.SIGKILL)


def test_a_second_snakemake_is_told_of_the_first(tmp_path):
    with process(STUDY, tmp_path) as other:
        with pytest.raises(InputError, match=rf"{tmp_path}: process {other.pid} on .* is at work on this study; wait"):
            lock.hold_study(tmp_path)
        lock.hold_study(tmp_path / "another").close()
    lock.hold_study(tmp_path).close()


def test_whether_a_study_has_been_held(tmp_path):
    """By one that is at work, and by one that was killed."""
    assert not lock.has_been_held(tmp_path)
    with process(STUDY, tmp_path):
        assert lock.has_been_held(tmp_path)
    assert lock.has_been_held(tmp_path)


def test_who_has_a_study_says_where_its_log_is(tmp_path):
    """For who watches; the one that is refused is told of the process alone."""
    with lock.hold_study(tmp_path, str(tmp_path.parent / ".snakemake/log/x.log")):
        who, log = (tmp_path / lock.RUNNING).read_text().splitlines()
        assert who.startswith(f"process {os.getpid()} on ") and log == "../.snakemake/log/x.log"
        with pytest.raises(
            InputError, match=rf"^{tmp_path}: process {os.getpid()} on \S+ is at work on this study; wait"
        ):
            lock.hold_study(tmp_path)


def test_only_what_a_killed_snakemake_left_of_this_study_is_forgotten(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    root, locks = lock.Path("results/one"), lock.Path(".snakemake/locks")
    locks.mkdir(parents=True)
    (locks / "0.input.lock").write_text("data/train.csv\nresults/one/data/mine/train.parquet\n")
    (locks / "1.input.lock").write_text("results/one_more/data/mine/train.parquet\n")
    with process(STUDY, root):
        lock.forget_killed(root, locks)
        assert len(list(locks.iterdir())) == 2
    lock.forget_killed(root, locks)
    assert [file.name for file in locks.iterdir()] == ["1.input.lock"]


@pytest.fixture(params=["ENOSYS", "ENOLCK", "EOPNOTSUPP"])
def no_locks(request, monkeypatch):
    """A file system without locks, as Lustre without `-o flock`; what makes it one in another process too."""

    def flock(*_):
        raise OSError(getattr(errno, request.param), "no locks here")

    monkeypatch.setattr(fcntl, "flock", flock)
    return NO_LOCKS.format(error=request.param)


def locked(root, locks):
    """A study that a Snakemake's own lock in `locks` keeps others from."""
    locks.mkdir(parents=True)
    (locks / "0.input.lock").write_text(f"{root}/data/mine/train.parquet\n")
    return locks


def test_without_locks_a_process_at_work_keeps_its_own(tmp_path, no_locks):
    """Also where it began another part of the study: no second one writes itself down in its place."""
    root, locks = tmp_path / "study", locked(tmp_path / "study", tmp_path / "locks")
    with process(no_locks + STUDY, root) as other:
        lock.forget_killed(root, locks)
        assert len(list(locks.iterdir())) == 1
        with pytest.raises(InputError, match=rf"process {other.pid} on .* is at work on this study"):
            lock.hold_study(root)
    lock.forget_killed(root, locks)
    assert list(locks.iterdir()) == []
    lock.hold_study(root).close()


def test_without_locks_nothing_is_known_of_another_machine(tmp_path, no_locks, monkeypatch):
    """A study of two login nodes: a process number that nobody has here may be at work there."""
    root, locks = tmp_path / "study", locked(tmp_path / "study", tmp_path / "locks")
    with process(no_locks + STUDY, root):
        pass
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(lock.socket, "gethostname", lambda: "another")
        lock.forget_killed(root, locks)
    assert len(list(locks.iterdir())) == 1
    lock.forget_killed(root, locks)
    assert list(locks.iterdir()) == []


def test_a_job_waits_for_the_one_that_outlived_its_snakemake(tmp_path, capfd):
    with process(JOB, tmp_path, "task") as other:
        waiting = subprocess.Popen(
            [sys.executable, "-c", JOB.replace("print('held'", "print('after'"), str(tmp_path), "task"],
            env=PATH,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        while f"waiting for process {other.pid} on" not in capfd.readouterr().err:
            time.sleep(0.05)
        assert waiting.poll() is None
        other.communicate("\n")
    assert waiting.communicate(timeout=30)[0] == "after\n"
    assert list(tmp_path.iterdir()) == []


def test_who_says_late_what_it_is_at_is_heard(tmp_path, capfd):
    """Of several that wait, the next one has the lock a moment before it writes down who it is."""

    def wait():
        with lock.alone(tmp_path / "job.lock", "task") as same:
            return same

    with ThreadPoolExecutor() as pool, (tmp_path / "job.lock").open("a+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        waiting = pool.submit(wait)
        while "waiting for another process" not in capfd.readouterr().err:
            time.sleep(0.05)
        held.write("process 1 on this machine at task")
        held.flush()
        fcntl.flock(held, fcntl.LOCK_UN)
        assert waiting.result(30)


@pytest.mark.parametrize("task", ["task", "another task"])
def test_whether_the_other_was_at_the_same(task, tmp_path):
    with process(JOB, tmp_path, "task") as other:
        os.kill(other.pid, signal.SIGSTOP)
        pid = os.fork()
        if not pid:
            time.sleep(0.5)
            os.kill(other.pid, signal.SIGKILL)
            os._exit(0)
        with lock.alone(tmp_path / "job.lock", task) as same:
            assert same == (task == "task")
        os.waitpid(pid, 0)
    with lock.alone(tmp_path / "job.lock", task) as same:
        assert not same
