"""What a caller may choose when loading a model and when generating."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from edgemoe.errors import ArgumentError
from edgemoe.sizes import parse_memory

KV_TYPES = ("f16", "q8_0", "f32")
MODES = ("stream", "resident", "on-demand", "unbuffered", "layer-by-layer")
EVICTION_POLICIES = ("layer-aware", "lru", "lfu", "fifo", "paper")
PRELOAD_POLICIES = ("auto", "always", "none")
PREDICTORS = ("router", "transitions", "router-only")
MAX_LOOK_AHEAD = 3
GOVERNORS = ("auto", "on", "off")
IO_BACKENDS = ("auto", "uring", "pread", "buffered")


@dataclass(frozen=True)
class PreloadPolicy:
    """When experts are read before a layer asks for them. It changes times, never results.

    name       "auto" reads guesses that come true often enough, while the device has nothing else
               to do; "always" reads every guess; "none" reads on demand, as soon as the router has
               chosen
    layers     how many layers ahead is guessed, 0 to 3
    predictor  who guesses: "router" asks the routers of later layers about the current hidden
               state, and for the first layers what the token used before; "transitions" takes what
               followed the experts of the two layers before in place of routers (where its tables
               would be too large, routers are asked after all); "router-only" learns nothing
    """

    name: str = "auto"
    layers: int = 2
    predictor: str = PREDICTORS[0]

    def __post_init__(self) -> None:
        if self.name not in PRELOAD_POLICIES:
            known = ", ".join(PRELOAD_POLICIES)
            raise ArgumentError(f"unknown preload policy {self.name!r}; known: {known}")
        if not isinstance(self.layers, int) or not 0 <= self.layers <= MAX_LOOK_AHEAD:
            raise ArgumentError(f"layers must be 0 to {MAX_LOOK_AHEAD}")
        if self.predictor not in PREDICTORS:
            known = ", ".join(PREDICTORS)
            raise ArgumentError(f"unknown predictor {self.predictor!r}; known: {known}")


@dataclass(frozen=True)
class CachePolicy:
    """Which expert leaves when another needs its place. It changes times, never results.

    name  one of EVICTION_POLICIES
    """

    name: str = EVICTION_POLICIES[0]

    def __post_init__(self) -> None:
        if self.name not in EVICTION_POLICIES:
            known = ", ".join(EVICTION_POLICIES)
            raise ArgumentError(f"unknown eviction policy {self.name!r}; known: {known}")


def _utf8_path(path: str) -> str:
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        raise ArgumentError(f"cache folder {path!r}: the name is not valid UTF-8") from None
    return path


def cache_folder(choice: str) -> str:
    """The folder that LoadOptions.cache_folder names; empty for none. Raises ArgumentError."""
    if not isinstance(choice, str | os.PathLike):
        raise ArgumentError(f"cache_folder is {choice!r:.40}; give 'auto', 'none' or a folder")
    if choice == "none":
        return ""
    if choice != "auto":
        return _utf8_path(os.fspath(choice))
    chosen = os.environ.get("EDGEMOE_CACHE")
    if chosen is not None:
        return "" if chosen == "none" else _utf8_path(chosen)
    root = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    # Without a home there is no user to keep things for.
    return _utf8_path(os.path.join(root, "edgemoe")) if os.path.isabs(root) else ""


@dataclass(frozen=True)
class LoadOptions:
    """How a model is loaded; 0 lets the engine choose.

    memory    bound of the whole process: "auto", "min", "4GiB" or bytes
    context   positions of the KV cache
    batch     rows of one prefill step
    threads   that compute
    kv_type   one of KV_TYPES
    mode      one of MODES: "stream" caches experts and reads guesses ahead; "resident" reads all
              when loading; the others are baselines that keep no expert after its use: "on-demand"
              reads what routers choose, "unbuffered" guesses too, "layer-by-layer" reads whole
              layers
    eviction  one of EVICTION_POLICIES
    io        one of IO_BACKENDS, or "simulated:..." (tests)
    preload   one of PRELOAD_POLICIES, see PreloadPolicy
    predictor     one of PREDICTORS, see PreloadPolicy
    look_ahead    layers whose experts are guessed early, 0 to 3
    cache_folder  where what is learned about models and devices is kept between runs: "auto" is
                  $EDGEMOE_CACHE, else edgemoe in the user's cache folder; "none" keeps nothing
    governor  whether pressure on the system's memory shrinks the expert pool, see GOVERNORS;
              "auto" does with memory="auto"
    verify    compare what is read of a packed file with its checksums: dense weights when the model
              is loaded, experts whenever they are read; a difference raises ModelFormatError
    lossy_routing  lossy: experts in memory are preferred to the router's choice while tokens are
                  generated, so that this share of the routing weight (0.5 to 1) stays with the
                  router's choice; None leaves it alone. Preload "auto" then reads nothing ahead
                  while generating: that read more, not less
    lossy_low_copy  lossy: on a miss while tokens are generated, an expert's low copy is read and
                  used where the experts ranked before it have more than this share of the token's
                  routing weight (0 to below 1); None reads none. For files that edgemoe pack
                  --low-copy wrote. Preload "auto" as with lossy_routing
    trace     keep the events of each step for Model.record; takes memory of the budget
    """

    memory: str | int = "auto"
    context: int = 0
    batch: int = 0
    threads: int = 0
    kv_type: str = "f16"
    mode: str = MODES[0]
    eviction: str = "layer-aware"
    io: str = "auto"
    preload: str = PreloadPolicy.name
    predictor: str = PreloadPolicy.predictor
    look_ahead: int = PreloadPolicy.layers
    cache_folder: str = "auto"
    governor: str = GOVERNORS[0]
    verify: bool = False
    lossy_routing: float | None = None
    lossy_low_copy: float | None = None
    trace: bool = False

    def __post_init__(self) -> None:
        if self.governor not in GOVERNORS:
            known = ", ".join(GOVERNORS)
            raise ArgumentError(f"unknown governor {self.governor!r}; known: {known}")
        if self.lossy_routing is not None and not 0.5 <= self.lossy_routing < 1:
            raise ArgumentError(
                "lossy_routing is the share of the routing weight that the router keeps: at least "
                "0.5 and below 1; None is exact"
            )
        if self.lossy_low_copy is not None and not 0 <= self.lossy_low_copy < 1:
            raise ArgumentError(
                "lossy_low_copy is the share of the routing weight above which low copies serve: "
                "at least 0 and below 1; None is exact"
            )

    @property
    def is_lossy(self) -> bool:
        """An option that changes results is on."""
        return self.lossy_routing is not None or self.lossy_low_copy is not None

    def as_core(self) -> dict[str, object]:
        """The options as the core takes them. Raises ArgumentError for a bad memory size."""
        return {
            **asdict(self),
            "memory": parse_memory(self.memory),
            "cache_folder": cache_folder(self.cache_folder),
        }


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen. Defaults are those of llama.cpp.

    temperature         0 takes the most likely token
    top_k, top_p, min_p keep the most likely candidates; 0, 1 and 0 keep all
    repetition_penalty  above 1 makes tokens of the last penalty_window less likely
    presence_penalty, frequency_penalty  are subtracted from their logits, once and per occurrence
    logit_bias          token id -> value added to its logit
    seed                of the random numbers; the same seed gives the same text everywhere
    """

    temperature: float = 0.8
    top_k: int = 40
    top_p: float = 0.95
    min_p: float = 0.05
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    penalty_window: int = 64
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    seed: int = 0

    def as_core(self) -> dict[str, object]:
        """The options as the core takes them. Raises ArgumentError for a negative count."""
        for name in ("top_k", "penalty_window", "seed"):
            if getattr(self, name) < 0:
                raise ArgumentError(f"{name} must be 0 or more")
        return {**asdict(self), "seed": self.seed % (1 << 64), "logit_bias": dict(self.logit_bias)}
