"""Answers held against texts: the same, the same in essence, containing, fitting an expression."""

from __future__ import annotations

import regex

from engine.errors import RecipeError
from engine.evaluation.metrics import exact_match, normalise
from engine.recipe.methods import RewardPart
from engine.training.rewards import Grade, Plain, Rollout, Tools, wanted

# Some expressions take for ever on some texts; those take this long.
_SECONDS = 1.0
_SHOWN = 80


class Exact(Plain):
    """1 for the expected text, but for blanks around it."""

    def one(self, rollout: Rollout) -> Grade:
        known = wanted(rollout, self.part)
        if isinstance(known, Grade):
            return known
        right = any(exact_match(rollout.answer, one) for one in known)
        return Grade(1.0) if right else Grade(0.0, f"expected {_short(known[0])}")


class Normalised(Plain):
    """1 for the expected words, whatever their capitals, punctuation, articles and blanks."""

    def one(self, rollout: Rollout) -> Grade:
        known = wanted(rollout, self.part)
        if isinstance(known, Grade):
            return known
        # A text of punctuation alone has no words that could be compared.
        said = normalise(rollout.answer)
        right = any(said == normalise(one) and (said or exact_match(rollout.answer, one)) for one in known)
        return Grade(1.0) if right else Grade(0.0, f"expected {_short(known[0])}")


class Contains(Plain):
    """Texts that have to be there, or must not."""

    def one(self, rollout: Rollout) -> Grade:
        texts: list[str] | Grade = list(self.part.texts) or wanted(rollout, self.part)
        if isinstance(texts, Grade):
            return texts
        there = [self._folded(text) in self._folded(rollout.answer) for text in texts]
        lacks = [text for text, found in zip(texts, there, strict=True) if not found]
        if self.part.want == "none":
            found = next((text for text, seen in zip(texts, there, strict=True) if seen), None)
            return Grade(1.0) if found is None else Grade(0.0, f"contains {_short(found)}")
        if self.part.want == "any":
            return Grade(1.0) if any(there) else Grade(0.0, f"contains none of {len(texts)} texts")
        if not lacks:
            return Grade(1.0)
        return Grade(sum(there) / len(there) if self.part.want == "share" else 0.0, f"lacks {_short(lacks[0])}")

    def _folded(self, text: str) -> str:
        return text.casefold() if self.part.ignore_case else text


class Regex(Plain):
    """An expression that has to be found, or to fit the whole answer."""

    def __init__(self, part: RewardPart, tools: Tools | None):
        super().__init__(part, tools)
        try:
            self._pattern = regex.compile(part.pattern, regex.IGNORECASE if part.ignore_case else 0)
        except regex.error as error:
            raise RecipeError(f"the regular expression can't be read: {error}", "Correct it.", where="pattern") from error

    def one(self, rollout: Rollout) -> Grade:
        look = self._pattern.fullmatch if self.part.whole else self._pattern.search
        try:
            found = look(rollout.answer.strip() if self.part.whole else rollout.answer, timeout=_SECONDS)
        except TimeoutError:
            return Grade(0.0, f"the expression takes longer than {_SECONDS:g} second on this answer", failed=True)
        return Grade(1.0) if found else Grade(0.0, "doesn't fit the expression" if self.part.whole else "the expression isn't found")


def _short(text: str) -> str:
    text = " ".join(text.split())
    return repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "…")
