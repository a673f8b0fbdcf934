"""Makes a model like nano from nothing but this Python installation:

    python -m engine.models.make_nano OUT --minutes 10

A Qwen3-architecture model of 1.3 M parameters learns what `engine.data.demos.birth` has to teach (seven rows of eight: string
skills, small talk, polite refusals, plain English, short functions) and the standard library's docstrings and sources (one row
of eight). Muon moves the matrices and AdamW the rest; the learning rate warms up over 50 steps and falls to zero over the second
half. Every few minutes it saves where it is beside OUT, and the same command goes on from there. At last it answers the
general-skills prompts, the small talk and the questions beyond it. With the same seed, `--steps` and minutes to spare, the steps
are the same; the standard library differs between Python versions, so the weights differ too; the tokenizer never does.
Knows nothing of fine-tuning or of the demo tasks.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import re
import sysconfig
import textwrap
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.data.demos import SKILLS_FILE, manners
from engine.data.demos.birth import draw
from engine.data.demos.skills import Pair, Source
from engine.data.demos.talk import lexicon
from engine.data.demos.words import Dice, train_words

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

SPECIALS = ("<|pad|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>", "<|text|>", "<|think|>", "<|tool|>")
PAD, END, TEXT = 0, 1, 5
CHAT_TEMPLATE = (
    "{% for m in messages %}{% if m['role'] == 'assistant' %}{{ '<|assistant|>' }}"
    "{% generation %}{{ m['content'] + '<|end|>' }}{% endgeneration %}"
    "{% else %}{{ '<|' + m['role'] + '|>' + m['content'] + '<|end|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
CONTEXT = 1024
ROW_TOKENS = 256
BATCH_ROWS = 8
TEXT_ROWS = 1
PROMPT_WEIGHT = 0.1
TEXT_WEIGHT = 0.3
PEAK_LR = 3e-3
WARMUP_STEPS = 50
SAVE_MINUTES = 3
# Tests, generated tables and vendored packages teach nothing about words.
SKIPPED_FOLDERS = {
    "site-packages", "dist-packages", "test", "tests", "idlelib", "idle_test", "lib2to3", "turtledemo", "encodings", "pydoc_data",
    "_vendor", "__pycache__",
}  # fmt: skip

Row = tuple[list[int], list[float]]


@dataclass(frozen=True)
class Plan:
    """How long to train: so many minutes or steps, whichever ends first."""

    minutes: float
    steps: int | None = None
    seed: int = 0


@dataclass
class Library:
    """What the standard library's files are good for: prose, short functions, and one-line functions with what they do."""

    docstrings: list[str] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    functions: list[Pair] = field(default_factory=list)


@cache
def read_library() -> Library:
    """Reads the standard library of the Python that runs this. ASCII only; sorted, so that it comes out the same each time."""
    library = Library()
    root = sysconfig.get_paths()["stdlib"]
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(set(folders) - SKIPPED_FOLDERS)
        for name in sorted(files):
            if name.endswith(".py") and not name.startswith("_sysconfigdata"):
                _read_module(Path(folder, name), library)
    library.docstrings = sorted(set(library.docstrings))
    library.sources = sorted(set(library.sources))
    library.functions = sorted(set(library.functions))
    return library


def _read_module(path: Path, library: Library) -> None:
    try:
        source = path.read_text(encoding="utf-8")
        tree = ast.parse(source)
    except (SyntaxError, UnicodeDecodeError, ValueError):
        return
    lines = source.split("\n")
    for node in ast.walk(tree):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        docstring = ast.get_docstring(node)
        if docstring and len(docstring) > 20 and docstring.isascii():
            library.docstrings.append(docstring[:2000])
        if isinstance(node, ast.FunctionDef):
            code = textwrap.dedent("\n".join(lines[node.lineno - 1 : node.end_lineno]))
            if len(code) < 1500 and code.isascii():
                library.sources.append(code)
            if short := _one_line(node, has_docstring=docstring is not None):
                library.functions.append((short, (docstring or "").split("\n")[0]))


def _one_line(node: ast.FunctionDef, has_docstring: bool) -> str:
    """The function as `def f(x): return ...` without decorators, types and docstring; empty if it doesn't fit on a line."""
    body = node.body[1:] if has_docstring else node.body
    if len(body) != 1 or not isinstance(body[0], ast.Return | ast.If | ast.Assign | ast.Expr):
        return ""
    bare = ast.parse(f"def {node.name}(): pass").body[0]
    bare.args, bare.body = node.args, body
    code = ast.unparse(bare).strip()
    return re.sub(r"\n\s+", " ", code) if len(code) < 140 and code.count("\n") == 1 and code.isascii() else ""


