"""Hugging Face checkpoint folders to GGUF files."""

from edgemoe.convert.checkpoint import Checkpoint
from edgemoe.convert.conversion import ConversionReport, convert

__all__ = ["Checkpoint", "ConversionReport", "convert"]
