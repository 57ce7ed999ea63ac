"""The Python interface, on the bundled demo model."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator

import numpy as np
import pytest

import edgemoe
from edgemoe import ArgumentError, MemoryBudgetError, Model, PreloadPolicy, ReadError
from edgemoe.options import PREDICTORS, LoadOptions

PROMPT = "There was once a king who"


@pytest.fixture(scope="module")
def model(demo: str) -> Iterator[Model]:
    with Model.load(demo, memory="min") as loaded:
        yield loaded


def greedy(model: Model, prompt: str | list[int] = PROMPT, **options: object) -> str:
    return "".join(model.generate(prompt, temperature=0, **{"max_tokens": 24, **options}))


def test_the_readme_example(demo: str) -> None:
    with Model.load(demo, memory="1GiB", preload=PreloadPolicy()) as model:
        assert "".join(model.generate("Once upon a time", max_tokens=8))
        assert 0 <= model.stats().hit_rate <= 1


def test_greedy_text_does_not_depend_on_the_budget(demo: str, model: Model) -> None:
    with Model.load(demo, memory="1GiB") as resident:
        assert greedy(resident) == greedy(model)


def test_a_seed_repeats_and_another_differs(model: Model) -> None:
    def told(seed: int) -> str:
        return "".join(model.generate(PROMPT, max_tokens=24, seed=seed))

    assert told(1) == told(1)
    assert told(1) != told(2)


def test_generation_says_why_it_ended(model: Model) -> None:
    generation = model.generate(PROMPT, max_tokens=5, temperature=0)
    text = "".join(generation)
    assert text
    assert generation.finish_reason == "length"
    assert len(generation.tokens) == 5
    assert generation.prompt_tokens == len(model.tokenize(PROMPT))


def test_a_stop_string_ends_the_text_and_is_not_shown(model: Model) -> None:
    full = greedy(model)
    stop = full[9:13]
    generation = model.generate(PROMPT, max_tokens=24, temperature=0, stop=[stop])
    assert "".join(generation) == full[: full.index(stop)]
    assert generation.finish_reason == "stop"


def test_a_common_beginning_is_not_computed_again(model: Model) -> None:
    first = greedy(model)
    before = model.stats().tokens
    assert greedy(model) == first
    # One row for the last prompt token, 23 for what was generated before.
    assert model.stats().tokens - before == 24


def test_logit_bias_forbids_a_token(model: Model) -> None:
    first = next(iter(model.generate(PROMPT, max_tokens=1, temperature=0)))
    token = model.tokenize(PROMPT + first)[-1]
    other = greedy(model, max_tokens=1, logit_bias={token: float("-inf")})
    assert other != first


def test_a_generation_that_was_overtaken_says_so(model: Model) -> None:
    overtaken = model.generate(PROMPT, max_tokens=20, temperature=0)
    next(overtaken)
    greedy(model)
    with pytest.raises(ArgumentError, match="one generation at a time"):
        list(overtaken)


def test_logits_row_by_row_equal_all_at_once(model: Model) -> None:
    tokens = model.tokenize(PROMPT)
    together = model.logits(tokens)
    assert together.shape == (len(tokens), model.vocabulary_size)
    assert np.array_equal(together, model.logits(tokens, one_by_one=True))


def test_a_prompt_beyond_the_context_is_refused_before_it_is_computed(model: Model) -> None:
    before = model.stats().tokens
    with pytest.raises(ArgumentError, match="context holds"):
        model.generate("word " * 3000)
    with pytest.raises(ArgumentError, match="context holds"):
        model.generate(PROMPT, max_tokens=100_000)
    assert model.stats().tokens == before


def test_the_end_of_the_context_ends_the_text(demo: str) -> None:
    with Model.load(demo, memory="min", context=16) as model:
        generation = model.generate(PROMPT, temperature=0)
        list(generation)
        assert generation.finish_reason == "length"
        assert generation.prompt_tokens + len(generation.tokens) == 17


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": -1},
        {"top_p": 0},
        {"min_p": 2},
        {"repetition_penalty": 0},
        {"top_k": -1},
        {"nonsense": 1},
        {"logit_bias": {999999: 1.0}},
        {"temperature": float("nan")},
    ],
)
def test_sampling_options_out_of_range_are_refused(
    model: Model, options: dict[str, object]
) -> None:
    with pytest.raises(ArgumentError):
        model.generate(PROMPT, **options)


@pytest.mark.parametrize("prompt", ["\ud800", [], [99999], [-1]])
def test_prompts_that_cannot_be_evaluated(model: Model, prompt: str | list[int]) -> None:
    with pytest.raises(ArgumentError):
        list(model.generate(prompt, max_tokens=1))
    assert greedy(model)


def test_a_budget_that_is_too_small_names_the_least(demo: str) -> None:
    with pytest.raises(MemoryBudgetError, match="least"):
        Model.load(demo, memory="8MiB")


@pytest.mark.parametrize(
    "options",
    [
        {"memory": "lots"},
        {"kv_type": "f8"},
        {"io": "carrier pigeon"},
        {"eviction": "random"},
        {"threads": -1},
        {"preload": "eager"},
    ],
)
def test_load_options_out_of_range_are_refused(demo: str, options: dict[str, object]) -> None:
    with pytest.raises(ArgumentError):
        Model.load(demo, **options)


def test_predictors_guess_from_the_second_token_on(demo: str) -> None:
    learned = {}
    for predictor in PREDICTORS:
        with Model.load(demo, memory="min", preload=PreloadPolicy("always", 3, predictor)) as model:
            greedy(model)
            stats = model.stats()
        assert 0 < stats.true_guesses <= stats.guesses, predictor
        learned[predictor] = stats.memory["learned_bytes"]
    assert 0 < learned["router-only"] < learned["router"] < learned["transitions"]


def test_an_unknown_predictor_is_refused_with_those_that_are_known(
    demo: str, fails: Callable[..., str]
) -> None:
    with pytest.raises(ArgumentError, match="'oracle'; known: router, transitions, router-only"):
        PreloadPolicy(predictor="oracle")
    with pytest.raises(ArgumentError, match="'oracle'; known: router, transitions, router-only"):
        Model(demo, LoadOptions(predictor="oracle"))
    assert "transitions" in fails(2, "run", demo, "-p", "x", "--predictor", "oracle")


def test_a_closed_model_says_so(demo: str) -> None:
    model = Model.load(demo, memory="min")
    model.close()
    with pytest.raises(ArgumentError, match="closed"):
        model.generate(PROMPT)


def test_memory_comes_back_after_closing(demo: str) -> None:
    def resident() -> int:
        gc.collect()
        return int(edgemoe._core.memory()["resident_bytes"])

    for _ in range(2):
        Model.load(demo, memory="1GiB").close()
    before = resident()
    for _ in range(5):
        with Model.load(demo, memory="1GiB") as model:
            greedy(model, max_tokens=2)
    assert resident() - before < 8 << 20


def test_a_read_error_fails_the_call_and_the_model_stays_usable(demo: str) -> None:
    with Model.load(demo, memory="min") as sound:
        expected = greedy(sound)
    # The device fails 40 reads in a row and recovers.
    io = "simulated:eio_after=100,eio_count=40"
    with Model.load(demo, memory="min", io=io) as model:
        errors = 0
        text = ""
        while not text and errors < 40:
            try:
                text = greedy(model)
            except ReadError as error:
                assert "layer" in str(error)
                errors += 1
        assert errors > 0
        assert text == expected


def test_q8_0_kv_cache_is_close_to_f16(demo: str) -> None:
    with Model.load(demo, memory="min", kv_type="f16") as model:
        tokens = model.tokenize(PROMPT)
        exact = model.logits(tokens)
    with Model.load(demo, memory="min", kv_type="q8_0") as model:
        rounded = model.logits(tokens)
    assert np.sqrt(np.mean((exact - rounded) ** 2) / np.mean(exact**2)) < 0.02


def test_chat_needs_a_template(model: Model) -> None:
    with pytest.raises(ArgumentError, match="template"):
        model.chat([{"role": "user", "content": "Hello"}])
