"""The rules by which sentences are told apart, as patterns over plain text. Tables only; what follows from them is `meaning`'s business."""

from __future__ import annotations

import re
from functools import cache


def _rule(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)


_ASK = r"^(?:(?:please|can you|could you|would you|now|ok|okay|just) )*"
_IT = r"(?:it|this|that|them|things|everything|(?:my |the |our |this |that )?(?:\w+ )?(?:run|runs|training|job|jobs|model|demo))"

GREETING = _rule(r"^(?:hi|hello|hey|hiya|howdy|greetings|yo|good (?:morning|evening|afternoon|day))\b[ ?]*")
NOBODY = _rule(r"(?:there|assistant|thinker|friend|everyone|again|you|bot|all|world)[ ?]*")
QUESTION = _rule(
    r"^(?:and |so |but )?(?:what|why|how|is|are|am|does|do|did|should|shall|which|when|can|could|explain|tell me|define|describe|who|where"
    r"|will|would|meaning of|difference)\b|\?"
)
CAN_YOU = _rule(r"\b(?:can|could|would|how (?:do|can|could|would)) (?:you|i|we|it)\b")
EXPLAIN = _rule(r"\b(?:what (?:is|are|does|do)|explain|define|meaning of|tell me about|describe)\b")
WISH = _rule(
    r"\b(?:make|teach|train|fine-tune|tune|build|create|turn|get|want|need|would like|like to|learn|have got|i have|help me|use|try|run"
    r"|start|do|launch|give me|generate|let us)\b"
)
BETWEEN = _rule(r"\b(?:or|vs|versus|difference|differences|compare|compared|better than|instead of|rather than)\b")
TROUBLE = _rule(r"\b(?:my|the|is|explodes|exploding|jumps|spikes|diverges|nan|goes|went|rises|rising|keeps|stuck)\b")
GOOD_VALUE = _rule(
    r"\b(?:good|right|best|recommended|sensible|usual|typical|default|ideal|optimal|reasonable|normal|healthy)\b|\brecommend\b"
    r"|\bhow (?:high|big|large|many|much|long|small|low) (?:should|must|do|does|is)\b|\b(?:what|which)\b.*\b(?:should|do|to)"
    r" (?:i|we|be|use|set|take)\b"
)
LATEST = _rule(
    r"\b(?:last|latest|newest|most recent|recent|uploaded|just added) (?:\w+ )?(?:upload|file|data set|data|examples|one i uploaded)\b"
    r"|\bmy (?:upload|uploaded file|own data|data(?! sets?\b)|file|examples)\b|\bwhat i (?:just )?uploaded\b|"
    r"\bthe file i (?:just )?(?:uploaded|added)\b"
)
USE_DATA = _rule(r"\b(?:use|take|train|with|on|from|choose|pick|learn|learns|select|using|try|data set)\b")

