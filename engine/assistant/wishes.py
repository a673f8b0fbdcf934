"""What people wish for in a sentence: goals, demos, how much they have, and what there isn't. Patterns over plain text, and no more."""

from __future__ import annotations

import re


def _rule(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)


LIMITS: tuple[tuple[str, re.Pattern[str]], ...] = (
    (
        "images",
        _rule(
            r"\b(?:images?|pictures?|photos?|videos?|audio|music|songs? generator|stable diffusion|midjourney|dall-e|whisper"
            r"|text to speech|speech recognition"
            r"|voice clon\w+|diffusion models?|drawings?|paintings?)\b"
        ),
    ),
    ("closed", _rule(r"\b(?:gpt-?\d\S*|gpt|chatgpt|claude|gemini|copilot)\b")),
    (
        "export",
        _rule(
            r"\b(?:export|convert|merge|push|publish|deploy|quanti[sz]e|upload)\b.*\b(?:models?|adapter|it|gguf|ollama|hub"
            r"|hugging ?face)\b|\b(?:gguf|ollama|llama\.cpp|lm studio)\b"
            r"|\bdownload\b.*\b(?:my|the|this)\b.*\b(?:model|adapter|weights)\b"
        ),
    ),
    (
        "place",
        _rule(
            r"\b(?:tinker cloud|runpod|the cloud|cloud|aws|azure|gcp|colab|rent(?:ed)?(?: a)? gpu|pods?|kubernetes|cluster|lambda labs"
            r"|on tinker|remote (?:gpu|machine|server))\b"
        ),
    ),
    ("hub_data", _rule(r"\b(?:hugging ?face|the hub)\b")),
    (
        "net",
        _rule(
            r"\b(?:internet|the web|websites?|web ?sites?|google|browse|scrape|crawl|weather|the news|send (?:an? )?e-?mails?|twitter"
            r"|slack|youtube|wikipedia|stock price)\b|https?|\bwww"
            r"|\bdownload\b.*\b(?:from|url|link)\b|\bsearch (?:for|the)\b"
        ),
    ),
    (
        "general",
        _rule(
            r"^(?:please )?(?:can you )?(?:write|tell|sing|compose|solve|calculate|compute|draw|paint)(?: me| us)? (?:a|an|this|the|some"
            r"|my)\b.*\b(?:poem|joke|story|essay|song|letter|recipe"
            r"|equation|book|haiku|picture)s?\b|\b(?:capital of|president of|who (?:is|was) (?:the )?(?!running)\w+ ?\w*$"
            r"|what time is it|how old are you)"
        ),
    ),
)  # fmt: skip

