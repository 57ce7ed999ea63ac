"""A loaded model: text or token ids in, text or logits out."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from edgemoe import _core
from edgemoe.demo import demo_path
from edgemoe.errors import ArgumentError, EdgemoeError, ModelFormatError
from edgemoe.generation import Generation
from edgemoe.options import MODES, CachePolicy, LoadOptions, PreloadPolicy, Sampling
from edgemoe.sizes import parse_memory
from edgemoe.stats import Stats
from edgemoe.text import ChatTemplate, Tokenizer
from edgemoe.traces import DECODE, PREFILL

Message = Mapping[str, object]
# Takes the phase of a step and the events that _core.Engine.take_trace() gave for it.
StepListener = Callable[[int, Mapping[str, Any]], None]

# Logits that are in memory at a time; the slack of the memory plan covers a few copies.
_LOGIT_BYTES = 2 << 20


class _Text:
    """The text side of a model file; without one (or with one that we lack) ids still work."""

    def __init__(self, path: str) -> None:
        self.problem: EdgemoeError | None = None
        self._tokenizer: Tokenizer | None = None
        self.template: ChatTemplate | None = None
        file = _core.GgufFile(path)
        values = {**file.values("tokenizer."), **file.values("general.name")}
        try:
            self._tokenizer = Tokenizer.from_metadata(values)
            self.template = ChatTemplate.from_metadata(values, self._tokenizer)
        except EdgemoeError as error:
            self.problem = error

    def check_size(self, rows: int) -> None:
        """Raises ModelFormatError when the tokenizer has tokens that the model lacks."""
        if self._tokenizer is not None and self._tokenizer.vocabulary_size > rows:
            raise ModelFormatError(
                f"the tokenizer has {self._tokenizer.vocabulary_size} tokens and the model {rows}; "
                "the file is damaged or was put together from two models"
            )

    def tokenizer(self) -> Tokenizer:
        if self._tokenizer is None:
            raise self.problem or ArgumentError("this model has no tokenizer; pass token ids")
        return self._tokenizer


class _Sequence:
    """The session of a model, and the tokens that its KV cache holds."""

    def __init__(self, engine: _core.Engine) -> None:
        self._engine = engine
        self._session = _core.Session(engine)
        self._tokens: list[int] = []
        self._source: list[int] = []  # that the encoder has read
        self.owner: object = None  # the generation whose turn it is
        self.listener: StepListener | None = None

    def encode(self, source: list[int]) -> None:
        """Lets the encoder read `source`, unless that is what it has read."""
        if source == self._source:
            return
        self._session.rewind(0)  # a signal handler is refused before anything changes
        self._tokens.clear()
        self._source = []
        self._session.encode(np.asarray(source, dtype=np.int32))
        self._source = source

    def evaluate(self, tokens: Sequence[int]) -> None:
        """Makes the sequence `tokens`, keeping what it has in common with the one before."""
        shared = 0
        # The last token is evaluated in any case: its logits are what is wanted.
        for old, new in zip(self._tokens, tokens[:-1], strict=False):
            if old != new:
                break
            shared += 1
        self._session.rewind(shared)
        del self._tokens[shared:]
        self.append(tokens[shared:])

    def append(self, tokens: Sequence[int], phase: int = PREFILL) -> None:
        ids = np.asarray(tokens, dtype=np.int32)
        generated = phase == DECODE
        if self.listener is None:
            self._session.evaluate(ids, generated)
        else:
            # The engine has room for the events of one step.
            step = self._engine.plan()["batch"]
            for first in range(0, len(ids), step):
                try:
                    self._session.evaluate(ids[first : first + step], generated)
                finally:
                    events = self._engine.take_trace()  # also drops those of a step that failed
                self.listener(phase, events)
        self._tokens += tokens

    def clear(self) -> None:
        self._session.rewind(0)
        self.owner = None
        self._tokens.clear()

    def last_logits(self) -> npt.NDArray[np.float32]:
        rows = self._session.logits(self._engine, self._session.num_rows - 1, 1)
        return rows.reshape(-1)

    def rows(self) -> Iterator[npt.NDArray[np.float32]]:
        """Logits of every row of the last batch, some rows at a time."""
        step = max(1, _LOGIT_BYTES // (4 * self._engine.vocabulary_size))
        for first in range(0, self._session.num_rows, step):
            count = min(step, self._session.num_rows - first)
            yield self._session.logits(self._engine, first, count)

    def __len__(self) -> int:
        return len(self._tokens)


class _SampledTokens:
    """Tokens of a sequence, chosen by a sampler."""

    def __init__(
        self,
        sequence: _Sequence,
        prompt: list[int],
        sampler: _core.Sampler,
        context: int,
        source: list[int] | None = None,
    ) -> None:
        self._sequence = sequence
        self._prompt = prompt
        self._source = source  # of an encoder
        self._sampler = sampler
        self._context = context

    def _require_turn(self) -> None:
        if self._sequence.owner is not self:
            raise ArgumentError(
                "another use of this model has begun since; a model runs one generation at a time"
            )

    def _choose(self) -> int:
        token = self._sampler.sample(self._sequence.last_logits())
        self._sampler.accept(token)
        return token

    def first(self) -> int:
        self._sequence.owner = self
        if self._source is not None:
            self._sequence.encode(self._source)
        self._sequence.evaluate(self._prompt)
        for token in self._prompt:
            self._sampler.accept(token)
        return self._choose()

    def after(self, token: int) -> int | None:
        self._require_turn()
        if len(self._sequence) >= self._context:
            return None
        self._sequence.append([token], DECODE)
        return self._choose()


class Model:
    """A model that is ready to run. One generation at a time; close it to free its memory."""

    def __init__(self, path: str, options: LoadOptions, *, with_text: bool = True) -> None:
        core_options = options.as_core()
        # The vocabulary is read, used and dropped before the engine plans: it counts what the
        # process holds.
        self._text = _Text(path) if with_text else None
        gc.collect()
        _core.return_freed_memory()
        self._file: _core.ModelFile | None = _core.ModelFile(path)
        spec = self._file.spec()
        self._start_token: int | None = spec["decoder_start_token"]
        if self._text is not None:
            self._text.check_size(spec["vocabulary"])
        _core.return_freed_memory()
        self._engine: _core.Engine | None = _core.Engine(self._file, core_options)
        self._sequence: _Sequence | None = _Sequence(self._engine)
        self._plan = self._engine.plan()
        self._is_lossy = options.is_lossy

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str] | None = None,
        *,
        memory: str | int = "auto",
        context: int = 0,
        batch: int = 0,
        threads: int = 0,
        kv_type: str = "f16",
        mode: str = MODES[0],
        eviction: str | CachePolicy = CachePolicy.name,
        io: str = "auto",
        preload: PreloadPolicy | None = None,
        cache_folder: str = "auto",
        governor: str = "auto",
        verify: bool = False,
        lossy_routing: float | None = None,
        lossy_low_copy: float | None = None,
    ) -> Model:
        """Loads a GGUF file (any shard of several), or the bundled demo model without `path`.

        `memory` bounds the whole process: "auto" (what the machine or its cgroup can spare),
        "min", a size such as "4GiB", or bytes. See options.LoadOptions for the rest; 0 chooses.

        Raises ReadError, ModelFormatError, UnsupportedModelError, MemoryBudgetError (says the
        least that would do) and ArgumentError.
        """
        if preload is not None and not isinstance(preload, PreloadPolicy):
            raise ArgumentError("preload must be a PreloadPolicy")
        chosen = preload or PreloadPolicy()
        evicting = eviction if isinstance(eviction, CachePolicy) else CachePolicy(eviction)
        options = LoadOptions(
            memory=memory,
            context=context,
            batch=batch,
            threads=threads,
            kv_type=kv_type,
            mode=mode,
            eviction=evicting.name,
            io=io,
            preload=chosen.name,
            predictor=chosen.predictor,
            look_ahead=chosen.layers,
            cache_folder=cache_folder,
            governor=governor,
            verify=verify,
            lossy_routing=lossy_routing,
            lossy_low_copy=lossy_low_copy,
        )
        return cls(os.fspath(path) if path is not None else str(demo_path()), options)

    def __enter__(self) -> Model:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Frees the memory. The model cannot be used afterwards."""
        self._sequence = None
        self._engine = None
        self._file = None

    def _open_sequence(self) -> _Sequence:
        if self._sequence is None:
            raise ArgumentError("the model is closed; load it again")
        return self._sequence

    def _open_engine(self) -> _core.Engine:
        if self._engine is None:
            raise ArgumentError("the model is closed; load it again")
        return self._engine

    @property
    def tokenizer(self) -> Tokenizer:
        """Raises UnsupportedModelError or ModelFormatError when the file's cannot be used."""
        if self._text is None:
            raise ArgumentError("this model was loaded without its tokenizer")
        return self._text.tokenizer()

    @property
    def chat_template(self) -> ChatTemplate | None:
        """The file's chat template, or None."""
        return None if self._text is None else self._text.template

    @property
    def has_encoder(self) -> bool:
        """An encoder reads the prompt, and a decoder answers: the prompt is not continued."""
        return self._start_token is not None

    @property
    def context(self) -> int:
        """Tokens that a prompt and its answer may have together; each, with an encoder."""
        return self._plan["context"]

    @property
    def vocabulary_size(self) -> int:
        return self._open_engine().vocabulary_size

    @property
    def level(self) -> str:
        """Instruction-set level of the kernels."""
        return self._open_engine().level

    @property
    def io(self) -> str:
        """The reader that brings experts: "uring", "pread", "buffered", or "none"."""
        return self._open_engine().io

    @property
    def is_lossy(self) -> bool:
        """An option that changes results is on; Stats says how much it did."""
        return self._is_lossy

    def memory_plan(self) -> dict[str, int]:
        """What was planned before anything was allocated, in bytes; context, batch, threads.

        After set_memory() it is the plan that this returned.
        """
        return dict(self._plan)

    def set_memory(self, memory: str | int) -> dict[str, int]:
        """Changes the bound of the whole process; takes what `memory` of load() takes.

        The expert pool gives or gets the difference: the context and everything else stay. A
        smaller bound holds when this returns; a larger one is filled as experts are used. Any
        thread may call it, a generation in another one then goes on with its next step. Results
        do not change. Returns the new plan; its "least_bytes" is the smallest bound that this model
        can be changed to.

            model.set_memory("3GiB")

        Raises MemoryBudgetError with the plan when the bound is below that, and ArgumentError in a
        signal handler that interrupts a step of this model; then nothing changes.
        """
        self._plan = self._open_engine().set_memory(parse_memory(memory))
        return dict(self._plan)

    def stats(self) -> Stats:
        """Counters since loading and the memory of the process.

        Any thread may ask at any time, a signal handler too; a computation in another thread lets
        it in after its step.
        """
        return Stats.from_core(self._open_engine().stats(), self._plan)

    def record(self, listener: StepListener) -> None:
        """From now on `listener(phase, events)` gets the events of every step after it.

        phase is traces.PREFILL or DECODE. events has arrays "routing" (position, layer, rank,
        expert, weight, resident, bytes_read: one element for each expert of each token) and
        "layers" (position, rows, layer, start_ns, alone_ns, overlap_ns, stall_ns, bytes_read,
        demands, hits). The model must have been loaded with LoadOptions(trace=True).
        """
        self._open_engine().take_trace()  # says so when it was not, and drops what is old
        self._open_sequence().listener = listener

    def router_recall(self) -> list[float | None]:
        """What share of the experts that decoding used did routers name that were asked early?

        By distance in layers; element 0 is the control, a layer's own router on its own input. None
        where nothing was guessed. The model must have been loaded with LoadOptions(trace=True).
        """
        counts = self._open_engine().router_recall()
        return [named / wanted if wanted else None for wanted, named in counts]

    def tokenize(
        self, text: str, *, add_bos: bool | None = None, parse_special: bool = False
    ) -> list[int]:
        """Token ids; see Tokenizer.encode."""
        return self.tokenizer.encode(text, add_bos=add_bos, parse_special=parse_special)

    def detokenize(self, ids: Sequence[int]) -> str:
        return self.tokenizer.decode(ids)

    def _checked_prompt(self, prompt: str | Sequence[int], parse_special: bool) -> list[int]:
        if isinstance(prompt, str):
            tokens = self.tokenize(prompt, parse_special=parse_special)
            eos = self.tokenizer.eos_id
            if self.has_encoder and tokens and self.tokenizer.add_eos and eos is not None:
                tokens.append(eos)
        else:
            tokens = [int(token) for token in prompt]
        if not tokens:
            raise ArgumentError("the prompt is empty; give some text")
        return tokens

    def generate(
        self,
        prompt: str | Sequence[int],
        *,
        max_tokens: int | None = None,
        sampling: Sampling | None = None,
        stop: Sequence[str] = (),
        parse_special: bool = False,
        **options: object,
    ) -> Generation:
        """Continues `prompt` (text or ids); iterate over the result for pieces of text. A model
        with an encoder answers it instead; ids are then taken as they are, and text gets the end
        token that such models expect.

        Ends at an end-of-generation token, a `stop` string (which is not shown), `max_tokens`, or
        the end of the context. `options` are fields of Sampling: temperature=0, seed=7, ...
        What the prompt has in common with the sequence before is not computed again.

        Raises ArgumentError when prompt and max_tokens do not fit the context, before anything is
        computed, and for sampling options out of range; while iterating, ReadError when storage
        fails: the model stays usable.
        """
        engine = self._open_engine()
        tokens = self._checked_prompt(prompt, parse_special)
        if max_tokens is not None and max_tokens < 0:
            raise ArgumentError("max_tokens must be 0 or more")
        self._check_room(len(tokens), max_tokens or 1)
        chosen = _sampling_from(sampling, options)
        sampler = _core.Sampler(chosen.as_core(), engine.vocabulary_size)
        begun = tokens if self._start_token is None else [self._start_token]
        source = None if self._start_token is None else tokens
        stream = _SampledTokens(self._open_sequence(), begun, sampler, self.context, source)
        return Generation(
            stream,
            self.tokenizer,
            prompt_tokens=len(tokens),
            max_tokens=max_tokens,
            stop=(stop,) if isinstance(stop, str) else stop,
            starts_text=self.has_encoder,
        )

    def _check_room(self, prompt_tokens: int, max_tokens: int) -> None:
        """With an encoder the prompt has a context of its own, and the answer another one."""
        needed = (
            max(prompt_tokens, max_tokens) if self.has_encoder else prompt_tokens + max_tokens - 1
        )
        if needed > self.context:
            raise ArgumentError(
                f"the prompt has {prompt_tokens} tokens and {max_tokens} are to follow; the "
                f"context holds {self.context}: load with a larger context or ask for less"
            )

    def chat(
        self,
        messages: Sequence[Message],
        *,
        max_tokens: int | None = None,
        sampling: Sampling | None = None,
        stop: Sequence[str] = (),
        **options: object,
    ) -> Generation:
        """Answers `messages` ({"role", "content"} each) with the file's chat template.

        Raises ArgumentError when the file has no template, and as generate() does.
        """
        template = self.chat_template
        if template is None:
            raise ArgumentError(
                "the model file has no chat template; use generate() with a prompt of your own"
            )
        prompt = self.tokenizer.encode(template.render(messages), add_bos=False, parse_special=True)
        chosen = _sampling_from(sampling, options)
        return self.generate(prompt, max_tokens=max_tokens, sampling=chosen, stop=stop)

    def logits(
        self,
        tokens: Sequence[int],
        *,
        one_by_one: bool = False,
        source: Sequence[int] | None = None,
    ) -> npt.NDArray[np.float32]:
        """Logits of every position, float32 [tokens, vocabulary]. `source` is what the encoder
        reads, of a model that has one; `tokens` are then those of the decoder.

        Raises ArgumentError for an id outside the vocabulary or more tokens than the context.
        """
        rows = list(self.logit_rows(tokens, one_by_one=one_by_one, source=source))
        return np.concatenate(rows)

    def logit_rows(
        self,
        tokens: Sequence[int],
        *,
        one_by_one: bool = False,
        source: Sequence[int] | None = None,
    ) -> Iterator[npt.NDArray[np.float32]]:
        """The logits of logits(), a few megabytes at a time: those of a long sequence are large."""
        if not tokens:
            raise ArgumentError("there are no tokens")
        if len(tokens) > self.context:
            raise ArgumentError(
                f"{len(tokens)} tokens were given; the context holds {self.context}"
            )
        if (source is not None) != self.has_encoder:
            raise ArgumentError(
                "this model has no encoder that could read a source"
                if source is not None
                else "this model has an encoder; say what it reads"
            )
        sequence = self._open_sequence()
        step = 1 if one_by_one else self._plan["batch"]
        sequence.clear()
        if source is not None:
            sequence.encode(list(source))
        for first in range(0, len(tokens), step):
            sequence.append(list(tokens[first : first + step]), DECODE if one_by_one else PREFILL)
            yield from sequence.rows()


def _sampling_from(sampling: Sampling | None, options: Mapping[str, object]) -> Sampling:
    if sampling is not None:
        if options:
            raise ArgumentError("give either sampling or single options, not both")
        return sampling
    unknown = set(options) - set(Sampling.__dataclass_fields__)
    if unknown:
        known = ", ".join(Sampling.__dataclass_fields__)
        raise ArgumentError(f"unknown sampling option {min(unknown)!r}; known: {known}")
    try:
        return Sampling(**options)  # type: ignore[arg-type]
    except TypeError as error:
        raise ArgumentError(str(error)) from None
