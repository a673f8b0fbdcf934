"""Which way of training a sentence wishes for, by which score, from which teacher, after which beginning. Patterns over plain text.

Knows words; what follows from them is `by_method`'s business.
"""

from __future__ import annotations

import re
from typing import Any

from engine import knowledge
from engine.assistant.wording import plain


def _rule(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)


_CLOSED = r"(?:gpt-?\d\S*|gpt|chatgpt|claude|gemini|copilot)(?:'s)?"
_BETTER = r"(?:larger|bigger|better|smarter|stronger|big|large|good|strong)"
_Q_AND_A = _rule(
    r"\bpairs? of (?:questions?|prompts?|inputs?|instructions?)\b|\b(?:questions?|prompts?|inputs?|instructions?|q&a|qa)\b.{0,24}\bpairs?\b"
)
_BY_SCORE = _rule(r"\brl\b|\breinforce\w*|\bgrpo\b|\bppo\b|\bagainst\b|\b(?:by|with|from|use|using) (?:my|the|our|that) reward models?\b")

# The first that fits decides: what is made of others stands before its parts.
WAYS: tuple[tuple[str, re.Pattern[str]], ...] = (
    (
        "own_loss",
        _rule(
            r"\bown_loss\b|\b(?:own|custom) (?:custom )?(?:loss|losses|objective)\b"
            r"|\bloss(?: function)? (?:of (?:my|our|your) own|(?:that )?i wrote)\b"
            r"|\bloss function\b|\bminimi[sz]e\b.*\bloss\b"
        ),
    ),
    (
        "rlhf",
        _rule(
            r"\brlhf\b|\brlaif\b|\bhuman feedback\b|\bmodel of (?:my|your|our|the|what people) (?:preferences?|taste|prefer)\b"
            r"|\breward models?\b.*\bthen\b|\bpreferences?\b.*\breward models?\b"
        ),
    ),
    (
        "reward_model",
        _rule(
            r"\breward models?\b|\bpreference models?\b|\breward_model\b"
            r"|\b(?:score|rate|rank|grade|judge)s? (?:any |other |the |its |new |which )?(?:answers?|replies|responses)\b|\bgrader\b"
        ),
    ),
    (
        "distill",
        _rule(
            r"\bdistil\w*|\bteacher models?\b|\b(?:as|from|is|be|with) (?:a |the |my |its |their )?teachers?\b"
            r"|\bteacher\b(?= [\w./\x01-]+$)"
            r"|\b(?:imitat\w+|mimic\w*|copy|copies|clone)\b(?: \w+){0,3} (?:models?|" + _CLOSED + r")"
            rf"|\b(?:imitat\w+|mimic\w*)\b|\blearns? from (?:an? |the |some )*{_BETTER} (?:\w+ )?models?\b"
            rf"|\b(?:like|from|imitate) {_CLOSED}(?! (?:weights|chat))"
            r"|\bwithout (?:(?:a|the|my|its|this|our|such|that|any|having) )*(?:(?:long|system|huge|big|whole) )*prompts?\b"
            r"|\b(?:bake|baking|burn|build|put)\b.*\bprompt in(?:to)?\b|\b(?:internali[sz]e|absorb|memori[sz]e)\b.*\bprompt\b"
            r"|\b(?:get rid of|drop|save|remove|spare|shorten)\b.*\bprompt\b|\b(?:long|huge) (?:system )?prompt\b|\bteacher prompt\b"
        ),
    ),
    (
        "kto",
        _rule(
            r"\bkto\b|\bthumbs?\b|\b(?:up|down)[- ]?vot\w+|\b(?:likes? (?:and|or) )?dislikes?\b"
            r"|\b(?:good|right|liked|helpful) (?:or|and|from) (?:bad|wrong|unhelpful|disliked)\b"
            r"|\b(?:ratings?|rated|verdicts?|marked|labelled|labeled) (?:of |as |for )?(?:\w+ )?(?:good|bad|answers?|replies|chats?)\b"
            r"|\b(?:answers?|replies|chats?) (?:\w+ )?(?:rated|ratings|marked|were liked)\b|\bstar ratings?\b"
        ),
    ),
    (
        "dpo",
        _rule(
            r"\bdpo\b|\bipo\b|\bsimpo\b|\bpreferences?\b|\bpreferred\b|\bprefers?\b|\bpairs?\b|\bchosen\b.*\brejected\b"
            r"|\bbetter and (?:an? |the )?worse\b|\b(?:better|best|nicer) (?:one )?of (?:the )?two\b|\btwo answers\b"
            r"|\bwhich (?:one |answer )?(?:is|was)"
            r" (?:the )?(?:better|nicer)\b|\ba[ /]b[- ]tests?\b|\bcomparisons?\b|\branked answers\b"
        ),
    ),
    (
        "rl",
        _rule(
            r"\brl\b|\bgrpo\b|\bppo\b|\bcispo\b|\brlvr\b|\breinforc\w+|\brewards?\b|\btrial and error\b"
            r"|\b(?:optimi[sz]e|maximi[sz]e|improve|raise|by|from|for|to|on|with|against)\b (?:(?:a|an|the|its|my|some|own) )*scor\w+"
            r"|^scores?\b|\bverif\w+\b.*\b(?:answers?|results?|rewards?)\b|\bunit tests?\b"
            r"|\bpass(?:es|ing)? (?:(?:its|the|my|all|more) )*tests\b"
            r"|\b(?:optimi[sz]e|maximi[sz]e)\b.*\b(?:metric|number|measure|rule|reward|function)\b|\bjudged? by\b"
            r"|\b(?:an?|llm|ai|the|my) judge\b"
            r"|\b(?:practi[sc]e|learn|try|tries|improve)\b.*\b(?:by itself|on its own)\b"
            r"|\btr(?:y|ies|ying) (?:several|many|different) answers\b"
            r"|\bpoints? (?:for|to)\b"
        ),
    ),
    ("sft", _rule(r"\bsft\b|\bsupervised\b"
    r"|\b(?:learns?|learning|train|teach|only|just)\b(?: \w+){0,2} (?:from|by|with|on) (?:\w+ )?examples\b")),
)  # fmt: skip
WISHES = _rule(
    r"\b(?:learn\w*|improve|optimi[sz]e|maximi[sz]e|minimi[sz]e|imitate|mimic|distil\w*|reinforce|practi[sc]e|prefer|bake|get rid"
    r"|do without|collected|gave|given|rated|liked|chose|marked|should|let|give|go|have)\b|^(?:please )?(?:reward|score)\b"
)
OF_A_RUN = _rule(
    r"\b(?:my|the|this|that|its|last) (?:\w+ ){0,2}(?:run|job|reward|score|margin|entropy|kl|accuracy|loss)\b.*\b(?:is|are|was|has|did|does"
    r"|goes|went|stays|keeps|failed|crashed|rises|rising|falls|falling|fell|stuck|drops?|dropped|explod\w+|jumps?|spikes?)\b"
)
_FIRST = _rule(
    r"\b(?:examples?|sft) first\b|\bfirst (?:(?:learn|teach|train|it|a|few|some|by|from|with|on|the) )*(?:examples?|sft)\b"
    r"|\b(?:sft|examples?) (?:and )?then\b|\bsft (?:and|followed by)\b"
)
_NOT_FIRST = _rule(
    r"\b(?:no|without|skip\w*|not) (?:(?:the|any|a) )?(?:examples?|sft|(?:first )?stage)(?: first)?\b|\bstraight (?:away|from)\b"
    r"|\bonly (?:pairs|thumbs|the score)\b"
)
_SCORES: tuple[tuple[str, re.Pattern[str], dict[str, Any]], ...] = (
    ("judge", _rule(r"\bjudges?\b|\brubric\b|\btone\b|\bpolite\w*|\bhelpful\w*"), {}),
    ("reward_model", _rule(r"\breward models?\b"), {}),
    ("python", _rule(r"\bown (?:\w+ )?function\b|\bpython function\b|\bmy (?:function|checker|script|code)\b"), {}),
    ("code_tests", _rule(r"\btests?\b"), {}),
    ("json_schema", _rule(r"\bjson\b"), {"form": {"type": "object"}}),
    ("numeric", _rule(r"\bnumbers?\b|\bnumeric\w*|\bnumerical\b|\bsums?\b|\bmaths?\b|\barithmetic\b|\bcalculat\w+"), {}),
    ("length", _rule(r"\blength\b|\bshort\w*|\bbrief\w*|\bconcise\w*|\b\d+ (?:words|tokens|characters)\b"), {}),
    ("regex", _rule(r"\bregex\b|\bregular expression\b|\bexpression\b"), {}),
    ("contains", _rule(r"\bcontain\w*|\bmention\w*"), {}),
    ("normalised", _rule(r"\b(?:same|right|expected) words?\b|\bnormali[sz]ed\b"), {}),
    ("exact", _rule(r"\bexact\w*|\bsame text\b|\bright answers?\b|\bcorrect answers?\b|\bexpected answers?\b|\bcorrect\b"), {}),
)  # fmt: skip
_SCORED = _rule(r"\bscor\w+|\breward\w*|\bjudge\w*|\bgrade\w*|\bcheck\w*|\bpoints?\b|\bpass\w*\b|\bverif\w+|\bmaximi[sz]e|\boptimi[sz]e")
_WORDS = re.compile(r"\b(\d+) (words|tokens|characters)\b")
_PROMPT = re.compile(
    r"\b(?:(?:the|its|my|a|teacher|teacher's|system|long)\s+)*prompt(?:\s+(?:is|says|would be|reads))?\s*:?\s*[\"“'‘]?(?P<text>\S.{2,})",
    re.I | re.S,
)
_SAYS_PROMPT = re.compile(r"\bprompt(?:\s+(?:is|says|would be|reads)\s*[:\"“'‘\n]|\s*:)", re.I)
_HUB_TEACHER = re.compile(
    r"\b(?:teacher|imitate|mimic|copy|distil\w*|learn(?:s|ing)?\s+from)\s+(?:(?:is|the|model|from|teacher)\s+)*([A-Za-z0-9][\w.-]*/[\w.-]*\w)",
    re.I,
)
_SAID_AS = {
    "demo": "Show me the one-minute demo",
    "answer": "It should answer questions",
    "style": "It should follow a style",
    "review": "It should review code",
}
_URL_TEACHER = re.compile(r"\bteacher\s+(\S+)\s+at\s+(https?://[^\s?#@]+)", re.I)


