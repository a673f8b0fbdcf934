"""The rules by which sentences are told apart, as patterns over plain text. Tables only; what follows from them is `meaning`'s business."""

from __future__ import annotations

import re
from functools import cache

from engine.assistant import wishes


def _rule(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)


_ASK = r"^(?:(?:please|can you|could you|would you|now|ok|okay|just) )*"
_IT = r"(?:it|this|that|them|things|everything|(?:my |the |our |this |that )?(?:\w+ )?(?:run|runs|training|job|jobs|model|demo))"

GREETING = _rule(r"^(?:hi|hello|hey|hiya|howdy|greetings|yo|good (?:morning|evening|afternoon|day))\b[ ?]*")
NOBODY = _rule(r"(?:there|assistant|thinker|friend|everyone|again|you|bot|all|world)[ ?]*")
QUESTION = _rule(
    r"^(?:and |so |but )?(?:what|why|how|is|are|am|does|do|did|should|shall|which|when|can|could|explain|tell me|define"
    r"|describe|who|where"
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

_TRAIN = r"(?:train\w*|teach\w*|fine-tun\w+|tun(?:e|ing)|learn\w*)"
_MINE = r"(?:my|the|that|this) (?:(?:last|latest|newest|best|tuned|trained|first|existing|old|current) )*(?:models?|adapter|checkpoint|one)"
COMPARES = _rule(
    r"\bcompar\w+\b|\bversus\b|\bvs\b|\bdifferences? between\b|\b(?:better|worse) than\b|\bside by side\b|\bagainst\b"
    r"|^(?:which|what|who)\b.*\bbetter\b"
)
FURTHER = _rule(
    rf"\bfurther\b|\b(?:{_TRAIN}|learn)\b.*\b(?:more|longer)\b|\b(?:keep|continue|go on|carry on) (?:on )?{_TRAIN}\b|\bon top of\b"
    rf"|\b(?:start|starting|begin|beginning|go on|going on|continue|continuing|carry on|build"
    rf"|building)(?: {_TRAIN})?(?: again)? (?:from|on|with)\b"
    rf"|\bstarting point\b|\bas (?:the|a) (?:start|basis|base)\b|\bimprove\b|\bmake\b.*\beven better\b|\bbased on\b"
)
FURTHER_UNNAMED = _rule(
    rf"\b{_TRAIN} (?:it|this|that|{_MINE}) (?:\w+ )?further\b|\b{_TRAIN} further\b|\b{_TRAIN} {_MINE} (?:some )?more\b"
    rf"|\b(?:go on|continue|start|build|carry on)(?: {_TRAIN})? (?:from|on|with) (?:it|{_MINE})\b|\b(?:keep|continue"
    rf"|go on) {_TRAIN} {_MINE}\b"
    rf"|\bimprove {_MINE}\b|\buse {_MINE} as (?:the|a) (?:start\w*|basis|base)\b|\bcan i (?:go on|continue) from (?:it|there)\b"
)
THING = "\1"  # stands for each letter of a name of a run or model
USES_IT = _rule(
    rf"^(?:please |ok |okay |now )*(?:use|take|start (?:with|from)|from|with) (?:the model )?{THING}+(?: instead| please| now)*$"
)
TALKS_TO = _rule(
    r"\b(?:chat|talk|speak)(?: \w+)? (?:with|to)\b|^(?:please )?(?:let me |can i |i want to |i would like to )?(?:try|test|ask|open)\b"
)
CORRECTS = _rule(
    r"\bteach\w* (?:\w+ )?by correct\w+|\bcorrect(?:ing|ion|ions)?\b.*\b(?:answers?|it|model|repl(?:y|ies)|mistakes?|chat)\b"
    r"|\b(?:fix|change|edit|mend|improve)\b.*\b(?:wrong|bad|its|the|an?) (?:answers?|repl(?:y|ies)|responses?)\b"
    r"|\b(?:it|model) (?:answers?|answered|replies|replied|says|said|gets|got|keeps saying"
    r"|keeps answering)\b.*\b(?:wrong|incorrect\w*|false|bad)"
    r"|\bwrong answers?\b|\b(?:tell|show) (?:it|the model) (?:what|how) it should (?:have )?(?:say|said|answer)|\bthumbs? down\b"
    r"|\bfeedback\b.*\b(?:answers?|model|it)\b"
)
CHEAPER = _rule(r"\b(?:cheaper|cheap|costs? less|less (?:money|expensive|costly)|cost as little)\b")

FIRST: tuple[tuple[str, re.Pattern[str]], ...] = (
    (
        "thanks",
        _rule(
            r"^(?:ok |okay )?(?:thanks|thank you|cheers|great|perfect|awesome|nice|cool|wonderful|good job|well done)(?: \w+){0,3}$"
        ),
    ),
    ("bye", _rule(r"^(?:bye|goodbye|see you|good night|quit|exit)\b")),
    ("correcting", CORRECTS),
    (
        "privacy",
        _rule(
            r"\b(?:private|privacy|confidential|gdpr|secret data|leaves? (?:my|this|the) (?:computer|machine|laptop|pc))\b"
            r"|\bwhere (?:does|do|is|are|will)\b.*\b(?:data|files?|examples|uploads?|chats?|conversations?)\b.*\b(?:go"
            r"|goes|stored|kept|saved|sent|end up)\b"
            r"|\b(?:who|anyone|anybody|someone|somebody|others?|you)\b.*\b(?:see|sees|read|reads|access|look at|has"
            r"|have)\b.*\b(?:my|our) (?:data|files?|examples|chats?|models?|runs?|keys?)\b"
            r"|\b(?:send|sends|sent|share|shares|shared|upload|uploads|uploaded|leak)\b.*\b(?:my|our) (?:data|files?"
            r"|examples|chats?)\b.*\b(?:anywhere|somewhere|to (?!thinker)|with|away|out|internet|cloud)\b"
            r"|\b(?:is|are) (?:my|our) (?:data|files?|examples|chats?|models?) (?:\w+ )?(?:safe|secure|shared|public|sent|uploaded)\b"
            r"|\bdoes (?:it|this|thinker|anything) (?:phone|call) home\b|\btelemetry\b"
        ),
    ),
    (
        "key",
        _rule(
            r"\b(?:add|enter|give|put|set|change|type|paste|use|need|needs|wants?|asks?(?: me)? for|get|where"
            r"|wait\w* for|missing|have)\b.*\b(?:api )?keys?\b(?! words?)"
            r"|^(?:api )?keys?(?: \?)?$"
        ),
    ),
    (
        "help",
        _rule(
            r"\bwhat (?:all )?(?:can|could|do) you (?:do|know|help|answer|offer)\b|^(?:please )?help(?: me)?(?: please)?(?: \?)?$"
            r"|\bhow (?:do|can|does) (?:you|this) (?:work|help)\b|\bwh(?:o|at) are you\b|\bwhat (?:can|should|could"
            r"|do) i (?:do|ask|say)\b"
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
            r"|^(?:let me |can i |i want to |i would like to )?(?:try|test|talk to|ask) (?:it|(?:the"
            r"|my)(?: \w+)? model)(?: out)?(?: \?)?$"
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
            r"\bcompar\w+\b.*\b(?:runs?|last|latest|two|three|models?|them|both|jobs?)\b|\bdifference between (?:my"
            r"|the) (?:last|two|runs)"
        ),
    ),
    (
        "figure",
        _rule(
            r"\b(?:what|how (?:high|low|good|big|large))\b.*\b(?:is|are|was)\b.*\b(?:my|the|its) (?:\w+ ){0,2}(?:loss"
            r"|accuracy|perplexity|gradient norm"
            r"|exact match|speed|learning rate|tokens (?:a|per) second)\b.*\b(?:now|right now|currently|at the moment"
            r"|so far|today|at present|by now|just now)\b"
            r"|\bhow (?:high|low) (?:is|are)\b.*\b(?:loss|accuracy|perplexity|gradient norm)\b|\b(?:current|latest"
            r"|newest|last) (?:\w+ )?(?:loss|accuracy|perplexity)\b"
            r"|\b(?:show|give|tell) (?:me )?(?:my|the) (?:\w+ )?(?:loss|accuracy|figures|numbers|metrics)\b"
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
            r"|\b(?:it|run|training|job) (?:\w+ ){0,3}(?:failed|crashed|died|broke)\b|\berror message\b|^why failed\b|\bfailed runs?\b"
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
            r"\b(?:show|list|which|what|all|how many|see|my)\b.*\b(?:runs|jobs|trainings)\b|\bwhat (?:is|are) (?:running|training(?! \w)"
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


@cache
def vocabulary() -> frozenset[str]:
    """Every word that a rule looks for."""
    patterns = [*FIRST, *THEN, *LAST, *wishes.LIMITS, *wishes.DEMOS]
    alone = [WISH, QUESTION, BETWEEN, TROUBLE, GOOD_VALUE, LATEST, USE_DATA, EXPLAIN, COMPARES, FURTHER, CHEAPER, *wishes.ALONE]
    sources = " ".join(pattern.pattern for pattern in [*(pattern for _, pattern in patterns), *alone])
    # \b and \w stand before words, and would be read as a part of them.
    words = re.findall(r"[a-z]{3,}", re.sub(r"\\[a-zA-Z]", " ", sources))
    return frozenset([*words, "steps", "batch", "rank", "rate", "epochs", "smaller", "larger", "bigger", "lower", "higher", "fewer"])
