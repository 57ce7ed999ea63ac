"""edgemoe-bench: what it refuses, with one line and a status, and what it prints of kernels."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sysconfig
from pathlib import Path

import pytest

BENCH = Path(__file__).resolve().parents[2] / "bench"
MODEL_COMMANDS = ("prefill", "decode", "fingerprint")
MACHINE_COMMANDS = ("kernels", "attention")
USAGE = 2


def run(
    *arguments: str, stdout: int = subprocess.PIPE, **environment: str
) -> subprocess.CompletedProcess[str]:
    program = Path(sysconfig.get_path("scripts"), "edgemoe-bench")
    return subprocess.run(
        [program, *arguments],
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
        timeout=120,
        check=False,
    )


def refused(*arguments: str, status: int = USAGE, **environment: str) -> str:
    result = run(*arguments, **environment)
    assert result.returncode == status, result
    assert result.stdout == ""
    assert result.stderr.startswith("edgemoe-bench: ")
    assert result.stderr.count("\n") == 1, result.stderr
    return result.stderr


@pytest.mark.parametrize(
    ("command", "option", "value"),
    [
        *(("kernels", option, "0") for option in ("rows", "columns", "threads")),
        ("kernels", "columns", "255"),
        ("kernels", "rows", "-1"),
        ("kernels", "type", "Q9_9"),
        *(
            ("attention", option, "0")
            for option in ("heads", "kv-heads", "size", "context", "rows", "threads")
        ),
        ("attention", "heads", "3"),
        ("attention", "size", "33"),
        ("attention", "rows", "4096x"),
        ("attention", "type", "f8"),
    ],
)
def test_shapes_that_nothing_can_be_measured_of(command: str, option: str, value: str) -> None:
    smallest = {
        "kernels": {"type": "Q4_0", "rows": "8", "columns": "256"},
        "attention": {"context": "64"},
    }[command]
    words = [
        word
        for name, chosen in {**smallest, option: value}.items()
        for word in ("--" + name, chosen)
    ]
    assert f"--{option}" in refused(command, *words)


@pytest.mark.parametrize(
    ("command", "option", "value"),
    [
        *((command, "repetitions", "0") for command in ("prefill", "decode")),
        *((command, "tokens", "0") for command in MODEL_COMMANDS),
        *((command, "threads", "many") for command in MODEL_COMMANDS),
        *((command, "memory", "4Gib") for command in MODEL_COMMANDS),
        ("reads", "depth", "0"),
        ("reads", "seconds", "0"),
        ("reads", "bytes", "0"),
    ],
)
def test_numbers_that_nothing_can_be_measured_with(
    demo: str, command: str, option: str, value: str
) -> None:
    assert f"--{option} is '{value}'" in refused(command, demo, f"--{option}", value)


@pytest.mark.parametrize("command", [*MODEL_COMMANDS, *MACHINE_COMMANDS, "reads"])
def test_words_of_no_meaning(command: str) -> None:
    assert "--colour" in refused(
        command, *([] if command in MACHINE_COMMANDS else ["x"]), "--colour", "red"
    )
    assert "needs a value" in refused(command, "--threads")
    assert "second" in refused(command, "one", "two")


@pytest.mark.parametrize("command", MACHINE_COMMANDS)
def test_commands_without_a_file_refuse_one(command: str) -> None:
    assert "'model.gguf'" in refused(command, "model.gguf")


@pytest.mark.parametrize("command", [*MODEL_COMMANDS, "reads"])
def test_commands_with_a_file_need_one(command: str, tmp_path: Path) -> None:
    assert "needs a file" in refused(command)
    missing = str(tmp_path / "missing.gguf")
    assert missing in refused(command, missing, status=1)


@pytest.mark.parametrize("command", MACHINE_COMMANDS)
def test_an_unknown_level(command: str) -> None:
    message = refused(command, EDGEMOE_LEVEL="sse9")
    assert "'sse9'" in message
    assert "scalar" in message


@pytest.mark.parametrize(
    "words",
    [
        ("kernels", "--rows", "1048576", "--columns", "65536"),
        ("attention", "--context", "1048576", "--heads", "1024", "--kv-heads", "1024"),
    ],
)
def test_shapes_larger_than_the_memory_name_options_that_the_command_has(
    words: tuple[str, ...],
) -> None:
    message = refused(*words, "--threads", "1", status=1)
    options = re.findall(r"--([a-z-]+)", message.split("give a smaller")[1])
    assert options
    for option in options:
        assert f'arguments.count("{option}"' in (BENCH / f"{words[0]}_command.cpp").read_text()


@pytest.mark.parametrize(
    "words", [("kernels", "--type", "Q4_0", "--rows", "8", "--columns", "256"), ("--help",)]
)
def test_output_that_cannot_be_written_is_an_error(words: tuple[str, ...]) -> None:
    with Path("/dev/full").open("w") as full:
        result = run(*words, stdout=full.fileno(), EDGEMOE_LEVEL="scalar")
    assert result.returncode == 1
    assert "standard output" in result.stderr
    assert result.stderr.count("\n") == 1


def test_the_help_has_every_option() -> None:
    usage = run("--help").stdout
    pattern = r'arguments\.\w+\("([a-z-]+)"'
    for source in BENCH.glob("*_command*.cpp"):
        for option in re.findall(pattern, source.read_text(encoding="utf-8")):
            assert re.search(rf"--{option}\b(?!-)", usage), option


def test_products_are_compared_with_limits_of_their_level() -> None:
    words = ("kernels", "--type", "Q4_0", "--rows", "64", "--columns", "256", "--threads", "1")
    answer = json.loads(run(*words).stdout)
    levels = [result["level"] for result in answer["results"]]
    assert levels[0] == "scalar"
    for result in answer["results"]:
        assert result["of_read_bandwidth"] == pytest.approx(
            result["vector_gigabytes_per_second"] / result["read_gigabytes_per_second"], rel=1e-3
        )
        for tokens in (1, 4, 32):
            share = result[f"of_peak_{tokens}_tokens"]
            if result["level"] == "scalar":
                assert share is None
                continue
            rate = result[f"cached_gigaops_per_second_{tokens}_tokens"]
            assert share == pytest.approx(rate / result["peak_gigaops_per_second"], rel=1e-3)
    (one,) = json.loads(run(*words, EDGEMOE_LEVEL="scalar").stdout)["results"]
    assert one["level"] == "scalar"