_CODE = (
    r"(?:code|python|java|javascript|typescript|rust|golang|c\+\+|sql|scripts?|functions?|programs?|pull requests?|prs?|diffs?|commits?"
    r"|patch(?:es)?)"
)
_REVIEW = _rule(
    rf"\b(?:review\w*|fix\w*|check\w*|debug\w*|lint\w*|comment\w* on|critique\w*|improve\w*|judge\w*|find\w*)\b.*\b{_CODE}\b"
    rf"|\bcode[- ]?review\w*|\b{_CODE}\b.*\breview\w*"
)
_STYLE = _rule(
    r"\b(?:talk|speak|sound|write|answer|reply|respond|text|act|behave|say)\w* (?:\w+ )?(?:like|as if|as an?|in)\b|\b(?:styles?|tone"
    r"|tones|voice|manners?|formal|informal|polite\w*|rude\w*"
    r"|spelling|grammar|typos|funny|funnier|sarcas\w+|pirates?|shakespeare\w*|yoda|poets?|poetic|rhymes?|translat\w+|rewrit\w+|rephras\w+|paraphras\w+"
    r"|summari[sz]\w+|shorten\w*|accent|dialect|brand|persona\w*"
    r"|character|friendly|friendlier|concise|shorter answers|answers shorter|in json|as json|json output|valid json|markdown|xml|yaml)\b"
)
_ANSWER = _rule(
    r"\b(?:questions?|answers?|answering|faqs?|support|customers?|help ?desk|tickets?|q&a|qa|chat ?bots?|bots?|assistant|experts?"
    r"|manuals?|docs|documentation|emails?|conversations?"
    r"|dialogues?|dialogs?|classif\w+|labels?|categor\w+|sentiment|extract\w*|inquiries|queries)\b"
)
DEMOS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("piglatin", _rule(r"\bpig ?latin\b")),
    ("camelcase", _rule(r"\bcamel ?case\b")),
    ("caesar", _rule(r"\bcaesar\b|\bsecret code\b|\bcipher\b|\bencrypt\w*|\bsecret language\b")),
    ("addition", _rule(r"\baddition\b|\b(?:to|can|and) add\b|\badd(?:ing)? numbers\b|\bsums\b|\barithmetic\b|\bmaths?\b")),
    ("bugs", _rule(r"\bbugs? (?:demo|finder)\b|\b(?:find|finding|spot|name) (?:the )?bugs?\b")),
    (
        "",
        _rule(
            r"\bdemos?\b|\b(?:one|1)[- ]minute\b|\bshow me (?:something|how (?:it|this) works|it|an example)\b|^(?:just )?try (?:it"
            r"|something)(?: out)?$|\bquick(?:est)? (?:try|start|test|way)\b"
            r"|\btutorial\b|\bsomething (?:simple|quick|easy)\b|\bsurprise me\b|\bexample run\b"
        ),
    ),
)
_HIGH = _rule(
    r"\btoo (?:high|big|large|much|many|long|fast)\b|\b(?:explod\w+|jumps?|spikes?|diverg\w+|rises?|rising|goes up|went up|going up"
    r"|increas\w+|nan|not a number|high|huge)\b"
)
_LOW = _rule(
    r"\btoo (?:low|small|little|few|short|slow)\b|\b(?:stuck|flat|plateau\w*|not fall\w*|not go(?:ing)? down|does not (?:fall|drop"
    r"|change|move|decrease)|zero|low|tiny)\b"
)
_ROWS = _rule(
    r"(?<![\w.])(\d+(?:\.\d+)?)( ?k| thousand| million)? (?:\w+ ){0,3}?(?:questions|examples|rows|tickets|chats|conversations|emails"
    r"|samples|documents|pairs|answers|reviews|messages"
    r"|lines|records|prompts|texts|transcripts|articles|dialogues|faqs)\b"
)

ALONE = (_REVIEW, _STYLE, _ANSWER, _HIGH, _LOW, _ROWS)


def limit(text: str) -> str:
    """What it wishes for that there isn't; nothing where nothing such is spoken of."""
    return next((name for name, pattern in LIMITS if pattern.search(text)), "")


def goal(text: str) -> tuple[str, str]:
    """(goal, demo): names of the knowledge's goals and demos; empty for none."""
    for demo, pattern in DEMOS:
        if pattern.search(text):
            return "demo", demo or "piglatin"
    for name, pattern in (("review", _REVIEW), ("style", _STYLE), ("answer", _ANSWER)):
        if pattern.search(text):
            return name, ""
    return "", ""


def names_demo(text: str) -> bool:
    """Whether a demo is meant by what it teaches, not by the word."""
    return any(pattern.search(text) for name, pattern in DEMOS if name)


def side(text: str) -> str:
    """high, low, or nothing."""
    return "high" if _HIGH.search(text) else "low" if _LOW.search(text) else ""


def rows(text: str) -> int | None:
    """How many examples somebody says they have."""
    found = _ROWS.search(text)
    if not found:
        return None
    times = {"k": 1000, "thousand": 1000, "million": 1_000_000}.get((found[2] or "").strip(), 1)
    return min(int(float(found[1]) * times), 10**12)