def method(text: str) -> str:
    """The way of training that a plain text speaks of; empty for none. A goal's own title is always understood."""
    for goal in knowledge.goals().values():
        if "demo" not in goal and goal["method"] != "sft" and plain(goal["title"]) in text:
            return str(goal["method"])
    for name, pattern in WAYS:
        if not pattern.search(text):
            continue
        if name == "reward_model" and _BY_SCORE.search(text):
            return "rl"
        if name == "kto" and re.search(r"\bpairs?\b", text) and not re.search(r"\bkto\b|\bthumbs?\b", text):
            continue
        if name == "dpo" and _Q_AND_A.search(text) and not re.search(r"\bdpo\b|\bprefer", text):
            continue
        return name
    return ""


def goal_of(name: str) -> str:
    """The goal that a method serves; for learning from examples the plainest."""
    return next((goal for goal, known in knowledge.goals().items() if known["method"] == name and "demo" not in known), "answer")


def said_as(goal: str) -> str:
    """A sentence that wishes for a goal: one of the plain goals, else its own title, which is always understood."""
    return _SAID_AS.get(goal) or str(knowledge.goals()[goal]["title"])


def first(text: str) -> bool | None:
    """Whether examples are to come first; None where nothing is said of it."""
    return False if _NOT_FIRST.search(text) else True if _FIRST.search(text) else None


