"""Replies that need nothing looked up: greetings, what can be asked, what isn't understood, and wishes that can't be fulfilled.

A wish that can't be fulfilled is answered plainly, with the nearest thing that there is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine import endpoints, knowledge
from engine.assistant.desk import Desk, State
from engine.assistant.reply import DEMO, Action, Choice, Reply

if TYPE_CHECKING:
    from engine.assistant.meaning import Meaning

_CAN = (
    "- **put together a training** from a goal: “make it talk like a pirate”, “I have 500 support questions”, “fewer steps”, “with Qwen”\n"
    "- **train in other ways**: “learn from thumbs up and down”, “from pairs”, “optimise a score”, “do without my long prompt”, “RLHF”\n"
    "- **look at your data**: “which data sets are there?”, “use my latest upload”\n"
    "- **say how a run is**: “how is my run?”, “what is the loss now?”, “why did it fail?”, “compare my last two”\n"
    "- **go on from a model**: “which is my best model?”, “train the second one further”, “how do I correct a wrong answer?”\n"
    "- **explain**: “what is LoRA?”, “SFT or DPO?”, “what is a good batch size?”\n"
    "- **look at this machine**: “do I have a GPU?”, “where does my data go?”"
)
_HOW = (
    "I go by rules and Thinker's own knowledge, with no language model and no network, and I start nothing by myself: you press the "
    "buttons."
)


def openings(desk: Desk) -> tuple[Choice, ...]:
    """What to begin a conversation with, as things stand."""
    moving, newest = desk.moving(), desk.newest(limit=2)
    found = []
    if moving:
        found += [Choice("How is my run?", "How is my run?"), Choice("Is it getting better?", "Is it getting better?")]
    elif newest:
        found += (
            [Choice("Why did it fail?", "Why did it fail?")]
            if newest[0].error
            else [Choice("How did my last run go?", "How did my last run go?")]
        )
        if len(newest) > 1:
            found.append(Choice("Compare my last two runs", "Compare my last two runs"))
    else:
        found.append(DEMO)
    if desk.library.find():
        found.append(Choice("Train on my latest upload", "Use my latest upload"))
    found += [
        Choice("Make it talk like a pirate", "Make it talk like a pirate"),
        Choice("I have 500 support questions", "I have 500 support questions"),
        Choice("What can this computer do?", "What can this computer do?"),
        Choice("What is LoRA?", "What is LoRA?"),
    ]
    return tuple(found)


def greeting(desk: Desk, meaning: Meaning, state: State) -> tuple[Reply, State]:
    """Hello."""
    return Reply("greeting", "Hello. Tell me what a model should learn, or ask how a run is.", openings(desk)[:4]), state


def thanks(desk: Desk, meaning: Meaning, state: State) -> tuple[Reply, State]:
    """You are welcome."""
    return Reply("thanks", "You are welcome."), state


def bye(desk: Desk, meaning: Meaning, state: State) -> tuple[Reply, State]:
    """Runs go on."""
    return Reply("bye", "Until next time. What runs goes on in the background, and this conversation is kept."), state


def helps(desk: Desk, meaning: Meaning, state: State) -> tuple[Reply, State]:
    """What can be asked."""
    return Reply("help", f"I can\n{_CAN}\n\n{_HOW}", openings(desk)[:4], (Action("guide", "Open the guide"),)), state


def empty(desk: Desk, meaning: Meaning, state: State) -> tuple[Reply, State]:
    """Nothing was said."""
    return Reply("empty", "That was empty. Tell me what a model should learn, or ask something.", openings(desk)[:4]), state


def unknown(desk: Desk, meaning: Meaning, state: State) -> tuple[Reply, State]:
    """Says so plainly, and what can be asked; what was asked for last is asked again."""
    asked = {
        "data": "I was asking which data it should learn from: name one of your data sets, or say “use my latest upload”.",
        "model": f"I was asking which base model to use: nano{'' if desk.policy.shared else ', or a hub id such as Qwen/Qwen3-0.6B'}.",
        "teacher": "I was asking who teaches: one of your models, a base model by its hub id, or write “the prompt is: …”.",
        "score": "I was asking what makes an answer good: the right number, the same text, a length, valid JSON, or a judge.",
        "goal": "I was asking what the model should learn: answering questions, a style, reviewing code, or the demo.",
    }.get(state.asked, "")
    text = f"I didn't understand that. {asked or f'I understand plain English about training, and can{chr(10)}{_CAN}'}"
    return Reply("unknown", text, openings(desk)[:4]), state


def delete(desk: Desk, meaning: Meaning, state: State) -> tuple[Reply, State]:
    """Nothing is deleted from here."""
    text = "I delete nothing. Runs, models and data sets are deleted on their own pages, each with a question first."
    return Reply("delete", text, (), (Action("runs", "Runs"), Action("models", "Models"), Action("datasets", "Data sets"))), state


def limit(desk: Desk, meaning: Meaning, state: State) -> tuple[Reply, State]:
    """A wish that can't be fulfilled, and the nearest that can."""
    if meaning.limit == "method":
        return _method(meaning), state
    examples = Choice("Learn from examples (SFT)", "It should answer questions")
    said: dict[str, tuple[str, tuple[Choice, ...], tuple[Action, ...]]] = {
        "images": (
            "Thinker trains language models: text in, text out. Pictures, sound and video it can't do. The nearest is text about them, "
            "such as "
            "captions or descriptions, learned from examples.",
            (examples, DEMO),
            (),
        ),
        "closed": (
            "That model's weights aren't public, so it can't be trained here. Open models can: nano, which ships with Thinker"
            f"{'.' if desk.policy.shared else ', or one from the hub.'}",
            (Choice("Which base model should I use?", "Which base model should I use?"), DEMO),
            (),
        ),
        "export": (
            "Thinker doesn't write GGUF or Ollama files and publishes nothing to a hub yet. What it gives you is a zip of the model that "
            "PEFT "
            "(or transformers, for a whole model) loads: on the model's page, Download.",
            (),
            (Action("models", "Models"),),
        ),
        "place": (_place(), (Choice("What can this computer do?", "What can this computer do?"),), ()),
        "hub_data": (
            "Data can't be fetched from the hub yet: download the file yourself and drop it on the Datasets page."
            f"{'' if desk.policy.shared else ' Base models can come from the hub; name one, such as Qwen/Qwen3-0.6B.'}",
            (Choice("Which base model should I use?", "Which base model should I use?"),),
            (Action("datasets", "Open Datasets"),),
        ),
        "net": (
            "I have no network: I can't look things up, fetch pages or send anything. What you have as a file can be learned from.",
            (Choice("How do I upload a file?", "How do I upload a file?"),),
            (Action("datasets", "Open Datasets"),),
        ),
        "general": (
            "I only know about training models. A model that you have trained, or a base model, can be asked such things in the "
            "Playground.",
            (DEMO,),
            (Action("chat", "Talk to a model"),),
        ),
    }
    text, choices, actions = said[meaning.limit]
    return Reply("limit", text, choices, actions), state


def _method(meaning: Meaning) -> Reply:
    name = meaning.topics[0]
    entry = knowledge.terms()[name]
    have = ", ".join(method["term"] for method in knowledge.methods().values())
    text = f"Thinker can't train with {entry['title']} yet. What it has is {have}. {entry['instead']}"
    choices = (Choice("Learn from examples (SFT)", "It should answer questions"), Choice(f"What is {entry['title']}?", f"What is {name}?"))
    return Reply("limit", text, choices)


def _place() -> str:
    have = ", ".join(endpoints.kind(name).title for name in endpoints.names())
    return (
        f"Where Thinker can train today: {have}; you choose in the Wizard, under Where. Rented machines aren't among the places yet. "
        "Small models do well here."
    )
