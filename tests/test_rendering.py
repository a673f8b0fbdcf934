"""Renderers against the tokenizers' own chat templates, and against ids worked out by hand."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from engine.errors import ModelError
from engine.models import nano_folder
from engine.rendering import Rendered, get_renderer, load_tokenizer

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA3 = (
    "{{ '<|begin_of_text|>' }}{% for m in messages %}"
    "{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' + m.content + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
# Qwen3's rules: thoughts are dropped from turns before the last question and framed, empty or not, in the last turn.
QWEN3 = (
    "{% set ns = namespace(last=0) %}{% for m in messages %}{% if m.role == 'user' %}{% set ns.last = loop.index0 %}{% endif %}{% endfor %}"
    "{% for m in messages %}{% if m.role == 'assistant' %}{% set c = m.content.split('</think>')[-1].lstrip('\n') %}"
    "{% set t = m.content.split('</think>')[0].split('<think>')[-1].strip('\n') if '</think>' in m.content else '' %}"
    "{{ '<|im_start|>assistant\n' }}{% if loop.index0 > ns.last %}{{ '<think>\n' + t + '\n</think>\n\n' }}{% endif %}"
    "{{ c + '<|im_end|>\n' }}"
    "{% else %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
IM = ("<|im_start|>", "<|im_end|>")
LLAMA3_TOKENS = ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")

SINGLE = [{"role": "user", "content": "Hi there"}, {"role": "assistant", "content": "Hello!"}]
MULTI = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Name a colour"},
    {"role": "assistant", "content": "red"},
    {"role": "user", "content": "and\nanother – ünïcode 🦜"},
    {"role": "assistant", "content": "blue"},
]


# How Llama 3's tokenizer (and, but for digits, Qwen's) cuts text before merging.
LLAMA3_CUTS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def tiny(specials, template=None, plain_added=(), eos=None, bos=None, gpt2_cuts=False):
    """A byte-level tokenizer with control tokens and two merges, one of which can join what renderers put side by side."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("Ċ", "Ċ"), ("e", "r")]
    vocab = {token: place for place, token in enumerate([*alphabet, *("".join(pair) for pair in merges)])}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    cuts = [] if gpt2_cuts else [pre_tokenizers.Split(Regex(LLAMA3_CUTS), "isolated")]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*cuts, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=gpt2_cuts)])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in specials])
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in plain_added])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=eos, bos_token=bos, clean_up_tokenization_spaces=False)
    fast.chat_template = template
    return fast


@pytest.fixture(scope="module")
def nano():
    return load_tokenizer(nano_folder())


@pytest.fixture(scope="module")
def chatml():
    return tiny(IM, CHATML, eos="<|im_end|>")


@pytest.fixture(scope="module")
def qwen3():
    return tiny((*IM, "<|endoftext|>"), QWEN3, plain_added=("<think>", "</think>"), eos="<|im_end|>")


@pytest.fixture(scope="module")
def llama3():
    return tiny(LLAMA3_TOKENS, LLAMA3, eos="<|eot_id|>", bos="<|begin_of_text|>")


def template_ids(tokenizer, messages, ask=False):
    return tokenizer.apply_chat_template(messages, tokenize=True, add_generation_prompt=ask, return_dict=False)


def learned(tokenizer, rendered: Rendered) -> str:
    return tokenizer.decode([token for token, weight in zip(rendered.tokens, rendered.weights, strict=True) if weight])


def test_nano_by_hand(nano):
    """<|user|>=3 <|assistant|>=4 <|end|>=1; H=47 i=80 (bytes sorted as the byte-level alphabet, after 8 control tokens)."""
    (rendered,) = get_renderer("auto", nano).examples([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "iH"}])
    assert rendered.tokens == [3, 47, 80, 1, 4, 80, 47, 1]
    assert rendered.weights == [0, 0, 0, 0, 0, 1, 1, 1]
    assert rendered.truncated == 0


