"""Commands that use models, and the assistant: models, chat, generate, ask."""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from rich.markdown import Markdown
from rich.table import Table

from engine import share
from engine.cli.jobs import JsonFlag
from engine.cli.screen import console, percent, plain, print_json, short_proof
from engine.engine import Engine
from engine.errors import EngineError, StateError
from engine.recipe import Recipe

Name = Annotated[str, typer.Option("--model", help="A tuned model or job, by name or id; the newest without it.")]
Base = Annotated[str, typer.Option("--base", help="Talk to a bare base model instead: nano, a folder or a hub id.")]
Temperature = Annotated[float, typer.Option(help="0 always takes the likeliest token; 1 is as varied as the model itself.")]
MaxTokens = Annotated[int, typer.Option(help="The longest answer, in tokens.")]


def list_models(as_json: JsonFlag = False) -> None:
    """Tuned models, newest first."""
    out = console(as_json)
    with Engine() as engine:
        models = engine.models()
        table = Table(box=None, pad_edge=False)
        for title in ("model", "name", "base", "held-out", "skills", "job"):
            table.add_column(title)
        for model in models:
            proof = model.proof or {}
            skills = (proof.get("skills") or {}).get("after")
            known = short_proof(proof), percent(skills), model.job_id or "-"
            table.add_row(model.id, plain(model.name), plain(model.base_model), *known)
        out.print(table if models else "no tuned models yet: python thinker.py train --demo piglatin")
        if as_json:
            print_json({"models": [{**model.to_dict(), "proof": None} for model in models]})


def chat(
    message: Annotated[str, typer.Argument(help="One message; without it, a conversation.")] = "",
    model: Name = "",
    base: Base = "",
    temperature: Temperature = 0.0,
    max_tokens: MaxTokens = 256,
    as_json: JsonFlag = False,
) -> None:
    """Talk to a model. In a conversation: /new begins afresh, /quit ends."""
    out = console(as_json)
    with Engine() as engine, engine.chat(model, base_model=base, say=lambda text: out.print(text, style="dim", markup=False)) as talk:
        if message:
            answer = talk.reply([{"role": "user", "content": message}], temperature=temperature, max_tokens=max_tokens)
            out.print(answer, markup=False)
            if as_json:
                print_json({"model": talk.name, "prompt": message, "answer": answer})
            return
        out.print(f"[bold]{plain(talk.name)}[/bold]  (/new begins afresh, /quit ends)")
        # A prompt on stdout would come before what a program reads there.
        prompt = "> " if sys.stdin.isatty() and not as_json else ""
        messages: list[dict[str, str]] = []
        while (line := _next_line(prompt)) is not None:
            line = line.strip()
            if line in ("/quit", "/exit"):
                break
            if line == "/new":
                messages = []
                continue
            if not line:
                continue
            messages.append({"role": "user", "content": line})
            try:
                answer = talk.reply(messages, temperature=temperature, max_tokens=max_tokens)
            except EngineError as error:
                messages.pop()
                out.print(str(error), style="red", markup=False)
                continue
            messages.append({"role": "assistant", "content": answer})
            out.print(answer, markup=False)
        if as_json:
            print_json({"model": talk.name, "messages": messages})


def ask(
    text: Annotated[str, typer.Argument(help='A goal or a question, in plain English: "how is my run?"')],
    as_json: JsonFlag = False,
) -> None:
    """Ask the assistant: what to train, how a run is, what a term means. It starts nothing."""
    out = console(as_json)
    with Engine() as engine:
        reply, _ = engine.assistant.answer(text)
        out.print(Markdown(reply.text))
        if reply.facts:
            table = Table(box=None, pad_edge=False)
            for title in reply.facts[0]:
                table.add_column(title)
            for row in reply.facts:
                table.add_row(*(plain(str(value)) for value in row.values()))
            out.print(table)
        if reply.proposal:
            for sentence in reply.proposal.summary:
                out.print(f"  {sentence}", markup=False)
            for takes in reply.proposal.takes:
                out.print(f"  {takes.name}: {takes.text}", markup=False)
            for warning in reply.proposal.warnings:
                out.print(f"  {warning.text} {warning.action}", style="yellow", markup=False)
            out.print(f"To start it: {share.as_command(Recipe.make(reply.proposal.recipe))}", markup=False)
        elif reply.choices:
            asked = ", ".join(f'"{choice.say}"' for choice in reply.choices)
            out.print(f"You might say: {asked}", style="dim", markup=False)
        if as_json:
            print_json(reply.to_dict())


def generate(
    prompts: Annotated[list[str] | None, typer.Argument(help="One or more prompts; without any, one a line from stdin.")] = None,
    model: Name = "",
    base: Base = "",
    temperature: Temperature = 0.0,
    max_tokens: MaxTokens = 256,
    seed: Annotated[int | None, typer.Option(help="Same seed, same answers.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Answer prompts, all at once."""
    asked = prompts or [line.rstrip("\n") for line in sys.stdin if line.strip()]
    if not asked:
        raise StateError("there is nothing to answer", "Give prompts as arguments, or one a line on stdin.")
    out = console(as_json)
    with Engine() as engine, engine.chat(model, base_model=base) as talk:
        conversations = [[{"role": "user", "content": prompt}] for prompt in asked]
        answers = talk.replies(conversations, temperature=temperature, max_tokens=max_tokens, seed=seed)
        for answer in answers:
            out.print(answer, markup=False)
        if as_json:
            pairs = [{"prompt": prompt, "answer": answer} for prompt, answer in zip(asked, answers, strict=True)]
            print_json({"model": talk.name, "answers": pairs})


def _next_line(prompt: str) -> str | None:
    try:
        return input(prompt)
    except EOFError:
        if prompt:
            print()
        return None