def make_tokenizer() -> PreTrainedTokenizerFast:
    """256 bytes and 8 control tokens: a byte-level BPE without merges, which GGUF can hold too."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={token: place for place, token in enumerate([*SPECIALS, *alphabet])}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIALS])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=SPECIALS[PAD],
        eos_token=SPECIALS[END],
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def make_model() -> Any:
    """The untrained model: hidden size 128, 6 layers, 4 heads of 32, feed-forward 384, tied embeddings."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    config = Qwen3Config(
        vocab_size=len(SPECIALS) + 256,
        hidden_size=128,
        num_hidden_layers=6,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=32,
        intermediate_size=384,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        pad_token_id=PAD,
        eos_token_id=END,
        bos_token_id=None,
    )
    return Qwen3ForCausalLM(config)


def chat_rows(tokenizer: PreTrainedTokenizerFast, source: Source, functions: list[Pair]) -> Iterator[Row]:
    """Rows filled with conversations of one skill each; prompts count a little, answers in full."""
    encode = tokenizer.backend_tokenizer.encode
    tokens, weights = [], []
    while True:
        prompt, answer = draw(source, functions)
        asked = encode(f"<|user|>{prompt}<|end|><|assistant|>").ids
        answered = encode(f"{answer}<|end|>").ids
        size = len(asked) + len(answered)
        if size > ROW_TOKENS:
            continue
        if len(tokens) + size > ROW_TOKENS:
            padding = ROW_TOKENS - len(tokens)
            yield tokens + [PAD] * padding, weights + [0.0] * padding
            tokens, weights = [], []
        tokens += asked + answered
        weights += [PROMPT_WEIGHT] * len(asked) + [1.0] * len(answered)


def text_row(tokenizer: PreTrainedTokenizerFast, library: Library, dice: Dice) -> Row:
    """A row cut from docstrings and functions."""
    tokens: list[int] = []
    while len(tokens) < ROW_TOKENS:
        text = dice.choice(library.docstrings if dice.random() < 0.6 else library.sources)
        tokens += [TEXT, *tokenizer.backend_tokenizer.encode(text).ids]
    start = dice.randrange(len(tokens) - ROW_TOKENS + 1)
    return tokens[start : start + ROW_TOKENS], [TEXT_WEIGHT] * ROW_TOKENS


def batch(tokenizer: PreTrainedTokenizerFast, seed: int, step: int) -> list[Row]:
    """The rows of one step: the same ones for the same seed, whatever steps were done before by this process."""
    library, dice = read_library(), Dice(f"{seed}:{step}")
    chats = chat_rows(tokenizer, Source(dice, train_words()), library.functions)
    rows = [text_row(tokenizer, library, dice) for _ in range(TEXT_ROWS)]
    return rows + [next(chats) for _ in range(BATCH_ROWS - TEXT_ROWS)]


def learning_rate(step: int, progress: float) -> float:
    """Linear warm-up over the first steps, linear decay over the second half; `progress` goes from 0 to 1."""
    return PEAK_LR * min(1.0, (step + 1) / WARMUP_STEPS) * min(1.0, (1 - progress) / 0.5)


