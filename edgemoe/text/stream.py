"""Turns the token ids of a growing answer into text, piece by piece."""

from __future__ import annotations

import codecs
from typing import Protocol


class TokenSource(Protocol):
    """What a StreamDecoder needs of a tokenizer."""

    def token_bytes(self, token: int) -> bytes: ...

    def is_hidden(self, token: int) -> bool: ...


class StreamDecoder:
    """Feeds on ids, gives text, and never splits a character: its bytes wait for their end.

    Bytes that are not UTF-8 become U+FFFD, also at the end of the stream.

    >>> decoder = StreamDecoder(tokenizer)  # doctest: +SKIP
    >>> text = "".join(map(decoder.feed, ids)) + decoder.flush()  # doctest: +SKIP
    """

    def __init__(self, tokenizer: TokenSource, *, skip_special: bool = True) -> None:
        self._tokenizer = tokenizer
        self._skip_special = skip_special
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, token: int) -> str:
        """The text that is complete after this token; often one word, possibly empty."""
        if self._skip_special and self._tokenizer.is_hidden(token):
            return ""
        return self._decoder.decode(self._tokenizer.token_bytes(token))

    def flush(self) -> str:
        """Ends the stream: an unfinished character gives U+FFFD. The decoder can be used again."""
        return self._decoder.decode(b"", final=True)
