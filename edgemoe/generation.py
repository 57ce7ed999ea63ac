"""One running generation: tokens in, text out, until something ends it."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Protocol

from edgemoe.text import StreamDecoder, Tokenizer


class TokenStream(Protocol):
    """Chooses one token after another; None at the end of the context."""

    def first(self) -> int: ...

    def after(self, token: int) -> int | None: ...


def split_at_stop(text: str, stops: Sequence[str]) -> tuple[str, str, bool]:
    """(text that can be shown, text that may begin a stop string, whether one was met)."""
    positions = [position for stop in stops if (position := text.find(stop)) >= 0]
    if positions:
        return text[: min(positions)], "", True
    held = 0
    for stop in stops:
        for length in range(min(len(stop) - 1, len(text)), held, -1):
            if text.endswith(stop[:length]):
                held = length
                break
    return text[: len(text) - held], text[len(text) - held :], False


class Generation(Iterator[str]):
    """Iterates over the pieces of the text. The rest is known when the iteration has ended.

    tokens          ids that were generated, the one that ended it included
    finish_reason   "stop" (end token or stop string), "length", or None while it runs
    prompt_tokens   ids of the prompt
    prompt_seconds, seconds   time until the first token, and for all after it
    """

    def __init__(
        self,
        stream: TokenStream,
        tokenizer: Tokenizer,
        *,
        prompt_tokens: int,
        max_tokens: int | None,
        stop: Sequence[str],
        on_token: Callable[[int], None] | None = None,
        starts_text: bool = False,
    ) -> None:
        self.tokens: list[int] = []
        self.finish_reason: str | None = None
        self.prompt_tokens = prompt_tokens
        self.prompt_seconds = 0.0
        self.seconds = 0.0
        self._pieces = self._run(stream, tokenizer, max_tokens, tuple(filter(None, stop)))
        self._on_token = on_token
        self._starts_text = starts_text

    def __next__(self) -> str:
        return next(self._pieces)

    def close(self) -> None:
        """Ends the generation early."""
        self._pieces.close()

    @property
    def tokens_per_second(self) -> float:
        """Speed of decoding: the first token belongs to the prompt."""
        return (len(self.tokens) - 1) / self.seconds if self.seconds > 0 else 0.0

    def _next_token(self, stream: TokenStream) -> int | None:
        start = time.perf_counter()
        if not self.tokens:
            token: int | None = stream.first()
            self.prompt_seconds = time.perf_counter() - start
        else:
            token = stream.after(self.tokens[-1])
            self.seconds += time.perf_counter() - start
        return token

    def _run(
        self,
        stream: TokenStream,
        tokenizer: Tokenizer,
        max_tokens: int | None,
        stops: tuple[str, ...],
    ) -> Generator[str, None, None]:
        decoder = StreamDecoder(tokenizer)
        held = ""
        stopped = False
        while self.finish_reason is None:
            if max_tokens is not None and len(self.tokens) >= max_tokens:
                self.finish_reason = "length"
                break
            token = self._next_token(stream)
            if token is None:
                self.finish_reason = "length"
                break
            self.tokens.append(token)
            if self._on_token is not None:
                self._on_token(token)
            if token in tokenizer.eog_ids:
                self.finish_reason = "stop"
                break
            piece = decoder.feed(token)
            if self._starts_text and piece:  # a new text begins with a word, not with its space
                piece, self._starts_text = piece.removeprefix(" "), False
            shown, held, stopped = split_at_stop(held + piece, stops)
            if stopped:
                self.finish_reason = "stop"
            if shown:
                yield shown
        rest = "" if stopped else split_at_stop(held + decoder.flush(), ())[0]
        if rest:
            yield rest
