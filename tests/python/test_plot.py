"""edgemoe plot: pictures that are well formed, text that fits, errors of one line."""

from __future__ import annotations

import struct
import xml.etree.ElementTree as ElementTree
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import Run

from edgemoe.plots import glyphs, to_png, to_svg, to_terminal, trace_drawing
from edgemoe.plots.summary import heat_levels, time_series, token_series, use_counts
from edgemoe.traces import RouteTrace, Timeline, read_timeline, read_trace

Fails = Callable[..., str]
SVG = "{http://www.w3.org/2000/svg}"
PREFILL_TOKENS, TOKENS, LAYERS, EXPERTS, USED = 5, 40, 4, 32, 3


def write_trace(path: Path, *, model: str = "m.gguf", residency: bool = True) -> Path:
    random = np.random.default_rng(1)
    last = ",residency,expert_bytes" if residency else ""
    lines = [
        f"# model={model} arch=a n_layer={LAYERS} n_expert={EXPERTS} n_expert_used={USED}",
        "turn,phase,step,layer,slot,expert" + last,
    ]
    for step in range(TOKENS):
        for layer in range(LAYERS):
            for slot, expert in enumerate(random.choice(EXPERTS, USED, replace=False)):
                hit = int(random.integers(2))
                tail = f",{hit},{0 if hit else 1 << 20}" if residency else ""
                phase = int(step >= PREFILL_TOKENS)
                lines.append(f"0,{phase},{step},{layer},{slot},{expert}{tail}")
    path.write_text("\n".join(lines) + "\n")
    return path


def write_timeline(path: Path) -> Path:
    lines = [
        "turn,phase,step,layer,tokens,start_seconds,compute_seconds,overlap_seconds,"
        "stall_seconds,bytes_read,demands,hits"
    ]
    for step in range(PREFILL_TOKENS - 1, TOKENS):
        first, tokens, phase = (step, 1, 1) if step >= PREFILL_TOKENS else (0, PREFILL_TOKENS, 0)
        for layer in range(LAYERS):
            times = f"{step},{1e-3 * tokens},{2e-3 * tokens},{3e-3 * tokens}"
            lines.append(f"0,{phase},{first},{layer},{tokens},{times},4096,3,1")
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def trace(tmp_path: Path) -> RouteTrace:
    return read_trace(write_trace(tmp_path / "trace.csv"))


@pytest.fixture
def timeline(tmp_path: Path) -> Timeline:
    return read_timeline(write_timeline(tmp_path / "times.csv"))


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def test_the_command_draws_every_kind(edgemoe: Run, tmp_path: Path) -> None:
    trace, times = write_trace(tmp_path / "t.csv"), write_timeline(tmp_path / "times.csv")
    for out in (tmp_path / "a.svg", tmp_path / "a.PNG"):
        result = edgemoe("plot", trace, times, "-o", out)
        assert (result.returncode, result.stdout) == (0, b""), result.stderr
        assert out.stat().st_size > 1000
    ElementTree.parse(tmp_path / "a.svg")
    shown = edgemoe("plot", trace, times, "--terminal", PYTHONIOENCODING="utf-8", COLUMNS="70")
    assert shown.returncode == 0
    assert "█" in shown.stdout.decode()
    plain = edgemoe("plot", trace, "--terminal", PYTHONIOENCODING="ascii", COLUMNS="50")
    assert plain.returncode == 0
    assert max(map(len, plain.stdout.decode("ascii").splitlines())) <= 50


def test_an_svg_is_well_formed_and_accessible(trace: RouteTrace, timeline: Timeline) -> None:
    root = ElementTree.fromstring(to_svg(trace_drawing(trace, timeline)))
    assert root.get("role") == "img"
    assert "32 experts" in (root.findtext(f"{SVG}title") or "")
    assert "40 tokens" in (root.findtext(f"{SVG}desc") or "")
    assert "prefers-color-scheme:dark" in (root.findtext(f"{SVG}style") or "")
    shown = texts(to_svg(trace_drawing(trace, timeline)))
    assert "Where the time of a token goes" in shown
    assert "Where the time of a token goes" not in texts(to_svg(trace_drawing(trace)))
    right = [float(e.get("x", 0)) + float(e.get("width", 0)) for e in root.iter(f"{SVG}rect")]
    assert max(right) <= float(root.get("width", 0))


def test_names_cannot_break_the_picture(tmp_path: Path) -> None:
    path = write_trace(tmp_path / "t.csv", model='<b>&"\x01\x1b[31m.gguf')
    drawing = trace_drawing(read_trace(path))
    assert "<b>&" in texts(to_svg(drawing))[0]
    assert to_png(drawing)
    assert "\x1b" not in to_terminal(read_trace(path))


def test_a_trace_without_residency_is_a_heat_map(tmp_path: Path) -> None:
    trace = read_trace(write_trace(tmp_path / "t.csv", residency=False))
    shown = texts(to_svg(trace_drawing(trace)))
    assert not any("memory" in text or "Read" in text for text in shown)
    assert "hits" not in to_terminal(trace)


def test_bytes_read_are_those_of_the_timeline(trace: RouteTrace, timeline: Timeline) -> None:
    title = "Read from storage for each token"
    missed = f"{title} on a miss, without what was read ahead"
    assert missed in texts(to_svg(trace_drawing(trace)))
    assert title in texts(to_svg(trace_drawing(trace, timeline)))
    read = time_series(timeline, 400).values["bytes"]
    assert read[-1] == LAYERS * 4096
    assert "read per token: " in to_terminal(trace, timeline, width=120)
    assert "without what was read ahead" in to_terminal(trace, width=120)