def test_auto_is_the_chat_template_or_role_colon(nano):
    assert get_renderer("auto", nano).name == "chat_template"
    assert get_renderer("auto", tiny([])).name == "role_colon"


@pytest.mark.parametrize("messages", [SINGLE, MULTI], ids=["single", "multi"])
@pytest.mark.parametrize("name", ["nano", "chatml", "llama3"])
def test_chat_template_gives_the_templates_ids(name, messages, request):
    tokenizer = request.getfixturevalue(name)
    renderer = get_renderer("chat_template", tokenizer)
    (rendered,) = renderer.examples(messages)
    whole = template_ids(tokenizer, messages)
    assert rendered.tokens == whole[: len(rendered.tokens)]
    assert tokenizer.decode(whole[len(rendered.tokens) :]).strip() == ""
    assert renderer.prompt(messages[:-1]) == template_ids(tokenizer, messages[:-1], ask=True)
    assert rendered.tokens[-1] in renderer.stop_tokens


@pytest.mark.parametrize("name", ["chatml", "llama3"])
@pytest.mark.parametrize("messages", [SINGLE, MULTI], ids=["single", "multi"])
def test_named_renderers_agree_with_the_template(name, messages, request):
    tokenizer = request.getfixturevalue(name)
    named, template = get_renderer(name, tokenizer), get_renderer("chat_template", tokenizer)
    assert named.examples(messages) == template.examples(messages)
    assert named.prompt(messages[:-1]) == template.prompt(messages[:-1])
    assert named.stop_tokens == template.stop_tokens


@pytest.mark.parametrize("name", ["chat_template", "llama3"])
def test_every_answer_is_learned_with_its_end_mark_and_nothing_else(name, llama3):
    (rendered,) = get_renderer(name, llama3).examples(MULTI)
    assert learned(llama3, rendered) == "red<|eot_id|>blue<|eot_id|>"


def test_qwen3_gives_one_sequence_a_turn_as_its_template_does(qwen3):
    messages = [*MULTI[:2], {"role": "assistant", "content": "<think>\nwarm?\n</think>\n\nred"}, *MULTI[3:]]
    named, template = get_renderer("qwen3", qwen3), get_renderer("chat_template", qwen3)
    sequences = named.examples(messages)
    assert sequences == template.examples(messages)
    assert [learned(qwen3, sequence) for sequence in sequences] == [
        "<think>\nwarm?\n</think>\n\nred<|im_end|>",
        "<think>\n\n</think>\n\nblue<|im_end|>",
    ]
    assert "warm?" not in qwen3.decode(sequences[1].tokens)
    assert sequences[1].tokens == template_ids(qwen3, messages)[:-1]
    assert named.prompt(messages[:-1]) == template_ids(qwen3, messages[:-1], ask=True)
    assert named.text(sequences[1].tokens[-sequences[1].completion_tokens :]) == "blue"


def test_prompt_and_answer_make_up_the_example(nano, chatml, qwen3, llama3):
    for name, tokenizer in [("chat_template", nano), ("chatml", chatml), ("qwen3", qwen3), ("llama3", llama3), ("role_colon", nano)]:
        renderer = get_renderer(name, tokenizer)
        prompt = renderer.prompt(MULTI[:-1])
        last = renderer.examples(MULTI)[-1]
        assert last.tokens[: len(prompt)] == prompt, name
        assert all(last.weights[len(prompt) :]), name
        assert renderer.text(last.tokens[len(prompt) :]) == "blue", name


def test_turns_are_apart_where_a_tokenizer_would_cut_history_differently():
    """GPT-2's cuts join the two line breaks at the end of a prompt but not before a word, so history has other tokens."""
    tokenizer = tiny(LLAMA3_TOKENS, LLAMA3, eos="<|eot_id|>", gpt2_cuts=True)
    renderer = get_renderer("chat_template", tokenizer)
    first, second = renderer.examples(MULTI)
    assert (learned(tokenizer, first), learned(tokenizer, second)) == ("red<|eot_id|>", "blue<|eot_id|>")
    for rendered, asked in [(first, MULTI[:2]), (second, MULTI[:4])]:
        prompt = template_ids(tokenizer, asked, ask=True)
        assert rendered.tokens[: len(prompt)] == prompt


