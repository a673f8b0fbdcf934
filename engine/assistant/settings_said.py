"""Settings as people say them in a sentence: "200 steps", "a smaller batch", "with Qwen". From words to changes of a recipe."""

from __future__ import annotations

import re
from typing import Any

from engine import knowledge

_NUMBER = r"(\d+(?:\.\d+)?(?:e[+-]?\d+)?|\.\d+)"
_TO = r"(?: size)?(?: of| to| at| is| be| =| as)* "
_SAID: tuple[tuple[str, str, type], ...] = (
    ("training.steps", rf"{_NUMBER} (?:training )?(?:steps|step|updates|iterations)\b", int),
    ("training.steps", rf"\b(?:steps|updates){_TO}{_NUMBER}", int),
    ("training.epochs", rf"{_NUMBER} (?:epochs|epoch|passes|times through)\b", float),
    ("training.epochs", rf"\bepochs{_TO}{_NUMBER}", float),
    ("training.batch_size", rf"\bbatch(?:es)?{_TO}{_NUMBER}", int),
    ("training.batch_size", rf"{_NUMBER} (?:examples )?(?:at once|a batch|per batch)\b", int),
    ("training.learning_rate", rf"\blearning rate{_TO}{_NUMBER}", float),
    ("lora.rank", rf"\brank{_TO}{_NUMBER}", int),
    ("training.max_length", rf"\b(?:max(?:imum)? length|max_length|longest example){_TO}{_NUMBER}", int),
    ("seed", rf"\bseed{_TO}{_NUMBER}", int),
)
_NUDGED: tuple[tuple[str, str], ...] = (
    ("training.batch_size", r"batch(?:es)?(?: size)?"),
    ("training.learning_rate", r"(?:learning )?rate"),
    ("lora.rank", r"(?:rank|adapter)"),
    ("training.steps", r"(?:steps|updates|training|run|epochs)"),
    ("training.max_length", r"(?:examples|max length)"),
)
_LESS = r"(?:smaller|lower|less|reduce|decrease|halve|half|fewer|shorter|slower|cut|drop)"
_MORE = r"(?:larger|bigger|higher|more|increase|raise|double|longer|greater)"
_FULL = re.compile(r"\bfull fine-tun\w+|\ball (?:of )?(?:the |its )?weights|\bfull training\b|\b(?:without|no) (?:lora|adapter)")
_LORA = re.compile(r"\b(?:use|with|back to|train|only|just|do) (?:an? |the )?(?:lora|adapter)\b|\blora instead|\b(?:not|no) full\b")
_SHORTER = re.compile(
    r"^(?:please )?(?:can you |could you )?(?:make|do|keep) (?:it|this|that|the (?:run|training)) (?:a (?:bit|little) "
    r"|much |even )?short(?:er)?\b(?! answers)"
)
_HUB = re.compile(r"(?<![\w/.])([A-Za-z0-9][\w.-]{1,60}/[A-Za-z0-9][\w.-]{1,90}\w)(?![\w/])")
_MODEL_WORDS = r"(?:with|use|using|on|try|take|from|of|model|to|instead|and)"


def changes(text: str, said: str, at_hand: tuple[str, ...] = ()) -> tuple[dict[str, Any], dict[str, float]]:
    """({part: {field: value}}, {field: factor}): what is set, and what is made larger or smaller.

    `said` is the text as it was written: names keep their capitals.
    """
    found: dict[str, Any] = {}
    for name, pattern, kind in _SAID:
        if match := re.search(pattern, text):
            number = float(match[1])
            _put(found, name, int(number) if kind is int and number.is_integer() else number)
    if _FULL.search(text):
        found["full"] = True
    elif _LORA.search(text):
        found["full"] = False
    if model := _model(text, said, at_hand):
        found["base_model"] = model
    if called := re.search(r"\b(?:call|name) it (.+?)[.!?\s]*$", said, re.IGNORECASE | re.DOTALL):
        found["name"] = " ".join(called[1].split()).strip("\"'“”")[:120]
    nudges = {} if any(isinstance(value, dict) for value in found.values()) else _nudges(text)
    return found, nudges


def merged(values: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    """A copy with more said: parts field by field, but data as a whole."""
    found = dict(values)
    for name, value in more.items():
        parts = name != "data" and isinstance(value, dict) and isinstance(found.get(name), dict)
        found[name] = {**found[name], **value} if parts else value
    return found


def _nudges(text: str) -> dict[str, float]:
    found: dict[str, float] = {}
    for words, factor in ((_LESS, 0.5), (_MORE, 2.0)):
        for name, what in _NUDGED:
            if re.search(rf"\b{words}\b(?: the| its| a| an| learning| lora| training)*(?: \w+)? {what}\b", text) or re.search(
                rf"\b(?:make|set|keep|put) (?:the |its )?(?:learning |lora )?{what} {words}\b", text
            ):
                found.setdefault(name, factor)
    if not found and re.search(r"\b(?:train|run|learn)\w* (?:it )?(?:for )?(?:longer|more)\b|^longer$", text):
        found["training.steps"] = 2.0
    if not found and (
        re.search(r"\b(?:faster|quicker|less long|a shorter run|cheaper|less time|less money|costs? less)\b", text) or _SHORTER.search(text)
    ):
        found["training.steps"] = 0.5
    if not found and re.search(r"\b(?:less|fewer|smaller|reduce\w*) (?:the )?(?:memory|ram)\b|\bout of memory\b", text):
        found["training.batch_size"] = 0.5
    return found


def _model(text: str, said: str, at_hand: tuple[str, ...]) -> str:
    """A base model that is named: on this machine, by its hub id, or by its family; never a path."""
    low = said.lower()
    for name in sorted(at_hand, key=len, reverse=True):
        if name != "nano" and name.lower() in low:
            return name
    if hub := _HUB.search(said):
        known = {name.lower(): name for name in knowledge.base_models()}
        if "://" not in said and ".." not in hub[1] and (hub[1].lower() in known or re.search(r"\b(use|with|model|from|on|try)\b", low)):
            return known.get(hub[1].lower(), hub[1])
    short = len(text.split()) <= 3
    for name, family in [*_families(at_hand), ("nano", "nano")]:
        if re.search(rf"\b{_MODEL_WORDS} (?:a |an |the |model )?{family}[\w.-]*", text) or (
            short and re.search(rf"^{family}[\w.-]*$", text)
        ):
            return name
    return ""


def _families(at_hand: tuple[str, ...]) -> list[tuple[str, str]]:
    """(model, family): what is on this machine before what would be downloaded."""
    known = knowledge.base_models()
    families = list(dict.fromkeys(str(model["family"]) for model in known.values()))
    here = [(name, family) for family in families for name in at_hand if family in name.lower()]
    open_first = sorted(
        known, key=lambda name: (bool(known[name].get("consent")), -known[name]["parameters"] * (known[name]["parameters"] < 1e9))
    )
    return here + [(name, str(known[name]["family"])) for name in open_first]


def _put(values: dict[str, Any], name: str, value: Any) -> None:
    part, _, leaf = name.rpartition(".")
    place = values.setdefault(part, {}) if part else values
    place.setdefault(leaf, value)
