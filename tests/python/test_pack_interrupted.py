"""Packing that is killed, or runs out of room: nothing that looks whole and is not."""

from __future__ import annotations

import hashlib
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from edgemoe import _core
from edgemoe.bitwidth.importance import NO_IMPORTANCE
from edgemoe.bitwidth.packing import PackOptions, pack_model, uniform_plan

Arguments = list[str]


def command(*arguments: str | Path) -> Arguments:
    return [sys.executable, "-m", "edgemoe", "pack", *map(str, arguments)]


def run(arguments: Arguments, limit_kib: int = 0) -> subprocess.CompletedProcess[str]:
    """Files may grow to `limit_kib`; 0: to any size."""
    if limit_kib:
        arguments = ["bash", "-c", f'ulimit -f {limit_kib}; exec "$@"', "bash", *arguments]
    return subprocess.run(
        arguments, capture_output=True, text=True, cwd=tempfile.gettempdir(), check=False
    )


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def whole(demo: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, float]:
    """The digest of an uninterrupted run, and how long it took."""
    out = tmp_path_factory.mktemp("whole") / "out.gguf"
    start = time.monotonic()
    result = run(command(demo, "--uniform", "Q3_K", "-o", out))
    assert result.returncode == 0, result.stderr
    return digest(out), time.monotonic() - start


def kill_at_random(arguments: Arguments, seconds: float, rng: random.Random) -> None:
    """Runs the command and kills it within `seconds`, or finds it finished."""
    process = subprocess.Popen(
        arguments, cwd=tempfile.gettempdir(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    time.sleep(seconds * rng.random())
    process.send_signal(signal.SIGKILL)
    process.wait()


def check_kills(demo: str, folder: Path, whole: tuple[str, float], count: int) -> None:
    expected, seconds = whole
    seed = 20
    rng = random.Random(seed)
    out = folder / "out.gguf"
    arguments = command(demo, "--uniform", "Q3_K", "-o", out, "--threads", "1")
    for kill in range(count):
        kill_at_random(arguments, 1.2 * seconds, rng)
        if out.exists():
            assert digest(out) == expected, f"after kill {kill} of seed {seed}"
            out.unlink()
            for rest in folder.glob("out.gguf.part*"):
                rest.unlink()
    result = run([*arguments, "--json"])
    assert result.returncode == 0, result.stderr
    assert digest(out) == expected
    assert [path.name for path in folder.iterdir()] == ["out.gguf"]


def test_killed_runs_leave_nothing_wrong(
    demo: str, tmp_path: Path, whole: tuple[str, float]
) -> None:
    check_kills(demo, tmp_path, whole, count=5)


@pytest.mark.slow
def test_fifty_kills_leave_nothing_wrong(
    demo: str, tmp_path: Path, whole: tuple[str, float]
) -> None:
    check_kills(demo, tmp_path, whole, count=50)


@pytest.mark.slow
def test_killed_runs_of_shards_go_on(demo: str, tmp_path: Path, whole: tuple[str, float]) -> None:
    options = ("--uniform", "Q3_K", "--max-shard-size", "2MiB")
    assert run(command(demo, *options, "-o", tmp_path / "whole.gguf")).returncode == 0
    expected = {path.name[5:]: digest(path) for path in tmp_path.glob("whole-*.gguf")}
    rng = random.Random(21)
    for _ in range(10):
        arguments = command(demo, *options, "-o", tmp_path / "parts.gguf")
        kill_at_random(arguments, 1.2 * whole[1], rng)
        for path in tmp_path.glob("parts-*.gguf"):
            assert digest(path) == expected[path.name[5:]]
    result = run(command(demo, *options, "-o", tmp_path / "parts.gguf", "--force"))
    assert result.returncode == 0, result.stderr
    assert {path.name[5:]: digest(path) for path in tmp_path.glob("parts-*.gguf")} == expected


def test_a_full_disk_is_one_line_and_can_be_gone_on_with(
    demo: str, tmp_path: Path, whole: tuple[str, float]
) -> None:
    out = tmp_path / "out.gguf"
    arguments = command(demo, "--uniform", "Q3_K", "-o", out)
    result = run(arguments, limit_kib=2048)
    assert result.returncode == 1
    assert result.stderr.startswith("edgemoe: ") and result.stderr.count("\n") == 1, result.stderr
    assert "out.gguf.part" in result.stderr
    assert not out.exists()
    assert run(arguments).returncode == 0
    assert digest(out) == whole[0]


def stopped_halfway(demo: str, out: Path) -> None:
    """Packs in this process and stops when half of the weights are done."""
    source = _core.PackSource(demo)

    def stop(done: int, total: int, _resumed: int) -> None:
        if 2 * done > total:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        pack_model(
            source,
            uniform_plan(source, "Q3_K", None)[0],
            str(out),
            importance=NO_IMPORTANCE,
            options=PackOptions(threads=1),
            progress=stop,
        )


@pytest.mark.parametrize("damaged", ["part", "journal", "both", "gone"])
def test_a_damaged_part_is_not_believed(
    demo: str, tmp_path: Path, whole: tuple[str, float], damaged: str
) -> None:
    """What differs from the journal is packed again."""
    out = tmp_path / "out.gguf"
    part, journal = tmp_path / "out.gguf.part", tmp_path / "out.gguf.part.journal"
    stopped_halfway(demo, out)
    rng = random.Random(22)
    for path, names in ((part, ("part", "both")), (journal, ("journal", "both"))):
        image = bytearray(path.read_bytes())
        for _ in range(20 if damaged in names else 0):
            image[rng.randrange(len(image))] ^= 1 << rng.randrange(8)
        path.write_bytes(image)
    if damaged == "gone":
        part.unlink()
    assert run(command(demo, "--uniform", "Q3_K", "-o", out)).returncode == 0
    assert digest(out) == whole[0]
    assert [path.name for path in tmp_path.iterdir()] == ["out.gguf"]


def test_another_plan_starts_afresh(demo: str, tmp_path: Path, whole: tuple[str, float]) -> None:
    out = tmp_path / "out.gguf"
    stopped_halfway(demo, out)
    result = run(command(demo, "--uniform", "Q8_0", "-o", out, "--json"))
    assert json.loads(result.stdout)["resumed_weights"] == 0
    assert digest(out) != whole[0]
    stopped_halfway(demo, tmp_path / "b.gguf")
    arguments = command(demo, "--uniform", "Q3_K", "-o", tmp_path / "b.gguf", "--json")
    resumed = json.loads(run(arguments).stdout)["resumed_weights"]
    assert resumed > 0
    stopped_halfway(demo, tmp_path / "c.gguf")
    arguments = command(demo, "--uniform", "Q3_K", "-o", tmp_path / "c.gguf", "--json")
    assert json.loads(run([*arguments, "--no-resume"]).stdout)["resumed_weights"] == 0


def test_two_runs_do_not_write_one_file(demo: str, tmp_path: Path) -> None:
    out = tmp_path / "out.gguf"
    arguments = command(demo, "--uniform", "Q2_K", "-o", out, "--threads", "1")
    processes = [
        subprocess.Popen(arguments, cwd=tempfile.gettempdir(), stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    ends = [(process.communicate()[1], process.returncode) for process in processes]
    assert any(code == 0 for _, code in ends)
    for message, code in ends:
        if code != 0:
            assert "another edgemoe pack" in message or "exists" in message
    assert [path.name for path in tmp_path.iterdir()] == ["out.gguf"]