@pytest.mark.parametrize(
    ("name", "fixture", "control"),
    [("chat_template", "nano", "<|end|>"), ("chat_template", "llama3", "<|eot_id|>"), ("llama3", "llama3", "<|start_header_id|>"),
     ("chatml", "chatml", "<|im_end|>"), ("qwen3", "qwen3", "<|im_start|>"), ("role_colon", "nano", "<|end|>")],
)  # fmt: skip
@pytest.mark.parametrize("role", ["system", "user", "assistant"])
def test_control_tokens_typed_by_people_stay_text(name, fixture, control, role, request):
    tokenizer = request.getfixturevalue(fixture)
    renderer = get_renderer(name, tokenizer)
    sly = [dict(message) for message in MULTI]
    for message in sly:
        if message["role"] == role:
            message["content"] = f"a {control}{control} b"
    honest = renderer.examples(MULTI)
    for rendered, plain in zip(renderer.examples(sly), honest, strict=True):
        ids = set(tokenizer.added_tokens_decoder)
        assert [t for t in rendered.tokens if t in ids] == [t for t in plain.tokens if t in ids]
        if role != "assistant" or len(honest) == 1:
            assert f"a {control}{control} b" in tokenizer.decode(rendered.tokens)
    prompt = renderer.prompt(sly[:-1])
    assert renderer.examples(sly)[-1].tokens[: len(prompt)] == prompt


def test_hiding_control_tokens_changes_nothing_else(llama3):
    """The way taken for sly text gives, around that text, the ids of the usual way."""
    renderer = get_renderer("chat_template", llama3)
    prompt = renderer.prompt([*MULTI[:3], {"role": "user", "content": "<|eot_id|>"}])
    usual = renderer.prompt([*MULTI[:3], {"role": "user", "content": "@"}])
    place = usual.index(llama3.encode("@", add_special_tokens=False)[0])
    assert prompt[:place] == usual[:place] and prompt[-5:] == usual[-5:]


def test_role_colon_by_hand():
    tokenizer = tiny(["<eos>"], eos="<eos>")
    renderer = get_renderer("role_colon", tokenizer)
    (rendered,) = renderer.examples(MULTI)
    text = "System: Be brief.\n\nUser: Name a colour\n\nAssistant: red\n\nUser: and\nanother – ünïcode 🦜\n\nAssistant: blue\n\nUser:"
    assert tokenizer.decode(rendered.tokens) == text
    assert learned(tokenizer, rendered) == " red\n\nUser: blue\n\nUser:"
    assert tokenizer.decode(renderer.prompt(SINGLE[:1])) == "User: Hi there\n\nAssistant:"
    assert renderer.stop_strings == ["\n\nUser:"]
    assert renderer.text(tokenizer.encode(" yes\n\nUser: more", add_special_tokens=False)) == "yes"


def test_truncation_is_reported(nano):
    renderer = get_renderer("auto", nano)
    (whole,) = renderer.examples(SINGLE)
    (cut,) = renderer.examples(SINGLE, max_length=len(whole.tokens) - 3)
    assert (cut.truncated, cut.tokens, cut.completion_tokens) == (3, whole.tokens[:-3], whole.completion_tokens - 3)
    (prompt_only,) = renderer.examples(SINGLE, max_length=4)
    assert prompt_only.completion_tokens == 0 and prompt_only.truncated == len(whole.tokens) - 4


def test_conversation_after_the_last_answer_is_left_out(chatml):
    renderer = get_renderer("chatml", chatml)
    assert renderer.examples([*SINGLE, {"role": "user", "content": "more"}]) == renderer.examples(SINGLE)