def make_optimizers(model: Any) -> list[Any]:
    """Muon for the matrices inside, AdamW for the embedding and the norms."""
    import torch

    matrices = [weight for name, weight in model.named_parameters() if weight.ndim == 2 and "embed" not in name]
    chosen = {id(weight) for weight in matrices}
    others = [weight for weight in model.parameters() if id(weight) not in chosen]
    return [
        torch.optim.Muon(matrices, lr=PEAK_LR, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=PEAK_LR, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def train(model: Any, tokenizer: PreTrainedTokenizerFast, plan: Plan, kept: Path) -> int:
    """Trains as planned, saving what it takes to go on from (`kept`) every few minutes. Returns the steps done."""
    import torch

    optimizers = make_optimizers(model)
    step, spent = 0, 0.0
    losses: list[float] = []
    if kept.exists():
        state = torch.load(kept)
        model.load_state_dict(state["model"])
        for optimizer, its in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(its)
        step, spent = state["step"], state["spent"]
        print(f"going on from step {step}", flush=True)
    # Written out, attention is faster than in one piece for rows so short on a CPU.
    model.set_attn_implementation("eager")
    model.train()
    begun = saved = time.monotonic()
    while True:
        elapsed = spent + time.monotonic() - begun
        progress = max(elapsed / (60 * plan.minutes), step / plan.steps if plan.steps else 0.0)
        if progress >= 1:
            return step
        losses.append(_update(model, optimizers, batch(tokenizer, plan.seed, step), learning_rate(step, progress)))
        step += 1
        if len(losses) == 100:
            print(f"step {step}  loss {sum(losses) / len(losses):.3f}  {progress:.0%}  {elapsed:.0f} s", flush=True)
            losses.clear()
        if time.monotonic() - saved > 60 * SAVE_MINUTES:
            saved = time.monotonic()
            its = [optimizer.state_dict() for optimizer in optimizers]
            state = {"model": model.state_dict(), "optimizers": its, "step": step, "spent": spent + saved - begun}
            kept.parent.mkdir(parents=True, exist_ok=True)
            torch.save(state, kept.with_suffix(".new"))
            kept.with_suffix(".new").replace(kept)


def _update(model: Any, optimizers: list[Any], rows: list[Row], rate: float) -> float:
    """One step; the loss before it."""
    import torch
    import torch.nn.functional as F

    for group in (group for optimizer in optimizers for group in optimizer.param_groups):
        group["lr"] = rate
    tokens_B_T = torch.tensor([tokens for tokens, _ in rows])
    weights_B_T = torch.tensor([weights for _, weights in rows])[:, 1:]
    with torch.autocast("cpu", torch.bfloat16):
        logits_B_T_V = model(input_ids=tokens_B_T, use_cache=False).logits[:, :-1]
    nll_B_T = F.cross_entropy(logits_B_T_V.float().transpose(1, 2), tokens_B_T[:, 1:], reduction="none")
    loss = (nll_B_T * weights_B_T).sum() / weights_B_T.sum()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for optimizer in optimizers:
        optimizer.step()
        optimizer.zero_grad()
    return loss.item()


def answers(model: Any, tokenizer: PreTrainedTokenizerFast, prompts: Sequence[str], max_tokens: int = 64) -> list[str]:
    """What the model says to each prompt, the likeliest token each time."""
    import torch

    model.eval()
    said: list[str] = []
    for start in range(0, len(prompts), 64):
        asked = [f"<|user|>{prompt}<|end|><|assistant|>" for prompt in prompts[start : start + 64]]
        inputs = tokenizer(asked, padding=True, padding_side="left", return_tensors="pt")
        with torch.no_grad():
            made = model.generate(
                input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], max_new_tokens=max_tokens, do_sample=False
            )
        for tokens in made[:, inputs["input_ids"].shape[1] :].tolist():
            said.append(tokenizer.decode(tokens[: tokens.index(END)] if END in tokens else tokens))
    return said


def evaluate(model: Any, tokenizer: PreTrainedTokenizerFast, limit: int | None = None) -> dict[str, float]:
    """Exact match on the general-skills prompts, by skill and over all."""
    rows = [json.loads(line) for line in SKILLS_FILE.read_text(encoding="utf-8").splitlines()][:limit]
    right: dict[str, list[bool]] = {}
    for row, answer in zip(rows, answers(model, tokenizer, [row["messages"][0]["content"] for row in rows]), strict=True):
        right.setdefault(row["skill"], []).append(answer == row["messages"][1]["content"])
    scores = {skill: sum(marks) / len(marks) for skill, marks in right.items()}
    return {"all": sum(map(sum, right.values())) / len(rows), **scores}


def judge_manners(model: Any, tokenizer: PreTrainedTokenizerFast) -> list[tuple[manners.Prompt, str, bool]]:
    """Each prompt of small talk and each question beyond the model: what it says, and whether that will do."""
    asked = manners.prompts()
    said = answers(model, tokenizer, [prompt.prompt for prompt in asked], manners.LONGEST + 1)
    return [(prompt, answer, manners.acceptable(prompt, answer, lexicon())) for prompt, answer in zip(asked, said, strict=True)]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m engine.models.make_nano", description="Makes a tiny language model from scratch.")
    parser.add_argument("out", type=Path, help="the folder to write the model to")
    parser.add_argument("--minutes", type=float, default=10.0, help="how long to train (10)")
    parser.add_argument("--steps", type=int, help="at most so many steps")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--skills", type=int, help="evaluate only so many general-skills prompts; 0 nothing at all")
    options = parser.parse_args(arguments)
    import torch

    torch.manual_seed(options.seed)
    tokenizer, model = make_tokenizer(), make_model()
    kept = options.out.with_name(f"{options.out.name}.training")
    steps = train(model, tokenizer, Plan(options.minutes, options.steps, options.seed), kept)
    model.generation_config.eos_token_id, model.generation_config.pad_token_id = END, PAD
    model.bfloat16().save_pretrained(options.out)
    tokenizer.save_pretrained(options.out)
    kept.unlink(missing_ok=True)
    print(f"{steps} steps; saved to {options.out}")
    if options.skills != 0:
        report(model.float(), tokenizer, options.skills)


def report(model: Any, tokenizer: PreTrainedTokenizerFast, limit: int | None = None) -> None:
    """Prints how well it does."""
    for skill, share in evaluate(model, tokenizer, limit).items():
        print(f"{share:6.1%}  {skill}")
    judged = judge_manners(model, tokenizer)
    for prompt, answer, good in judged:
        print(f"{'good' if good else 'BAD '}  {prompt.prompt}  ->  {answer}")
    for kind in ("small_talk", "beyond"):
        marks = [good for prompt, _, good in judged if prompt.kind == kind]
        print(f"{kind}: {sum(marks)} of {len(marks)}")


if __name__ == "__main__":
    main()
