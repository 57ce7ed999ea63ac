"""What may be asked while a model computes: by signal handlers, and by other threads."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np

from edgemoe import _core
from edgemoe.options import LoadOptions

# Computes until the handler has interrupted a step; between two steps it may change the memory.
HANDLER = """
import signal, sys
import numpy as np
from edgemoe import ArgumentError, Model

TOKENS = [1, *range(300, 310)]
refused = []
ended = []

def handle(*_):
    if ended:  # an alarm that was on its way
        return
    stats = model.stats()
    try:
        model.set_memory("1GiB")
    except REFUSAL as error:
        refused.append((str(error), stats.steps))
    except BaseException:
        signal.setitimer(signal.ITIMER_REAL, 0)
        ended.append(True)
        raise

with Model.load(sys.argv[1], memory="1GiB", context=256, batch=4) as model:
    expected = model.logits(TOKENS, one_by_one=True)
    signal.signal(signal.SIGALRM, handle)
    for attempt in range(1000):
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.002)
        found = model.logits(TOKENS, one_by_one=True)
        signal.setitimer(signal.ITIMER_REAL, 0)
        assert np.array_equal(found, expected)
        if refused:
            break
    print(*refused[0])
"""


def run_handler(demo: str, refusal: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", HANDLER.replace("REFUSAL", refusal), demo],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        cwd=folder,  # Python looks for packages there first
    )


def test_a_signal_handler_reads_statistics_and_is_refused_a_change(
    demo: str, tmp_path: Path
) -> None:
    result = run_handler(demo, "ArgumentError", tmp_path)
    assert "signal handler" in result.stdout, result.stderr
    assert "call it from another thread" in result.stdout.lower()


def test_a_refusal_that_a_handler_lets_through_ends_the_computation(
    demo: str, tmp_path: Path
) -> None:
    result = run_handler(demo, "KeyError", tmp_path)
    assert "ArgumentError: a signal handler called this" in result.stderr


def test_statistics_wait_for_a_step_not_for_the_prompt(demo: str) -> None:
    tokens = np.asarray([1, *range(300, 340)], dtype=np.int32)
    engine = _core.Engine(_core.ModelFile(demo), LoadOptions(context=64, batch=1).as_core())
    seen: set[int] = set()
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            seen.add(engine.stats()["tokens"])

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        _core.Session(engine).evaluate(tokens)
    finally:
        done.set()
        watcher.join()
    assert engine.stats()["tokens"] == len(tokens)
    assert len(seen - {0, len(tokens)}) > 1


def test_a_command_that_is_told_to_terminate_leaves_nothing_half_written(
    demo: str, tmp_path: Path
) -> None:
    output = tmp_path / "trace.csv"
    command = ["-m", "edgemoe", "trace", demo, "-p", "There was", "-n", "400", "-o", str(output)]
    quiet = subprocess.DEVNULL
    with subprocess.Popen([sys.executable, *command], stdout=quiet, cwd=tmp_path) as process:
        while not list(tmp_path.iterdir()):
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 143
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_while_a_command_leaves_is_no_traceback(tmp_path: Path) -> None:
    program = """
import atexit, os, signal, sys
from edgemoe.cli.main import main
atexit.register(os.kill, os.getpid(), signal.SIGINT)
sys.argv = ["edgemoe", "--version"]
main()
"""
    command = [sys.executable, "-c", program]
    result = subprocess.run(command, capture_output=True, check=False, cwd=tmp_path)
    assert (result.returncode, result.stderr) == (-signal.SIGINT, b"")
