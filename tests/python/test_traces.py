"""Reading of trace files, good and bad, and what is made of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgemoe import ArgumentError, EdgemoeError, ModelFormatError, ReadError
from edgemoe.output_file import output_file
from edgemoe.traces import (
    DECODE,
    PREFILL,
    ROUTE_COLUMNS,
    TIMELINE_COLUMNS,
    read_timeline,
    read_trace,
    route_script,
)

HEADER = """# route_trace v1
# model=my model.gguf arch=qwen3moe n_layer=3 n_expert=8 n_expert_used=2
# layer=0 expert_bytes=100 dense_bytes=7
# layer=2 expert_bytes=200 dense_bytes=9
"""
COLUMNS = ",".join(ROUTE_COLUMNS) + "\n"
ROWS = """0,0,0,0,0,3,0.75,0,100
0,0,0,0,1,5,0.25,1,0
0,0,1,0,0,5,0.5,0,0
0,0,1,0,1,3,0.5,0,0
0,0,1,2,0,7,0.5,1,0
0,0,1,2,1,0,0.5,1,0
0,1,2,0,0,1,0.9,0,100
0,1,2,0,1,2,0.1,0,100
0,1,2,2,0,6,1,1,0
"""


@pytest.fixture
def trace_file(tmp_path: Path) -> Path:
    return tmp_path / "trace.csv"


def refusal(path: Path, content: str | bytes) -> str:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(EdgemoeError) as error:
        read_trace(path)
    message = str(error.value)
    assert "\n" not in message
    return message.removeprefix(f"{path}:")


def test_a_trace_is_read(trace_file: Path) -> None:
    trace_file.write_text(HEADER + COLUMNS + ROWS)
    trace = read_trace(trace_file)
    assert (trace.num_layers, trace.num_experts, trace.num_used) == (3, 8, 2)
    assert (trace.model, trace.arch) == ("my model.gguf", "qwen3moe")
    assert trace.layer_expert_bytes == {0: 100, 2: 200}
    assert trace.layer_dense_bytes == {0: 7, 2: 9}
    assert trace.expert.tolist() == [3, 5, 5, 3, 7, 0, 1, 2, 6]
    assert trace.expert.dtype == np.int64
    assert trace.weight is not None
    assert trace.weight[0] == 0.75
    assert trace.residency is not None
    assert trace.residency.sum() == 4
    assert trace.expert_bytes is not None
    assert trace.expert_bytes.sum() == 300


def test_columns_may_move_and_comments_may_be_missing(trace_file: Path) -> None:
    content = "\ufeffexpert,note,slot,layer,step,phase,turn\r\n4,a b,0,1,9,1,0\r\n\r\n# end\r\n"
    trace_file.write_bytes(content.encode())
    trace = read_trace(trace_file)
    assert (trace.num_layers, trace.num_experts, trace.num_used) == (2, 5, 1)
    assert trace.step.tolist() == [9]
    assert trace.weight is trace.residency is trace.expert_bytes is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "1: there are no column names"),
        (HEADER, "5: there are no column names"),
        (HEADER + COLUMNS, "5: there are no rows"),
        (HEADER + "step,layer\n1,2\n", "5: column 'turn' is missing"),
        (COLUMNS.replace("slot", "turn") + "0,0,0,0,0,0,1,1,1\n", "1: column 'turn' comes 2 times"),
        (HEADER + COLUMNS + ROWS + "0,1,2\n", "15: 3 values for 9 columns"),
        (HEADER + COLUMNS + "0,1,2,0,0,1,1,0,0,8\n", "6: 10 values for 9 columns"),
        (HEADER + COLUMNS + ROWS + "0,1,2,0,0,x,1,0,0\n", "15: expert is 'x', not a number"),
        (HEADER + COLUMNS + ROWS + "0,1,2,0,,1,1,0,0\n", "15: slot is '', not a number"),
        (HEADER + COLUMNS + "0,1,-2,0,0,1,1,0,0\n", "6: step is -2"),
        (HEADER + COLUMNS + "0,1,2,0,0,1.5,1,0,0\n", "6: expert is 1.5"),
        (HEADER + COLUMNS + "0,2,2,0,0,1,1,0,0\n", "6: phase is 2"),
        (HEADER + COLUMNS + "0,1,2,0,0,1,nan,0,0\n", "6: weight is not a finite number"),
        (HEADER + COLUMNS + "0,1,2,0,0,inf,1,0,0\n", "6: expert is not a finite number"),
        (HEADER + COLUMNS + "0,1,2,0,0,8,1,0,0\n", "6: expert is 8; the header says n_expert=8"),
        (HEADER + COLUMNS + "0,1,2,3,0,0,1,0,0\n", "6: layer is 3; the header says n_layer=3"),
        (COLUMNS + "0,1,2,0,0,1e9,1,0,0\n", "2: expert is 1e+09"),
        (COLUMNS + "0,1,2,1000000,0,1,1,0,0\n", "2: layer is 1e+06"),
        ("# n_layer=2 n_expert=99999999999\n" + COLUMNS + ROWS, "1: n_expert=99999999999"),
        ("# n_expert=-1\n" + COLUMNS + ROWS, "1: n_expert=-1"),
        ("# layer=many expert_bytes=1\n" + COLUMNS + ROWS, "1: layer=many"),
        ("# route_trace v2\n" + COLUMNS + ROWS, "1: version 2"),
        ("# layer_timeline v1\n" + COLUMNS + ROWS, "1: this is a layer timeline"),
        (b"GGUF\x03\0\0\0\n", "1: this is not text"),
        ((HEADER + COLUMNS).encode() + b"\n\xff\xfe", "7: this is not text"),
    ],
)
def test_bad_traces_name_file_and_line(
    trace_file: Path, content: str | bytes, message: str
) -> None:
    assert refusal(trace_file, content).startswith(message)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ReadError, match="No such file"):
        read_trace(tmp_path / "missing")
    with pytest.raises(ReadError, match="directory"):
        read_trace(tmp_path)


def test_a_timeline_is_read_and_checked(tmp_path: Path) -> None:
    path = tmp_path / "times.csv"
    columns = ",".join(TIMELINE_COLUMNS)
    path.write_text(f"# layer_timeline v1\n{columns}\n0,0,0,0,7,0.5,1e-3,0,2e-3,4096,8,2\n")
    timeline = read_timeline(path)
    assert timeline.tokens.tolist() == [7]
    assert timeline.stall_seconds.tolist() == [2e-3]
    for row, problem in (
        ("0,0,0,0,0,0.5,1e-3,0,2e-3,4096,8,2", "tokens is 0"),
        ("0,0,0,0,7,0.5,-1,0,2e-3,4096,8,2", "compute_seconds is negative"),
    ):
        path.write_text(f"{columns}\n{row}\n")
        with pytest.raises(ModelFormatError, match=f"times.csv:2: {problem}"):
            read_timeline(path)


def test_a_script_fills_what_the_trace_lacks(trace_file: Path) -> None:
    trace_file.write_text(HEADER + COLUMNS + ROWS)
    trace = read_trace(trace_file)
    script = route_script(trace)
    # Layer 1 is in no row; step 0 lacks layer 2, step 2 its second expert there.
    assert script.tolist() == [[[3, 5], [7, 0]], [[5, 3], [7, 0]], [[1, 2], [6, -1]]]
    assert route_script(trace, DECODE).tolist() == [[[1, 2], [6, -1]]]
    assert len(route_script(trace, PREFILL)) == 2


def test_a_phase_that_the_trace_lacks_is_all_of_it(trace_file: Path) -> None:
    trace_file.write_text("turn,phase,step,layer,slot,expert\n0,0,0,0,0,1\n")
    assert route_script(read_trace(trace_file), DECODE).tolist() == [[[1]]]


def test_a_script_that_would_be_enormous_is_refused(trace_file: Path) -> None:
    rows = [f"0,0,{step},{step % 4096},{step % 1024},0" for step in range(9000)]
    trace_file.write_text("turn,phase,step,layer,slot,expert\n" + "\n".join(rows))
    with pytest.raises(ArgumentError, match="too many"):
        route_script(read_trace(trace_file))


def test_an_output_file_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "out"
    with pytest.raises(RuntimeError), output_file(str(path)) as file:
        file.write(b"half")
        raise RuntimeError
    assert not list(tmp_path.iterdir())
    with output_file(str(path)) as file:
        file.write(b"whole")
        assert not path.exists()
    assert path.read_bytes() == b"whole"
    with pytest.raises(ReadError, match="cannot be written"), output_file(str(path / "x")):
        pass
