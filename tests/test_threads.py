"""The team of threads: every item exactly once, and no hang or abort whatever the program around it does."""

import os
import subprocess
import sys
import threading
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from fastconv.cpu import threads

SCRIPTS = Path(__file__).parent / "thread_scripts"
sys.path.insert(0, str(SCRIPTS))
from common import Job, check, check_in_threads, nested, note

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")


def python(*arguments, **environment):
    """Run a Python of its own with the scripts' modules at hand; three threads, though there may be fewer cores."""
    paths = os.pathsep.join([str(SCRIPTS), str(SCRIPTS.parent.parent), os.environ.get("PYTHONPATH", "")])
    variables = {k: v for k, v in os.environ.items() if not k.startswith(("NUMBA_", "FASTCONV_NUM"))}
    variables |= {"FASTCONV_NUM_THREADS": "3", "PYTHONPATH": paths} | environment
    command = [sys.executable, "-W", "ignore", *map(str, arguments)]
    return subprocess.run(command, env=variables, capture_output=True, text=True, timeout=180, check=False)


def succeed(*arguments, **environment):
    done = python(*arguments, **environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def team_of_three(monkeypatch):
    """A team of its own, of three threads, though there may be fewer cores."""

    def forget():
        threads.default_threads.cache_clear()
        threads.most_threads.cache_clear()

    monkeypatch.setenv("FASTCONV_NUM_THREADS", "3")
    forget()
    for name, value in {"_team": None, "_limit": 0, "_threading": "team"}.items():
        monkeypatch.setattr(threads, name, value)
    yield
    if threads._team is not None:
        threads._team.end()
    monkeypatch.undo()
    forget()


# Items ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [1, 2, 3])
@pytest.mark.parametrize("items", [0, 1, 2, 3, 1000])
@pytest.mark.parametrize("work", [0, 1e6, 1e9])
def test_every_item_runs_once(team_of_three, items, limit, work):
    check(1000)  # the team may be larger than the limit
    with threads.num_threads(limit):
        for _ in range(20):
            check(items, work=work)


def test_helpers_help(team_of_three):
    ran = sum(check(100, pauses=400) for _ in range(20))
    assert (ran > 0).all()


def test_helpers_sleep_and_wake(team_of_three):
    check()
    seats = [threads.SEATS + threads.SEAT * own for own in (1, 2)]
    for _ in range(3):
        pause = threading.Event()
        for _ in range(200):
            if all(threads._team._words[(seat + threads.ASLEEP) // 8] for seat in seats):
                break
            pause.wait(0.01)
        else:
            pytest.fail("a helper without work does not sleep")
        assert (sum(check(100, pauses=1000) for _ in range(10))[1:] > 0).any()


def test_little_work_stays_here(team_of_three):
    assert (check(100, work=1000)[1:] == 0).all()
    assert threads._team is None


def test_scratch_for_fewer_seats_is_enough(team_of_three):
    """Another thread may raise the limit between a call's seats() and its run()."""
    for most in (1, 2):
        job = Job(100, most, 100)
        threads.run(note.address, job.address, 100, 1e9, most)
        job.assert_done()


def test_team_grows_as_needed(team_of_three):
    for limit in (1, 2, 3, 2):
        with threads.num_threads(limit):
            check()
    assert len(threads._team._threads) == 2
    assert all(thread.daemon for thread in threads._team._threads)


def test_concurrent_callers(team_of_three):
    check_in_threads()


def test_nested_calls(team_of_three):
    for _ in range(100):
        jobs = [Job(20, 3) for _ in range(10)]
        words = [threads.board(3), note.address, 20, *(job.address for job in jobs)]
        outer = np.array(words, np.int64)
        threads.run(nested.address, outer.ctypes.data, 10, 1e9)
        for job in jobs:
            job.assert_done()


def test_busy_board_runs_here(team_of_three):
    check()
    threads._team._words[threads.BUSY // 8] = 1
    assert (check(100, pauses=100)[1:] == 0).all()
    threads._team._words[threads.BUSY // 8] = 0


def test_many_threads_wake_each_other():
    """A caller wakes only two sleepers; on 16 seats others are reached only through them."""
    program = (
        "import time\n"
        "from common import check, check_in_threads\n"
        "check_in_threads(calls=50)\n"
        "ran = 0\n"
        "for _ in range(30):\n"
        "    time.sleep(0.01)\n"
        "    ran = ran + check(64, pauses=2000)\n"
        "assert len(ran) == 16 and (ran > 0).sum() > 3, ran"
    )
    succeed("-c", program, FASTCONV_NUM_THREADS="16")


def test_without_threads_to_be_had(team_of_three, monkeypatch):
    def refuse(self):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert threads.board(3) == 0
    check()


# How many ------------------------------------------------------------------------------------------------------------


def test_number_is_of_the_process_or_of_a_thread(team_of_three):
    seen = []
    threads.set_num_threads(2)
    with threads.num_threads(3):
        with threads.num_threads(np.int64(1)):
            assert threads.get_num_threads() == threads.seats() == 1
            other = threading.Thread(target=lambda: seen.append(threads.get_num_threads()))
            other.start()
            other.join()
        assert threads.get_num_threads() == 3
        threads.set_num_threads(1)
        assert threads.get_num_threads() == 3
    assert threads.get_num_threads() == 1
    assert seen == [2]
    with pytest.raises(KeyError), threads.num_threads(2):
        raise KeyError
    assert threads.get_num_threads() == 1


@pytest.mark.parametrize("function", [threads.set_num_threads, threads.num_threads])
def test_wrong_numbers(team_of_three, function):
    for wrong in (0, -1, 4):
        with pytest.raises(ValueError, match=rf"^num_threads: got {wrong}, expected 1 to 3$"):
            function(wrong)
    for wrong in (True, np.True_, 2.0, "2", None):
        with pytest.raises(TypeError, match=r"^num_threads: got .* of type .*, expected an integer$"):
            function(wrong)
    assert threads.get_num_threads() == 3


def test_wrong_threading():
    with pytest.raises(ValueError, match=r"^threading: got 'omp', expected one of team, numba$"):
        threads.set_threading("omp")
    with pytest.raises(TypeError, match=r"^threading: got 1 of type int, expected one of team, numba$"):
        threads.set_threading(1)
    assert threads.get_threading() == "team"


@pytest.mark.parametrize(
    ("ours", "numbas", "number"), [("5", "4", "5"), ("", "4", "4"), ("many", "4", "4"), ("0", "", ""), ("", "", "")]
)
def test_environment(monkeypatch, ours, numbas, number):
    monkeypatch.setenv("FASTCONV_NUM_THREADS", ours)
    monkeypatch.setenv("NUMBA_NUM_THREADS", numbas)
    number = int(number) if number else threads._available_cpus()
    assert threads.default_threads.__wrapped__() == number


def test_cgroup_quota(tmp_path):
    quota = threads._cgroup_quota
    member, mounted = tmp_path / "cgroup", tmp_path / "mounted"
    assert quota(member, mounted) == float("inf")  # not Linux
    member.write_text("3:cpuset:/\n2:cpu,cpuacct:/jobs/one\n0::/slice/unit\n")
    assert quota(member, mounted) == float("inf")  # no limits
    (mounted / "slice" / "unit").mkdir(parents=True)
    (mounted / "slice" / "unit" / "cpu.max").write_text("max 100000\n")
    assert quota(member, mounted) == float("inf")
    (mounted / "slice" / "cpu.max").write_text("350000 100000\n")
    assert quota(member, mounted) == 3.5
    (mounted / "cpu").mkdir()  # as a container sees its own group
    (mounted / "cpu" / "cpu.cfs_quota_us").write_text("-1\n")
    (mounted / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    assert quota(member, mounted) == 3.5
    (mounted / "cpu" / "cpu.cfs_quota_us").write_text("200000\n")
    assert quota(member, mounted) == 2


def test_import_is_light():
    program = (
        "import threading, numba\n"
        "from numba.core import event\n"
        "with event.install_recorder('numba:compile') as seen:\n"
        "    from fastconv.cpu import threads\n"
        "assert not seen.buffer and threading.active_count() == 1 and threads._team is None"
    )
    succeed("-c", program)


# What the program around it does -------------------------------------------------------------------------------------


@needs_fork
@pytest.mark.parametrize("script", ["fork.py", "fork_compiling.py", "fork_locked.py", "raw_fork.py"])
def test_forks(script):
    if script == "raw_fork.py" and sys.platform != "linux":
        pytest.skip("a bare fork is not promised anything here")
    succeed(SCRIPTS / script)


@pytest.mark.parametrize("layer", ["omp", "workqueue", "tbb"])
@pytest.mark.parametrize("script", ["in_prange.py", "numba_threads.py"])
def test_numba_layers(layer, script):
    if find_spec(f"numba.np.ufunc.{layer if layer == 'workqueue' else layer + 'pool'}") is None:
        pytest.skip(f"this Numba has no {layer}")
    done = python(SCRIPTS / script, NUMBA_THREADING_LAYER=layer, NUMBA_NUM_THREADS="3")
    if "No threading layer could be loaded" in done.stderr:
        pytest.skip(f"{layer} does not load")
    assert done.returncode == 0, done.stdout + done.stderr


@needs_fork
@pytest.mark.parametrize(("layer", "threading"), [("omp", "team"), ("omp", "numba"), ("workqueue", "numba")])
def test_callers_of_functions(layer, threading):
    """The bits that one thread gives, from 32 Python threads, joblib, fork and spawn."""
    done = python(SCRIPTS / "callers.py", threading, NUMBA_THREADING_LAYER=layer, NUMBA_NUM_THREADS="3", PYTHONHASHSEED="1")
    if "No threading layer could be loaded" in done.stderr:
        pytest.skip(f"{layer} does not load")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity on this system")
def test_affinity():
    succeed(SCRIPTS / "limits.py", FASTCONV_NUM_THREADS="")


ENDINGS = {
    "while spinning": ("for _ in range(50): check()", 0),
    "sys.exit": ("import sys; check(); sys.exit(7)", 7),
    "os._exit": ("import os; check(); os._exit(7)", 7),
    "exception": ("check(); raise SystemExit(7)", 7),
    "daemon thread still calling": (
        (
            "import threading, time\n"
            "def forever():\n"
            "    while True: check()\n"
            "check(); threading.Thread(target=forever, daemon=True).start(); time.sleep(0.01)"
        ),
        0,
    ),
    "call in atexit after the team's end": ("import atexit\natexit.register(lambda: check())\nIMPORT\ncheck()", 0),
    "call in atexit before the team's end": ("import atexit\nIMPORT\ncheck(); atexit.register(check)", 0),
    "first call in atexit, too late": ("import atexit\natexit.register(lambda: check())\nIMPORT", 0),
    "first call in atexit, in time": ("import atexit\nIMPORT\natexit.register(check)", 0),
    "call in __del__": (
        ("class Last:\n    def __init__(self): self.check = check\n    def __del__(self): self.check()\ncheck(); last = Last()"),
        0,
    ),
    "SIGTERM": ("import os; check(); os.kill(os.getpid(), 15)", -15),
    "SIGINT": (
        (
            "import os, signal, sys, threading\n"
            "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell's background jobs are born ignoring it
            "check(); threading.Timer(0.02, lambda: os.kill(os.getpid(), 2)).start()\n"
            "try:\n"
            "    while True: check()\n"
            "except KeyboardInterrupt: sys.exit(9)"
        ),
        9,
    ),
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_endings(ending):
    if ending.startswith("SIG") and os.name == "nt":
        pytest.skip("no such signal on this system")
    program, code = ENDINGS[ending]
    take = "from common import check"
    done = python("-c", program.replace("IMPORT", take) if "IMPORT" in program else f"{take}\n{program}")
    assert (done.returncode, done.stderr) == (code, "")


def test_small_calls_wake_a_helper_together(team_of_three):
    """A large call does at once; small ones when they add up, and then they begin anew."""
    board, job, small = threads.board(2), Job(4, 2), threads.WORTH_WAKING // 4

    def unhelped_after(work):
        threads.serve(board, note.address, job.address, job.items, 2, work)
        return int(threads._team._words[threads.UNHELPED // 8])

    assert board and unhelped_after(threads.WORTH_WAKING) == 0
    count = threads.WORTH_WAKING_FOR_MORE // small
    for _ in range(2):
        assert [unhelped_after(small) for _ in range(count)] == [*range(small, small * count, small), 0]
