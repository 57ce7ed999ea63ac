"""Owns the command line; may use everything in edgemoe, and nothing else uses it."""

from __future__ import annotations

from edgemoe.cli.main import main

__all__ = ["main"]