FIRST: tuple[tuple[str, re.Pattern[str]], ...] = (
    (
        "thanks",
        _rule(
            r"^(?:ok |okay )?(?:thanks|thank you|cheers|great|perfect|awesome|nice|cool|wonderful|good job|well done)(?: \w+){0,3}$"
        ),
    ),
    ("bye", _rule(r"^(?:bye|goodbye|see you|good night|quit|exit)\b")),
    (
        "help",
        _rule(
            r"\bwhat (?:all )?(?:can|could|do) you (?:do|know|help|answer|offer)\b|^(?:please )?help(?: me)?(?: please)?(?: \?)?$"
            r"|\bhow (?:do|can|does) (?:you|this) (?:work|help)\b|\bwh(?:o|at) are you\b|\bwhat (?:can|should|could|do) i (?:do|ask|say)\b"
            r"|\bhow do i (?:start|begin|get started|use (?:this|it|thinker))\b|\bwhere do i (?:start|begin)\b|\bget started\b"
            r"|^what (?:now|next)\b"
            r"|^can you help\b|^menu$"
        ),
    ),
    (
        "delete",
        _rule(
            rf"{_ASK}(?:delete|remove|erase|throw away|wipe|drop) .*\b(?:runs?|jobs?|models?|data|data sets?|files?|everything|all"
            rf"|tables?)\b"
        ),
    ),
    (
        "again",
        _rule(
            rf"\b(?:train|run|do|try|launch|start)\b.*\b(?:again|once more)\b|^{_IT}? ?(?:again|once more)\b|\bretry\b"
            r"|\brepeat (?:it|that|the (?:run|training))\b"
        ),
    ),
    ("pause", _rule(rf"{_ASK}(?:pause|suspend|hold)\b(?: {_IT})?(?: \S+)?(?: \S+)?(?: \?)?$")),
    ("stop", _rule(rf"{_ASK}(?:(?:stop|halt|abort|kill|end|terminate)(?: {_IT})?|cancel {_IT})(?: \S+)?(?: \S+)?(?: \?)?$")),
    ("resume", _rule(rf"{_ASK}(?:resume|continue|unpause|carry on|keep going|go on)\b(?: {_IT})?(?: \S+)?(?: \S+)?(?: \?)?$")),
    ("reset", _rule(r"^(?:never ?mind|forget (?:it|that|this)|start over|reset|scratch that|cancel|discard(?: it)?|no|nope)(?: please)?$")),
    (
        "no_data",
        _rule(
            r"^(?:i )?(?:have |got )?(?:no|not any|do not have(?: any)?|have not(?: any)?)(?: \w+)? (?:data|examples|files?)(?: yet)?$"
            r"|^(?:i have |i have got )?(?:none|nothing)(?: yet)?$"
        ),
    ),
    (
        "launch",
        _rule(
            r"^(?:please )?(?:start|launch|go|run it|do it|begin|yes|yep|yeah|sure|ok|okay|go ahead|train it|let us go|let us do it"
            r"|make it so"
            r"|(?:sounds|looks) good|(?:start|launch|run|begin) (?:it|that|this|the (?:training|run|demo)))(?: now| please| then"
            r"| training)*(?: \?)?$"
        ),
    ),
    (
        "chat",
        _rule(
            r"\b(?:chat|talk|speak)(?: \w+)? (?:with|to)\b.*\b(?:it|models?|run|result|bot|nano|last|latest|newest|best)\b|^chat$"
            r"|\bplayground\b"
            r"|^(?:let me |can i |i want to |i would like to )?(?:try|test|talk to|ask) (?:it|(?:the|my)(?: \w+)? model)(?: out)?(?: \?)?$"
        ),
    ),
    (
        "best_model",
        _rule(
            r"\b(?:best|strongest|most accurate)\b.*\b(?:models?|runs?|one|results?) ?(?:\?|$|so far|of|i have|that)|\bwhich (?:model"
            r"|run|one) (?:is|was) (?:the )?(?:best|better)"
        ),
    ),
    (
        "compare",
        _rule(
            r"\bcompar\w+\b.*\b(?:runs?|last|latest|two|three|models?|them|both|jobs?)\b|\bdifference between (?:my|the) (?:last|two|runs)"
        ),
    ),
    (
        "eta",
        _rule(
            r"\bhow (?:much )?long(?:er)?\b.*\b(?:still|left|more|until|to go|remaining)\b|\bhow much longer\b|\btime (?:is )?left\b"
            r"|\beta\b|\bwhen (?:is|will|does)\b.*"
            r"\b(?:done|finish\w*|ready|end|over)\b|\bhow (?:long|much) (?:still|left|more)\b|\bis it (?:done|finished|ready)\b"
            r"|\balmost done\b|\bare we there\b"
        ),
    ),
    (
        "failure",
        _rule(
            r"\bwhy (?:did|has|does|is|was|do)\b.*\b(?:fail\w*|crash\w*|stop(?:ped)?|broken?|broke|die[ds]?|errors?)\b"
            r"|\bwhat went wrong\b|\bwhat (?:was|is) the error\b"
            r"|\b(?:it|run|training|job) (?:has |just )?(?:failed|crashed|died|broke)\b|\berror message\b|^why failed\b|\bfailed runs?\b"
        ),
    ),
)  # fmt: skip
THEN: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("recommended", _rule(r"\bback to (?:the )?(?:default|recommended|usual)|\b(?:use|take) (?:the |what is )?(?:recommended|default)")),
    (
        "estimate",
        _rule(
            r"\bhow (?:long|much time) (?:will|would|does|do|is)\b.*\b(?:take|need|run)\b|\bhow much (?:will|does|would|do)\b.*\bcost\b"
            r"|\bwhat (?:will|does|would) .*\bcost\b"
            r"|\bestimates?\b|\bhow expensive\b|\bprices?\b|\bis it free\b|\bcosts?\b"
        ),
    ),
    (
        "base_models",
        _rule(
            r"\b(?:which|what|good|best|recommend\w*)\b.*\b(?:base models?|model (?:should|do|to|can|would))\b"
            r"|\bbase models (?:are there|do you)"
        ),
    ),
    (
        "new",
        _rule(
            r"\b(?:train|fine-tune|tune|teach|make|create|build|start|begin)\b (?:an? |my |me |us |another |some |the |new |own |small "
            r"|custom )*(?:models?|llm|training|run|ai|something)"
            r"(?: now| please| of my own| for me| myself)*(?: \?)?$|^new (?:training|run|model)$"
        ),
    ),
    (
        "machine",
        _rule(
            r"\b(?:this|my|the|our) (?:\w+ )?(?:computer|machine|laptop|pc|hardware|processor|cpu|gpu|box|mac|macbook)\b|\bdo (?:i|we"
            r"|you) have (?:a |an |any |enough )?"
            r"(?:gpu|memory|ram|disk|cuda)\b|\bhave i (?:got )?(?:a |any )?gpu\b|\bis there (?:a |any )?gpu\b|\b(?:what|which) gpu (?:do"
            r"|have|is)\b"
            r"|\bhow much (?:memory|ram|disk|space)\b|^(?:hardware|gpu|machine)(?: \?)?$|\bsystem (?:info|requirements)\b"
            r"|\bcan i (?:train|run|do) .*\b(?:here|locally)\b"
        ),
    ),
    (
        "upload",
        _rule(
            r"\b(?:upload|add|import|drop|bring)\b.*\b(?:files?|data|data sets?|examples|csv|jsonl|json|parquet)\b|\bhow (?:do"
            r"|can) i (?:upload|add)\b"
            r"|\bi have (?:a |an |some )?(?:\w+ )?(?:file|csv|jsonl|json|parquet|spreadsheet|excel)\b"
        ),
    ),
    (
        "list_data",
        _rule(
            r"\b(?:which|list|show|see|what|any|my|are there|have)\b.*\b(?:data sets?|uploads|files|example sets?"
            r"|sets of examples)\b.*(?:\?|are|do|have|there|mine)?$"
            r"|^data sets?(?: \?)?$|\b(?:show|list|see) (?:me )?(?:my |the )?data\b|\bwhat data (?:is|do i have|have i|are)"
        ),
    ),
    ("list_models", _rule(r"\b(?:list|show|which|what|my|see)\b.*\bmodels\b|^models(?: \?)?$|\btrained models\b")),
)  # fmt: skip
LAST: tuple[tuple[str, re.Pattern[str]], ...] = (
    (
        "progress",
        _rule(
            rf"\b(?:is|are|was|does|did|will) {_IT}\b.*\b(?:better|improv\w+|learn\w*|progress\w*|worse|working|works?|ok|okay|fine"
            rf"|healthy|overfit\w*|stuck|diverg\w+|converg\w+|good|well)\b"
            rf"|\bis (?:something|anything) wrong\b|\bdoctor\b|\bdiagnos\w+|\bhow (?:good|well) (?:is|does|did|was) {_IT}\b"
        ),
    ),
    (
        "list_runs",
        _rule(
            r"\b(?:show|list|which|what|all|how many|see|my)\b.*\b(?:runs|jobs|trainings)\b|\bwhat (?:is|are) (?:running|training"
            r"|going on|happening)\b|\bwhich (?:is|are) running\b"
            r"|^runs(?: \?)?$"
        ),
    ),
    (
        "status",
        _rule(
            rf"\bhow (?:is|are|was|did|does|far|goes)\b.*\b(?:it|that|things|everything|runs?|training|jobs?|model|going)\b|\bstatus\b"
            rf"|\bany news\b|\bprogress\b|\bhow far\b|\bwhere (?:is|are) {_IT}\b"
            r"|\b(?:my|the) (?:last|latest|newest|current|first) (?:run|job|training)\b|^(?:my|the) run\b|\bhow is\b.*\bgoing\b"
            r"|\bwhat about (?:my |the )?(?:run|training|job)\b"
        ),
    ),
    ("why", _rule(r"^(?:but )?why\b|\breasons?\b|^how come\b")),
)  # fmt: skip

