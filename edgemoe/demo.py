"""The model that comes with the package."""

from __future__ import annotations

from pathlib import Path

from edgemoe import _core
from edgemoe.errors import ReadError

DEMO_PROMPT = "There was once a king who"
# Experts that do not fit have to be streamed: the demo is there to show that.
_SHARE_OF_EXPERTS = 0.5


def demo_path() -> Path:
    """The bundled model. Raises ReadError when the installation lacks it."""
    for path in sorted((Path(__file__).parent / "demo").glob("*.gguf")):
        return path
    raise ReadError("the bundled demo model is missing from this installation; name a model file")


def demo_memory(options: dict[str, object]) -> int:
    """A budget in bytes that holds half of the demo's experts."""
    plan = _core.ModelFile(str(demo_path())).plan({**options, "memory": "min"})
    return plan["least_bytes"] + int(_SHARE_OF_EXPERTS * plan["all_experts_bytes"])
