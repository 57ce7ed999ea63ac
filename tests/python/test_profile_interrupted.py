"""A profile that is stopped at any moment leaves nothing that loads wrongly, and goes on."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest

from edgemoe import ModelFormatError
from edgemoe.bitwidth.array_file import checksum_of, read_arrays, write_arrays
from edgemoe.bitwidth.profile_file import Profile
from edgemoe.errors import ReadError, UnsupportedModelError


class Command:
    """`edgemoe profile` of the demo model in a process of its own, saving as often as it can."""

    def __init__(self, demo: str, folder: Path) -> None:
        tokens = folder / "tokens"
        ids = np.random.default_rng(5).integers(0, 4096, 1280)
        tokens.write_text(" ".join(map(str, ids)))
        options = f"--tokens {tokens} -c 64 --batch 64 --rows 4 --candidates Q4_K,IQ4_NL"
        self._arguments = [sys.executable, "-m", "edgemoe", "profile", demo, *options.split()]
        self._arguments += ["--save-every", "0", "--memory", "min", "--threads", "1"]

    def start(self, out: Path) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [*self._arguments, "-o", str(out)],
            cwd=tempfile.gettempdir(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )

    def finish(self, out: Path) -> float:
        started = time.monotonic()
        process = self.start(out)
        _, message = process.communicate(timeout=600)
        assert process.returncode == 0, message
        return time.monotonic() - started


def check_interrupted(demo: str, folder: Path, seed: int, kills: int) -> None:
    command = Command(demo, folder)
    whole = folder / "whole.npz"
    seconds = command.finish(whole)
    expected = whole.read_bytes()
    choose = random.Random(seed)
    out = folder / "out.npz"
    part = Path(f"{out}.part")
    resumed = 0
    for _ in range(kills):
        process = command.start(out)
        time.sleep(choose.uniform(0.2, 1.0) * seconds)
        process.send_signal(choose.choice([signal.SIGKILL, signal.SIGINT]))
        _, message = process.communicate(timeout=600)
        assert b"Traceback" not in message or process.returncode < 0, message
        if part.exists():
            read_arrays(str(part))  # checks every checksum
            resumed += 1
        if out.exists():
            assert out.read_bytes() == expected
            assert not part.exists() or process.returncode != 0
            out.unlink()
            part.unlink(missing_ok=True)
    command.finish(out)
    assert out.read_bytes() == expected
    assert resumed > 0
    assert not part.exists()
    Profile.load(out)


def test_five_interruptions(demo: str, tmp_path: Path) -> None:
    check_interrupted(demo, tmp_path, seed=1, kills=5)


@pytest.mark.slow
def test_fifty_interruptions(demo: str, tmp_path: Path) -> None:
    check_interrupted(demo, tmp_path, seed=2, kills=50)


def test_a_damaged_file_is_refused_by_name(demo: str, tmp_path: Path) -> None:
    path = tmp_path / "arrays.npz"
    arrays = {"a": np.arange(1000, dtype=np.float32), "b": np.ones((3, 0, 2), dtype=np.int16)}
    write_arrays(str(path), arrays)
    found = read_arrays(str(path))
    assert all(np.array_equal(found[name], arrays[name]) for name in arrays)
    assert found["a"].ctypes.data % 64 == 0
    assert np.array_equal(np.load(path)["a"], arrays["a"])
    with pytest.raises(ModelFormatError, match="no edgemoe-profile"):
        Profile.load(path)
    sound = path.read_bytes()
    checksum = checksum_of(str(path))
    choose = random.Random(3)
    for _ in range(200):
        data = bytearray(sound)
        if choose.random() < 0.3:
            del data[choose.randrange(len(data)) :]
        else:
            data[choose.randrange(len(data))] ^= 1 << choose.randrange(8)
        path.write_bytes(data)
        try:
            found = read_arrays(str(path))
        except (ModelFormatError, ReadError) as error:
            assert str(path) in str(error)
        else:  # the byte means nothing, a time stamp say
            for name, values in found.items():
                assert name not in arrays or np.array_equal(values, arrays[name])
    write_arrays(str(path), {**arrays, "a": arrays["a"] + 1})
    assert checksum_of(str(path)) != checksum
    with pytest.raises(ReadError, match="nothing.npz"):
        read_arrays(str(tmp_path / "nothing.npz"))
    with pytest.raises(ReadError, match="cannot be written"):
        write_arrays(str(tmp_path / "nowhere" / "x.npz"), arrays)


def test_a_profile_of_a_later_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "p.npz"
    meta = b'{"format": "edgemoe-profile", "version": 2}'
    write_arrays(str(path), {"meta": np.frombuffer(meta, dtype=np.uint8)})
    with pytest.raises(UnsupportedModelError, match="version 2"):
        Profile.load(path)
    assert os.listdir(tmp_path) == ["p.npz"]