_LIMITS: tuple[tuple[str, re.Pattern[str]], ...] = (
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
    r"|funny|funnier|sarcas\w+|pirates?|shakespeare\w*|yoda|poets?|poetic|rhymes?|translat\w+|rewrit\w+|rephras\w+|paraphras\w+"
    r"|summari[sz]\w+|shorten\w*|accent|dialect|brand|persona\w*"
    r"|character|friendly|friendlier|concise|shorter answers|answers shorter|in json|as json|json output|valid json|markdown|xml|yaml)\b"
)
_ANSWER = _rule(
    r"\b(?:questions?|answers?|answering|faqs?|support|customers?|help ?desk|tickets?|q&a|qa|chat ?bots?|bots?|assistant|experts?"
    r"|manuals?|docs|documentation|emails?|conversations?"
    r"|dialogues?|dialogs?|classif\w+|labels?|categor\w+|sentiment|extract\w*|inquiries|queries)\b"
)
_DEMOS: tuple[tuple[str, re.Pattern[str]], ...] = (
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


def limit(text: str) -> str:
    """What it wishes for that there isn't; nothing where nothing such is spoken of."""
    return next((name for name, pattern in _LIMITS if pattern.search(text)), "")


def goal(text: str) -> tuple[str, str]:
    """(goal, demo): names of the knowledge's goals and demos; empty for none."""
    for demo, pattern in _DEMOS:
        if pattern.search(text):
            return "demo", demo or "piglatin"
    for name, pattern in (("review", _REVIEW), ("style", _STYLE), ("answer", _ANSWER)):
        if pattern.search(text):
            return name, ""
    return "", ""


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


@cache
def vocabulary() -> frozenset[str]:
    """Every word that a rule looks for."""
    patterns = [*FIRST, *THEN, *LAST, *_LIMITS, *_DEMOS]
    alone = [WISH, QUESTION, BETWEEN, TROUBLE, GOOD_VALUE, LATEST, USE_DATA, EXPLAIN, _REVIEW, _STYLE, _ANSWER, _HIGH, _LOW, _ROWS]
    sources = " ".join(pattern.pattern for pattern in [*(pattern for _, pattern in patterns), *alone])
    # \b and \w stand before words, and would be read as a part of them.
    words = re.findall(r"[a-z]{3,}", re.sub(r"\\[a-zA-Z]", " ", sources))
    return frozenset([*words, "steps", "batch", "rank", "rate", "epochs", "smaller", "larger", "bigger", "lower", "higher", "fewer"])