def test_a_png_unpacks_to_its_size(trace: RouteTrace) -> None:
    data = to_png(trace_drawing(trace))
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    chunks = {}
    at = 8
    while at < len(data):
        (length,) = struct.unpack_from(">I", data, at)
        kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        (checksum,) = struct.unpack_from(">I", data, at + 8 + length)
        assert checksum == zlib.crc32(kind + body)
        chunks[kind] = body
        at += 12 + length
    width, height = struct.unpack_from(">II", chunks[b"IHDR"])
    rows = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(height, -1)
    assert rows.shape[1] == 1 + 3 * width
    assert not rows[:, 0].any()
    assert rows[:, 1:].min() < 60  # there is ink


def test_the_font_has_every_ascii_character() -> None:
    known = [chr(code) for code in range(33, 127)]
    shapes = {glyphs.glyph(character).tobytes() for character in known}
    assert len(shapes) == len(known)
    assert not glyphs.glyph(" ").any()
    assert glyphs.glyph("é").any()


@pytest.mark.parametrize("width", [1, 8, 20, 33, 80, 200])
@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1"])
def test_terminal_output_fits(
    trace: RouteTrace, timeline: Timeline, width: int, encoding: str
) -> None:
    text = to_terminal(trace, timeline, width=width, encoding=encoding)
    assert max(map(len, text.splitlines())) <= width
    text.encode(encoding)
    if width >= 80:
        assert "hits" in text
        assert "17%" in text  # 1 of 6 ms


def test_uses_are_all_counted_however_many_experts(tmp_path: Path) -> None:
    path = tmp_path / "wide.csv"
    rows = [f"0,1,0,{layer},0,{layer * 13}" for layer in range(0, 4096, 5)]
    names = "# n_layer=4096 n_expert=65536 n_expert_used=1\nturn,phase,step,layer,slot,expert\n"
    path.write_text(names + "\n".join(rows))
    trace = read_trace(path)
    uses = use_counts(trace, 96, 256)
    assert uses.counts.shape[0] <= 96
    assert uses.counts.shape[1] <= 256
    assert uses.counts.sum() == len(rows)
    assert to_png(trace_drawing(trace))


def test_levels_show_every_use() -> None:
    levels = heat_levels(np.array([[0, 1, 500, 1000]]), 10)
    assert levels.tolist() == [[0, 1, 5, 9]]
    assert heat_levels(np.array([[0, 0]]), 10).tolist() == [[0, 0]]


def test_series_keep_their_means(trace: RouteTrace, timeline: Timeline) -> None:
    assert trace.expert_bytes is not None
    for count in (1, 7, 40, 400):
        series = token_series(trace, count)
        assert len(series.values["bytes"]) == min(count, TOKENS)
        mean = trace.expert_bytes.sum() / TOKENS
        assert series.values["bytes"].mean() == pytest.approx(mean)
        assert series.prefill == pytest.approx(PREFILL_TOKENS / TOKENS)
        times = time_series(timeline, count)
        assert times.num_tokens == TOKENS
        for name, seconds in (("compute", 1e-3), ("overlap", 2e-3), ("stall", 3e-3)):
            assert times.values[name] == pytest.approx(LAYERS * seconds)


@pytest.mark.parametrize("seconds", ["1e308", "1.1e9"])
def test_times_that_are_no_durations_are_refused(
    fails: Fails, tmp_path: Path, seconds: str
) -> None:
    trace, times = write_trace(tmp_path / "t.csv"), tmp_path / "times.csv"
    head = write_timeline(times).read_text().split("\n")[0]
    times.write_text(f"{head}\n0,0,0,0,1,0,{seconds},{seconds},{seconds},0,0,0\n")
    message = fails(1, "plot", trace, times, "-o", tmp_path / "out.svg")
    assert f"{times}:2: compute_seconds is" in message


@pytest.mark.parametrize("seconds", ["5e-324", "1e-200", "1e-12", "1e9"])
def test_the_smallest_and_the_largest_times_are_drawn(
    tmp_path: Path, trace: RouteTrace, seconds: str
) -> None:
    times = tmp_path / "times.csv"
    head = write_timeline(times).read_text().split("\n")[0]
    times.write_text(f"{head}\n0,0,0,0,2147483647,0,{seconds},{seconds},{seconds},0,0,0\n")
    read = read_timeline(times)
    assert to_svg(trace_drawing(trace, read))
    assert to_terminal(trace, read)


def test_errors_of_plot(fails: Fails, tmp_path: Path, demo: str) -> None:
    trace, times = write_trace(tmp_path / "t.csv"), write_timeline(tmp_path / "times.csv")
    out = tmp_path / "out.svg"
    assert "--terminal" in fails(2, "plot", trace)
    assert ".svg or .png" in fails(2, "plot", trace, "-o", tmp_path / "out.jpeg")
    assert "not text" in fails(1, "plot", demo, "-o", out)
    assert "column 'expert' is missing" in fails(1, "plot", times, "-o", out)
    assert "column 'tokens' is missing" in fails(1, "plot", trace, trace, "-o", out)
    assert "No such file" in fails(1, "plot", tmp_path / "missing", "-o", out)
    assert "cannot be written" in fails(1, "plot", trace, "-o", tmp_path / "no/out.svg")
    assert not out.exists()