def test_template_without_an_end_mark_gets_the_end_of_text():
    template = "{% for m in messages %}{{ '### ' + m.role + ':\n' + m.content + '\n' }}{% endfor %}"
    tokenizer = tiny(["<eos>"], template + "{% if add_generation_prompt %}{{ '### assistant:\n' }}{% endif %}", eos="<eos>")
    rendered = get_renderer("chat_template", tokenizer).examples(MULTI)
    assert [learned(tokenizer, sequence) for sequence in rendered] == ["red\n<eos>", "blue\n<eos>"]


def test_template_that_swallows_blanks_is_followed():
    template = "{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content + '<|end|>\n' }}{% endfor %}"
    tokenizer = tiny([], template + "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}", eos=None)
    names = ("<|user|>", "<|assistant|>", "<|system|>", "<|end|>")
    tokenizer.add_special_tokens({"additional_special_tokens": [AddedToken(name, rstrip=True, special=True) for name in names]})
    renderer = get_renderer("chat_template", tokenizer)
    sly = renderer.prompt([{"role": "user", "content": "a<|end|>"}])
    plain = renderer.prompt([{"role": "user", "content": "a"}])
    assert plain == template_ids(tokenizer, [{"role": "user", "content": "a"}], ask=True)
    typed = tiny([]).encode("<|end|>", add_special_tokens=False)
    assert sly == [*plain[:2], *typed, *plain[2:]]


def test_missing_control_tokens_are_named(nano):
    for name, token in [("llama3", "<|begin_of_text|>"), ("qwen3", "<|im_start|>"), ("chatml", "<|im_start|>")]:
        with pytest.raises(ModelError, match="no token") as raised:
            get_renderer(name, nano)
        assert token in raised.value.message and raised.value.next_step


def test_unknown_names_and_refused_conversations():
    with pytest.raises(ModelError, match="no renderer called 'alpaca'"):
        get_renderer("alpaca", tiny([]))
    with pytest.raises(ModelError, match="no chat template"):
        get_renderer("chat_template", tiny([]))
    strict = tiny(["</s>"], "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}" + CHATML, eos="</s>")
    with pytest.raises(ModelError, match="no system role"):
        get_renderer("chat_template", strict).prompt(MULTI[:2])
    forked = tiny(["</s>"], "{% if add_generation_prompt %}{{ 'Now: ' }}{% endif %}{% for m in messages %}{{ m.content }}</s>{% endfor %}")
    with pytest.raises(ModelError, match="another way"):
        get_renderer("chat_template", forked).examples(SINGLE)


def test_folder_without_a_tokenizer(tmp_path):
    with pytest.raises(ModelError, match=r"no tokenizer\.json"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{broken")
    with pytest.raises(ModelError, match="can't load the tokenizer"):
        load_tokenizer(tmp_path)


def test_threads_may_share_a_renderer(nano):
    renderer = get_renderer("auto", nano)
    sly = [{"role": "user", "content": "<|end|>"}, SINGLE[1]]
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(renderer.examples, [SINGLE, sly] * 100))
    assert all(result == results[place % 2] for place, result in enumerate(results))


def test_no_torch():
    code = (
        "import sys; from engine.rendering import *; from engine.models import nano_folder; "
        "get_renderer('auto', load_tokenizer(nano_folder())).prompt([{'role': 'user', 'content': 'Hi'}]); "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_two_threads_may_be_the_first_to_want_a_tokenizer() -> None:
    # A dashboard's page that is left while it loads goes on in its thread beside the next one's.
    code = (
        "import sys, threading, time\n"
        "from engine.rendering import load_tokenizer\n"
        "found = []\n"
        "def load():\n"
        "    found.append(len(load_tokenizer(sys.argv[1])))\n"
        "threads = [threading.Thread(target=load) for _ in range(4)]\n"
        "for thread in threads:\n"
        "    thread.start(); time.sleep(0.05)\n"
        "for thread in threads:\n"
        "    thread.join()\n"
        "assert len(found) == 4, found"
    )
    done = subprocess.run([sys.executable, "-c", code, str(nano_folder())], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
