"""Chat templates: what they may do, and that none can keep the process busy."""

from __future__ import annotations

import time

import pytest
from test_text_vocabularies import CONTROL, bpe_values

from edgemoe.errors import ArgumentError, ModelFormatError
from edgemoe.text import ChatTemplate, TemplateLimits, Tokenizer

MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hi <b>"},
]

CHATML = """\
{%- for message in messages %}
    {%- if message.role == 'system' and not loop.first %}{% continue %}{% endif %}
{{ '<|im_start|>' + message['role'] + '\\n' + message.content | trim + '<|im_end|>' }}
{% endfor %}
{%- if add_generation_prompt %}
<|im_start|>assistant
{% endif %}
"""


def repeat(body: str) -> str:
    """A template that runs `body` 99 times, which makes anything that doubles too large."""
    start = "{% set n = namespace(x='ab', y=3) %}"
    return start + "{% for i in range(99) %}" + body + "{% endfor %}"


def render(source: str, **variables: object) -> str:
    return ChatTemplate(source).render(MESSAGES, variables=variables)


def test_a_usual_template_gives_the_prompt() -> None:
    assert ChatTemplate(CHATML).render(MESSAGES) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi <b><|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_the_generation_prompt_can_be_left_out() -> None:
    text = ChatTemplate(CHATML).render(MESSAGES, add_generation_prompt=False)
    assert text.endswith("<|im_end|>\n")


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{{ {'a': [1, 'é']} | tojson }}", '{"a": [1, "é"]}'),
        ("{{ [1] | tojson(indent=2) }}", "[\n  1\n]"),
        ("{% for x in [1, 2, 3] %}{% if x == 2 %}{% break %}{% endif %}{{ x }}{% endfor %}", "1"),
        (
            "{% set n = namespace(i=0) %}{% for c in 'ab' %}{% set n.i = 9 %}{% endfor %}{{ n.i }}",
            "9",
        ),
        ("{% macro f(x, y='b') %}{{ x ~ y }}{% endmacro %}{{ f('a') }}", "ab"),
        ("{{ messages[1:] | map(attribute='role') | join('-') }}", "user"),
        ("{{ messages | selectattr('role', 'equalto', 'user') | list | length }}", "1"),
        ("{{ 'a,b'.split(',')[-1].upper().replace('B', 'c') }}", "c"),
        ("{{ '%s-%d' % ('a', 1) }}", "a-1"),
        ("{{ '{} {}'.format('a', 1) }}", "a 1"),
        ("{% for k, v in {'a': 1}.items() %}{{ k }}={{ v }}{% endfor %}", "a=1"),
        ("{% generation %}x{% endgeneration %}", "x"),
        ("{% for x in 'abc' %}{{ x }}{{ ',' if not loop.last }}{% endfor %}", "a,b,c"),
        ("{{ tools is none }} {{ missing is defined }}", "True False"),
        ("{{ range(3) | list }}", "[0, 1, 2]"),
        ("{% set x %}a{% endset %}{{ x + 'b' }}", "ab"),
        ("{{ 'a\nb' | indent(2) }}", "a\n  b"),
        ("{{ strftime_now('%Y') | length }}", "4"),
    ],
)
def test_what_templates_use_works(source: str, expected: str) -> None:
    assert render(source) == expected


