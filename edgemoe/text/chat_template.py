"""Turns a conversation into the text that a model was trained on, with the model's own template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from threading import Lock

from jinja2.exceptions import TemplateError

from edgemoe.errors import ArgumentError, EdgemoeError, ModelFormatError
from edgemoe.text.metadata import Metadata
from edgemoe.text.template_budget import (
    TemplateBudget,
    TemplateLimitError,
    TemplateLimits,
    input_units,
)
from edgemoe.text.template_sandbox import TemplateEnvironment, TemplateRaisedError
from edgemoe.text.tokenizer import Tokenizer

_DEFAULT_LIMITS = TemplateLimits()


class ChatTemplate:
    """A compiled chat template; it runs in a sandbox within TemplateLimits.

    The result names control tokens in plain text: encode it with parse_special=True and
    add_bos=False. A user's text in a message can then name control tokens too, as in every
    engine that uses these templates.

    >>> template = ChatTemplate("{% for m in messages %}[{{ m.role }}] {{ m.content }}{% endfor %}")
    >>> template.render([{"role": "user", "content": "Hello"}])
    '[user] Hello'
    """

    def __init__(
        self,
        source: str,
        *,
        bos_token: str = "",
        eos_token: str = "",
        limits: TemplateLimits = _DEFAULT_LIMITS,
    ) -> None:
        if len(source) > limits.source_characters:
            raise ModelFormatError(
                f"the chat template has {len(source)} characters, the limit is "
                f"{limits.source_characters}; pass a smaller template"
            )
        self._limits = limits
        self._tokens = {"bos_token": bos_token, "eos_token": eos_token}
        self._lock = Lock()
        self._environment = TemplateEnvironment()
        try:
            self._template = self._environment.compile_template(source)
        except (TemplateError, SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise ModelFormatError(
                f"the chat template does not compile ({_one_line(error)}); pass another one"
            ) from None

    @classmethod
    def from_metadata(
        cls, values: Mapping[str, object], tokenizer: Tokenizer, *, name: str | None = None
    ) -> ChatTemplate | None:
        """The template of a model file, or None when the file has none of that name."""
        key = "tokenizer.chat_template" + ("" if name is None else f".{name}")
        source = Metadata(values).text(key)
        if source is None:
            return None
        try:
            source.encode()
        except UnicodeError:
            raise ModelFormatError(
                f"{key} is not valid UTF-8; the file is damaged, pass a template of your own"
            ) from None
        return cls(
            source,
            bos_token=_token_text(tokenizer, tokenizer.bos_id),
            eos_token=_token_text(tokenizer, tokenizer.eos_id),
        )

    def render(
        self,
        messages: Sequence[Mapping[str, object]],
        *,
        add_generation_prompt: bool = True,
        tools: Sequence[Mapping[str, object]] | None = None,
        variables: Mapping[str, object] | None = None,
    ) -> str:
        """The prompt for `messages`; `variables` are further names that the template knows."""
        values: dict[str, object] = {
            **self._tokens,
            **(variables or {}),
            "messages": list(messages),
            "tools": None if tools is None else list(tools),
            "add_generation_prompt": add_generation_prompt,
        }
        size = input_units(values)
        with self._lock:
            self._environment.budget = TemplateBudget(self._limits, size)
            try:
                return str(self._template.render(values))
            except TemplateLimitError as error:
                raise ArgumentError(
                    f"the chat template was stopped: {_one_line(error)}; use another template"
                ) from None
            except TemplateRaisedError as error:
                raise ArgumentError(
                    f"the chat template refuses the messages: {_one_line(error)}"
                ) from None
            except EdgemoeError:
                raise
            except Exception as error:  # noqa: BLE001 - a template can fail in any way
                raise ArgumentError(
                    f"the chat template failed ({type(error).__name__}: {_one_line(error)}); "
                    "check the messages or use another template"
                ) from None


def _token_text(tokenizer: Tokenizer, token: int | None) -> str:
    return "" if token is None else tokenizer.token_bytes(token).decode("utf-8", "replace")


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
