#!/usr/bin/env python3
"""Cycles and instructions for a weight in ARM kernels, counted here: no ARM machine is needed.

    static_cycles.py --llama .../vendor/llama.cpp [--mca llvm-mca-19] [--objdump llvm-objdump-19]

Runs one product under qemu-user, an instruction at a time, which gives the exact sequence of
instructions, and lets llvm-mca say how many cycles a core takes for it: its ports and latencies
with every load in the first cache and every branch foreseen. The same for llama.cpp's repacked
kernels, built with the same compiler.

Needs `cmake --build --preset aarch64`, g++-aarch64-linux-gnu, qemu-user-static and llvm.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DRIVERS = Path(__file__).resolve().parent / "static_cycles"
COMPILER = ("aarch64-linux-gnu-g++", "-O3", "-std=c++20", "-static")
TYPES = ("Q4_0", "Q8_0", "Q4_K", "Q6_K")
CORES = ("cortex-a76", "neoverse-n1")
ROWS, COLUMNS = 8, 1024
TOKENS = (1, 32)
CALLS = ("bl\t", "blr\t", "ret")  # few, and not modelled


def run(*command: str | Path, text: str | None = None) -> str:
    return subprocess.run(command, input=text, stdout=subprocess.PIPE, text=True, check=True).stdout


def build_ours(folder: Path) -> Path:
    program = folder / "ours"
    library = ROOT / "build/aarch64/libedgemoe_core.a"
    source = DRIVERS / "ours.cpp"
    run(*COMPILER, f"-I{ROOT / 'csrc'}", source, library, "-o", program)
    return program


def build_llama(folder: Path, llama: Path) -> Path:
    program = folder / "llama"
    ggml = llama / "ggml"
    sources = (DRIVERS / "llama.cpp", ggml / "src/ggml-cpu/arch/arm/repack.cpp")
    includes = [f"-I{ggml / part}" for part in ("include", "src", "src/ggml-cpu")]
    # Only its kernels are called: what the rest would need is left out.
    link = ("-Wl,--gc-sections", "-Wl,--unresolved-symbols=ignore-all", "-ffunction-sections")
    flags = ("-march=armv8.2-a+dotprod+fp16", "-DNDEBUG", "-w")
    run(*COMPILER, *flags, *link, *includes, *sources, "-o", program)
    return program


def disassembly(program: Path, objdump: str) -> dict[int, str]:
    """Address -> instruction, with branches to nowhere in particular."""
    output = run(objdump, "-d", "--no-show-raw-insn", "--mattr=+all", program)
    found = {}
    for line in output.splitlines():
        match = re.match(r"\s*([0-9a-f]+):\s+(.*?)(?:\s+//.*|\s+<.*)?$", line)
        if match:
            found[int(match[1], 16)] = re.sub(r"\b0x[0-9a-f]{6}\b", "0", match[2])
    return found


def trace(program: Path, arguments: list[str]) -> list[int]:
    """Addresses of the instructions between the two marks."""
    symbols = run("aarch64-linux-gnu-nm", program)
    begin, end = (re.search(rf"(\w+) T mark_{name}", symbols) for name in ("begin", "end"))
    assert begin and end
    with tempfile.NamedTemporaryFile("r") as log:
        command = ("qemu-aarch64-static", "-cpu", CORES[0], "-singlestep", "-d", "exec,nochain")
        run(*command, "-D", log.name, program, *arguments)
        addresses = [int(line.split("/")[1], 16) for line in log if line.startswith("Trace")]
    start = addresses.index(int(begin[1], 16))
    stop = addresses.index(int(end[1], 16))
    return addresses[start + 2 : stop]


def cycles(instructions: list[str], core: str, mca: str) -> tuple[int, dict[str, float]]:
    """Cycles of the sequence, and the cycles that each port is busy."""
    options = ("-mtriple=aarch64", f"-mcpu={core}", "-mattr=+dotprod,+fullfp16", "-iterations=1")
    output = run(mca, *options, "-json", "-instruction-info=0", text="\n".join(instructions))
    region = json.loads(output)["CodeRegions"][0]
    ports = json.loads(output)["TargetInfo"]["Resources"]
    busy: dict[str, float] = dict.fromkeys(ports, 0.0)
    for use in region["ResourcePressureView"]["ResourcePressureInfo"]:
        if use["InstructionIndex"] == len(instructions):  # the sum
            busy[ports[use["ResourceIndex"]]] += use["ResourceUsage"]
    return region["SummaryView"]["TotalCycles"], busy


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--llama", type=Path, required=True)
    parser.add_argument("--mca", default="llvm-mca")
    parser.add_argument("--objdump", default="llvm-objdump")
    parser.add_argument("--types", nargs="+", default=TYPES)
    parser.add_argument("--ports", action="store_true", help="how busy each port is, too")
    arguments = parser.parse_args()
    print("| type | tokens | core | ours | llama.cpp | ratio | instructions: ours | llama.cpp |")
    print("|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        programs = (build_ours(folder), build_llama(folder, arguments.llama))
        texts = [disassembly(program, arguments.objdump) for program in programs]
        for type_name in arguments.types:
            for tokens in TOKENS:
                words = [type_name, str(ROWS), str(COLUMNS), str(tokens)]
                traces = [trace(program, words) for program in programs]
                work = ROWS * COLUMNS * tokens
                counts = [len(one) / work for one in traces]
                lines = [
                    [text[pc] for pc in one if not text[pc].startswith(CALLS)]
                    for one, text in zip(traces, texts, strict=True)
                ]
                for core in CORES:
                    results = [cycles(one, core, arguments.mca) for one in lines]
                    ours, theirs = (result[0] / work for result in results)
                    print(
                        f"| {type_name} | {tokens} | {core} | {ours:.4f} | {theirs:.4f} "
                        f"| {ours / theirs:.2f} | {counts[0]:.4f} | {counts[1]:.4f} |",
                        flush=True,
                    )
                    for who, (_, busy) in zip(("ours", "llama.cpp"), results, strict=True):
                        if arguments.ports:
                            used = {port: round(value / work, 4) for port, value in busy.items()}
                            print(f"  {who}: {used}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
