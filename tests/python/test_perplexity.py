"""Perplexity and divergence against plain formulas in float64; files of base log-probabilities."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from conftest import Run

from edgemoe import ArgumentError, EdgemoeError, Model, ModelFormatError, ReadError
from edgemoe.base_logits import MOST_NATS, decode_rows
from edgemoe.divergence import Perplexity
from edgemoe.errors import UnsupportedModelError
from edgemoe.perplexity import MemoryBase, _Block, measure_perplexity

Measure = Callable[..., Perplexity]
BOS = 1


class RandomModel:
    """Logits are random functions of (seed, token, position); a text is a list of ids."""

    has_encoder = False

    def __init__(self, vocabulary: int = 300, *, noise: float = 0.0, spread: float = 3.0) -> None:
        self.vocabulary_size = vocabulary
        self.noise = noise
        self.spread = spread
        self.tokenizer = SimpleNamespace(add_bos=True, bos_id=BOS)
        self.windows: list[list[int]] = []

    def tokenize(self, text: str) -> list[int]:
        return [int(word) % self.vocabulary_size for word in text.split()]

    def logits(self, tokens: Sequence[int]) -> np.ndarray:
        rows = []
        for position, token in enumerate(tokens):
            random = np.random.default_rng((token, position))
            row = random.standard_normal(self.vocabulary_size) * self.spread
            row += random.standard_normal(self.vocabulary_size) * self.noise
            rows.append(row)
        return np.array(rows, dtype=np.float32)

    def logit_rows(self, tokens: list[int], *, one_by_one: bool = False) -> Iterator[np.ndarray]:
        self.windows.append(tokens)
        step = 1 if one_by_one else 5
        for first in range(0, len(tokens), step):
            yield self.logits(tokens)[first : first + step]


def words(count: int, seed: int = 0) -> str:
    return " ".join(map(str, np.random.default_rng(seed).integers(2, 300, count)))


def log_probabilities(model: RandomModel, text: str, context: int) -> tuple[np.ndarray, np.ndarray]:
    """Float64 [scored, vocabulary], and the ids that came."""
    ids = model.tokenize(text)
    rows, targets = [], []
    for first in range(0, len(ids) - context + 1, context):
        window = ids[first : first + context]
        logits = model.logits([BOS, *window[1:]]).astype(np.float64)
        for position in range(context // 2, context - 1):
            row = logits[position]
            rows.append(row - np.log(np.exp(row).sum()))
            targets.append(window[position + 1])
    return np.array(rows), np.array(targets)


def error(values: np.ndarray) -> float:
    return float(np.sqrt(((values**2).mean() - values.mean() ** 2) / (len(values) - 1)))


def test_figures_are_those_of_the_plain_formulas() -> None:
    reference, model = RandomModel(), RandomModel(noise=0.4)
    text = words(200)
    base = MemoryBase()
    measure_perplexity(reference, text, context=16, save_base=base)  # type: ignore[arg-type]
    result = measure_perplexity(model, text, context=16, base=base)  # type: ignore[arg-type]

    log_p, ids = log_probabilities(reference, text, 16)
    log_q, _ = log_probabilities(model, text, 16)
    row = np.arange(len(ids))
    nll, base_nll = -log_q[row, ids], -log_p[row, ids]
    assert result.tokens == len(ids) == 12 * 7
    assert result.nll == pytest.approx(nll.mean(), rel=1e-6)
    assert result.nll_error == pytest.approx(error(nll), rel=1e-6)
    assert result.perplexity == pytest.approx(np.exp(nll.mean()), rel=1e-6)
    assert result.perplexity_error == pytest.approx(np.exp(nll.mean()) * error(nll), rel=1e-6)

    found = result.divergence
    assert found is not None
    kl = (np.exp(log_p) * (log_p - log_q)).sum(axis=1)
    # The base's log p are off by half a step at most, and d KL = sum p d(log p) (log p/q - KL).
    half_step = (log_p.max(axis=1) - log_p.min(axis=1)).max() / 65535 / 2
    close = half_step * (np.exp(log_p) * np.abs(log_p - log_q - kl[:, None])).sum(axis=1).max()
    assert close < 2e-4
    assert found.kl_mean == pytest.approx(kl.mean(), abs=close)
    assert found.kl_mean_error == pytest.approx(error(kl), abs=close)
    assert found.kl_median == pytest.approx(np.median(kl), abs=close)
    assert found.kl_max == pytest.approx(kl.max(), abs=close)
    for share in (90, 95, 99, 99.9):
        name = f"kl_{share}".replace(".", "")
        assert getattr(found, name) == pytest.approx(np.percentile(kl, share), abs=close)
    same = (log_p.argmax(axis=1) == log_q.argmax(axis=1)).mean()
    assert found.same_top1 == same
    assert found.same_top1_error == pytest.approx(np.sqrt(same * (1 - same) / (len(ids) - 1)))
    # The error of a ratio as llama-perplexity has it: variances less twice the covariance.
    covariance = ((nll * base_nll).mean() - nll.mean() * base_nll.mean()) / (len(ids) - 1)
    ratio = np.exp(nll.mean() - base_nll.mean())
    log_error = np.sqrt(error(nll) ** 2 + error(base_nll) ** 2 - 2 * covariance)
    assert found.perplexity_ratio == pytest.approx(ratio, rel=1e-6)
    assert found.perplexity_ratio_error == pytest.approx(ratio * log_error, rel=1e-5)
    assert found.nll_correlation == pytest.approx(covariance / error(nll) / error(base_nll))
    assert found.base_perplexity == pytest.approx(np.exp(base_nll.mean()), rel=1e-6)
    assert found.base_perplexity_error == pytest.approx(
        np.exp(base_nll.mean()) * error(base_nll), rel=1e-6
    )
    change = np.exp(-nll) - np.exp(-base_nll)
    rms = np.sqrt((change**2).mean())
    assert found.delta_p_mean == pytest.approx(change.mean(), rel=1e-4)
    assert found.delta_p_mean_error == pytest.approx(error(change), rel=1e-4)
    assert found.delta_p_rms == pytest.approx(rms, rel=1e-4)
    assert found.delta_p_rms_error == pytest.approx(error(change**2) / (2 * rms), rel=1e-4)


def measure(model: RandomModel, text: str | list[str], **options: Any) -> Perplexity:
    return measure_perplexity(model, text, context=16, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("spread", [0.0, 1.0, 10.0, 1000.0])
def test_a_model_does_not_diverge_from_itself(spread: float, tmp_path: Path) -> None:
    model = RandomModel(spread=spread)
    plain = measure(model, words(100), save_base=tmp_path / "base")
    same = measure(model, words(100), base=tmp_path / "base")
    assert same.perplexity == plain.perplexity
    assert same.divergence is not None
    assert 0 <= same.divergence.kl_max < 1e-7
    assert same.divergence.same_top1 == same.divergence.perplexity_ratio == 1
    assert same.divergence.perplexity_ratio_error == same.divergence.delta_p_rms == 0


def test_log_probabilities_are_off_by_half_a_step_at_most() -> None:
    logits = np.random.default_rng(1).standard_normal((50, 1000)).astype(np.float32) * 8
    block = _Block(np.zeros(50, dtype=np.int32), logits)
    decoded = decode_rows(block.rows())
    expected = np.maximum(block.below_top, -MOST_NATS)
    assert np.abs(decoded - expected).max() <= MOST_NATS / 65535 / 2 + 1e-5


def test_a_token_that_is_ruled_out() -> None:
    class Masking(RandomModel):
        def logits(self, tokens: Sequence[int]) -> np.ndarray:
            rows = super().logits(tokens)
            rows[:, 7] = -np.inf
            return rows

    base = MemoryBase()
    text = words(32).replace("7", "8")
    measure(Masking(), text, save_base=base)
    same = measure(Masking(), text, base=base)
    assert same.divergence is not None
    assert same.divergence.kl_max < 1e-7


def test_logits_that_are_no_numbers() -> None:
    class Broken(RandomModel):
        def logits(self, tokens: Sequence[int]) -> np.ndarray:
            return super().logits(tokens) * np.float32("nan")

    with pytest.raises(ModelFormatError, match="not numbers"):
        measure(Broken(), words(16))


def test_a_base_in_memory_and_in_a_file_say_the_same(tmp_path: Path) -> None:
    texts = [words(100, seed) for seed in range(3)]
    memory, file = MemoryBase(), tmp_path / "base"
    assert measure(RandomModel(), texts, save_base=memory) == measure(
        RandomModel(), texts, save_base=file
    )
    model = RandomModel(noise=0.1)
    assert measure(model, texts, base=memory) == measure(model, texts, base=file)
    # Any of the texts, in any order; the same text twice.
    for chosen in ([texts[2], texts[0]], [texts[1], texts[1]]):
        assert measure(model, chosen, base=memory) == measure(model, chosen, base=file)
    single = measure(model, texts[1], base=file)
    assert single == measure(model, texts, base=file).texts[1]
    assert [path.name for path in tmp_path.iterdir()] == ["base"]


def test_of_several_texts_the_mean() -> None:
    base = MemoryBase()
    texts = [words(160, 1), words(64, 2)]
    measure(RandomModel(), texts, save_base=base)
    result = measure(RandomModel(noise=0.3), texts, base=base)
    first, second = result.texts
    assert result.tokens == first.tokens + second.tokens
    assert result.perplexity == pytest.approx((first.perplexity + second.perplexity) / 2)
    assert result.nll_error == pytest.approx(np.hypot(first.nll_error, second.nll_error) / 2)
    means = [one.divergence for one in (first, second, result)]
    assert None not in means
    kl = [one.kl_mean for one in means]  # type: ignore[union-attr]
    assert kl[2] == pytest.approx((kl[0] + kl[1]) / 2)
    assert means[2].kl_max == max(means[0].kl_max, means[1].kl_max)  # type: ignore[union-attr]


def test_windows_are_spread_evenly() -> None:
    model = RandomModel()
    text = " ".join(str(2 + window) for window in range(12) for _ in range(16))
    measure(model, text, max_windows=3)
    assert [window[1] for window in model.windows] == [4, 8, 12]
    assert all(window[0] == BOS for window in model.windows)
    assert measure(model, text, max_windows=12) == measure(model, text, max_windows=99)
    with pytest.raises(ArgumentError, match="at least 1"):
        measure(model, text, max_windows=0)


def test_one_by_one_gives_the_same(demo: str) -> None:
    text = "Once upon a time there was a king who had three sons, and the youngest was called " * 6
    with Model.load(demo, context=64) as model:
        base = MemoryBase()
        whole = measure_perplexity(model, text, context=64, save_base=base)
        single = measure_perplexity(model, text, context=64, base=base, one_by_one=True)
    assert single.nll == whole.nll
    assert single.divergence is not None
    assert single.divergence.kl_max < 1e-7


def test_a_base_of_something_else(tmp_path: Path) -> None:
    file = tmp_path / "base"
    measure(RandomModel(), words(64), save_base=file)
    with pytest.raises(ArgumentError, match="300 tokens, and the model has 200"):
        measure(RandomModel(200), words(64), base=file)
    with pytest.raises(ArgumentError, match="--context 16"):
        measure_perplexity(
            RandomModel(),  # type: ignore[arg-type]
            words(64),
            context=32,
            base=file,
        )
    with pytest.raises(ArgumentError, match="another text"):
        measure(RandomModel(), words(64, seed=1), base=file)
    with pytest.raises(ArgumentError, match="choice of windows"):
        measure(RandomModel(), words(64), base=file, max_windows=2)
    with pytest.raises(ArgumentError, match="text 2 is not in it"):
        measure(RandomModel(), [words(64), words(64, seed=1)], base=file)
    with pytest.raises(ArgumentError, match="is empty"):
        measure(RandomModel(), words(64), base=MemoryBase())
    with pytest.raises(ReadError, match="--save-kl-base"):
        measure(RandomModel(), words(64), base=tmp_path / "none")


def test_any_byte_that_changes_is_found(tmp_path: Path) -> None:
    file = tmp_path / "base"
    measure(RandomModel(), words(40), save_base=file)
    good = file.read_bytes()
    random = np.random.default_rng(3)
    for at in [*range(20), *random.integers(20, len(good), 200)]:
        bad = bytearray(good)
        bad[at] ^= 1 << random.integers(8)
        file.write_bytes(bad)
        with pytest.raises(EdgemoeError):
            measure(RandomModel(), words(40), base=file)
    for size in [0, 7, 19, 60, len(good) // 2, len(good) - 1]:
        file.write_bytes(good[:size])
        with pytest.raises(ModelFormatError):
            measure(RandomModel(), words(40), base=file)
    file.write_bytes(good + b"\0")
    with pytest.raises(ModelFormatError, match="damaged"):
        measure(RandomModel(), words(40), base=file)
    file.write_bytes(good[:8] + b"\2" + good[9:])
    with pytest.raises(UnsupportedModelError, match="version 2"):
        measure(RandomModel(), words(40), base=file)


def test_a_base_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    file = tmp_path / "base"

    def stop(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure(RandomModel(), words(64), save_base=file, progress=stop)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ReadError, match="cannot be written"):
        measure(RandomModel(), words(64), save_base=tmp_path / "none" / "base")


def test_large_vocabularies_take_little_memory(tmp_path: Path) -> None:
    class Wide(RandomModel):
        def logit_rows(
            self, tokens: list[int], *, one_by_one: bool = False
        ) -> Iterator[np.ndarray]:
            for token in tokens:
                row = np.full((1, self.vocabulary_size), -9, dtype=np.float32)
                row[0, :token] = 0
                yield row

    model, file = Wide(150_001), tmp_path / "base"
    measure(model, words(16), save_base=file)  # what is allocated once
    tracemalloc.start()
    try:
        measure(model, words(16 * 12), save_base=file)
        measure(model, words(16 * 12), base=file)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert file.stat().st_size > 84 * 2 * 150_000
    assert peak < 8 << 20


def test_the_command_line(edgemoe: Run, demo: str, tmp_path: Path) -> None:
    texts = []
    for name in ("forest", "well"):
        texts += ["--file", tmp_path / name]
        (tmp_path / name).write_text(f"The King's daughter went to the {name} and sat down. " * 16)
    common = ("perplexity", demo, *texts, "-c", "64", "--windows", "2")
    assert edgemoe(*common, "--save-kl-base", tmp_path / "base").returncode == 0
    result = edgemoe(*common, "--kl-base", tmp_path / "base", "--kv-type", "q8_0", "--json")
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    names = {"kl_mean", "same_top1", "perplexity_ratio"}
    for figures in (report, *report["files"]):
        assert names | {name + "_error" for name in names} <= set(figures)
        assert 0 < figures["kl_mean"] < 0.1
    assert report["tokens_per_second"] > 0
    assert {"hit_rate", "bytes_read_per_token"} <= set(report)
    assert [Path(one["file"]).name for one in report["files"]] == ["forest", "well"]
    table = edgemoe(*common, "--kl-base", tmp_path / "base").stdout.decode()
    assert {"forest", "well", "mean"} <= set(table.splitlines()[0].split())
    assert "99.9 %" in table


def test_figures_without_a_meaning_are_null(edgemoe: Run, demo: str, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("a b c d e f")
    arguments = ("--file", tmp_path / "text", "-c", "4", "--windows", "1", "--json")
    result = edgemoe("perplexity", demo, *arguments)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["nll_error"] is None


def test_the_result_is_plain_data() -> None:
    assert json.dumps(asdict(measure(RandomModel(), words(64))))
