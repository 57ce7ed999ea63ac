"""Owns text: vocabularies, tokenizers, chat templates; of edgemoe it may import only errors."""

from __future__ import annotations

from edgemoe.text.chat_template import ChatTemplate
from edgemoe.text.stream import StreamDecoder
from edgemoe.text.template_budget import TemplateLimits
from edgemoe.text.tokenizer import Tokenizer

__all__ = ["ChatTemplate", "StreamDecoder", "TemplateLimits", "Tokenizer"]