def gives_prompt(said: str) -> bool:
    """Whether a prompt is written out in it."""
    return bool(_SAYS_PROMPT.search(said))


def score(text: str) -> tuple[str, dict[str, Any]]:
    """(kind of reward, a part of that kind as far as a sentence says it); the part is empty where more is needed than a sentence holds."""
    if not _SCORED.search(text):
        return "", {}
    for kind, pattern, more in _SCORES:
        if pattern.search(text):
            part = {"kind": kind, **more}
            if kind == "length":
                found = _WORDS.search(text)
                part |= {"longest": int(found[1]), "unit": found[2]} if found else {"longest": 50, "unit": "words"}
            return kind, {} if kind in ("judge", "python", "regex", "reward_model", "contains") else part
    return "", {}


def teacher(said: str) -> dict[str, Any]:
    """What a sentence says of the teacher, as fields of a recipe's distill: a long prompt, a base model by its hub id, or a model at a
    server. `said` is as it was written."""
    if gives_prompt(said) and (found := _PROMPT.search(said)):
        return {"kind": "prompt", "teacher_prompt": found["text"].strip().strip("\"”'’").strip()}
    if found := _URL_TEACHER.search(said):
        return {"kind": "answers", "teacher": found[1], "teacher_url": found[2].rstrip("/.,")}
    if (found := _HUB_TEACHER.search(said)) and "://" not in said and ".." not in found[1]:
        return {"kind": "answers", "teacher": found[1]}
    return {}