@pytest.mark.parametrize(
    "source",
    [
        "{% for a in range(10**9) %}x{% endfor %}",
        "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}",
        "{{ 'a' * 10**10 }}",
        "{{ 10**10 * 'a' }}",
        "{{ [1] * 10**9 }}",
        "{{ 9**9**9 }}",
        repeat("{% set n.y = n.y * n.y %}"),
        repeat("{% set n.x = n.x ~ n.x %}"),
        repeat("{% set n.x = n.x + n.x %}"),
        repeat("{% set y %}{{ n.x }}{{ n.x }}{% endset %}{% set n.x = y %}"),
        repeat("{% set n.x = [n.x, n.x] %}"),
        repeat("{% set n.x = (n.x, n.x) %}"),
        repeat("{% set n.x = dict(a=n.x, b=n.x) %}"),
        "{{ '%1000000000d' % 1 }}",
        "{{ '%*d' % (1000000000, 1) }}",
        "{{ '{:>1000000000}'.format(1) }}",
        "{{ '{:>{}}'.format(1, 1000000000) }}",
        "{% set a = 'a' * 100000 %}{{ a.replace('a', a) }}",
        "{% set a = 'a' * 100000 %}{{ a | replace('a', a) }}",
        "{% set a = 'a' * 100000 %}{{ range(100000) | join(a) }}",
        "{% set a = 'a' * 100000 %}{{ a.join(a) }}",
        "{% set r = range(100000) %}{{ ([r] * 100000) | map('join') | list }}",
        "{% macro f(n) %}{{ f(n - 1) }}{{ f(n - 1) if n }}{% endmacro %}{{ f(50) }}",
        "{% for i in [1] recursive %}{{ loop([1]) }}{% endfor %}",
        "{{ 'a\nb' | indent(10**9) }}",
        "{{ [1] | tojson(indent=10**9) }}",
        "{{ 1.5 | round(10**9, 'ceil') }}",
        "{{ strftime_now('%9999999d') }}",
        "{{ ('a' * 8000000) | sort | length }}",
        "{{ ('a' * 8000000) | join('') | length }}",
        "{{ ('ab ' * 2000000).split() | length }}",
        "{{ ('ab ' * 2000000).split(' ') | length }}",
        "{{ ('<' * 8000000) | e | length }}",
        "{{ ('%(x)s' * 30000) % {'x': 'a' * 1000000} }}",
        "{{ ('{x}' * 30000).format(x='a' * 1000000) }}",
        "{% set a = 'a' * 8000000 %}{% for i in range(99999) %}{{ 'ab' in a }}{% endfor %}",
    ],
)
def test_a_template_that_wants_too_much_is_stopped(source: str) -> None:
    template = ChatTemplate(source, limits=TemplateLimits(work=200_000, seconds=1.0))
    begin = time.monotonic()
    with pytest.raises(ArgumentError, match="chat template") as caught:
        template.render(MESSAGES)
    assert time.monotonic() - begin < 10
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ messages.append(1) }}",
        "{{ messages.__class__ }}{{ messages.__class__.__base__ }}",
        "{{ namespace.__init__.__globals__ }}",
        "{{ 'a'.center(10) }}",
        "{% include 'x' %}",
        "{{ (1).to_bytes(100) }}",
    ],
)
def test_the_sandbox_has_no_way_out(source: str) -> None:
    with pytest.raises(ArgumentError):
        render(source)


def test_a_template_can_refuse_the_messages() -> None:
    with pytest.raises(ArgumentError, match="refuses the messages: roles must alternate"):
        render("{{ raise_exception('roles must\nalternate') }}")


@pytest.mark.parametrize("source", ["{% for %}", "{{ 1 | nofilter }}", "{{ " + "(" * 9999])
def test_a_template_that_does_not_compile_is_a_format_error(source: str) -> None:
    with pytest.raises(ModelFormatError, match="does not compile") as caught:
        ChatTemplate(source)
    assert "\n" not in str(caught.value)


def test_a_huge_template_is_refused() -> None:
    with pytest.raises(ModelFormatError, match="limit"):
        ChatTemplate("a" * (1 << 20))


def test_messages_must_be_plain_data() -> None:
    with pytest.raises(ArgumentError, match="plain data"):
        ChatTemplate("{{ messages }}").render([{"content": object()}])
    deep: list[object] = []
    for _ in range(100):
        deep = [deep]
    with pytest.raises(ArgumentError, match="nested"):
        ChatTemplate("{{ messages }}").render([{"content": deep}])


def test_a_long_conversation_fits_the_limits() -> None:
    message = {"role": "user", "content": "word " * 40_000}
    assert len(ChatTemplate(CHATML).render([message] * 10)) > 1_900_000


def test_a_model_file_brings_its_template_and_token_names() -> None:
    values = bpe_values(["a b"], {"<s>": CONTROL, "</s>": CONTROL}) | {
        "tokenizer.ggml.bos_token_id": 257,
        "tokenizer.ggml.eos_token_id": 258,
        "tokenizer.chat_template": "{{ bos_token }}{{ messages[1].content }}{{ eos_token }}",
    }
    tokenizer = Tokenizer.from_metadata(values)
    template = ChatTemplate.from_metadata(values, tokenizer)
    assert template is not None
    assert template.render(MESSAGES) == "<s>Hi <b></s>"
    assert ChatTemplate.from_metadata(values, tokenizer, name="tool_use") is None
    damaged = values | {"tokenizer.chat_template": "\udcff"}
    with pytest.raises(ModelFormatError, match="not valid UTF-8"):
        ChatTemplate.from_metadata(damaged, tokenizer)
