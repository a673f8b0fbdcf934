"""The small string skills that nano is born with: one generator for its training, for replay rows and for the skills file.

Each skill makes a (prompt, answer) pair from words. `skills.jsonl` is the fixed general-skills evaluation: prompts made of
held-out words only, each skill equally often. Knows nothing of models or of the demo tasks.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

from engine.data.demos.words import Dice, held_out_words

Pair = tuple[str, str]
SKILLS_FILE = Path(__file__).with_name("skills.jsonl")
ROUNDS = 16
LETTERS = string.ascii_lowercase
COUNTS = ("one letter", "two letters")


class Source:
    """Draws words for the skills: real ones, and now and then (`nonsense`) a random string of letters."""

    def __init__(self, dice: Dice, words: Sequence[str], nonsense: float = 0.2):
        self.dice, self._words, self._nonsense = dice, words, nonsense

    def word(self) -> str:
        if self._nonsense and self.dice.random() < self._nonsense:
            return "".join(self.dice.choice(LETTERS) for _ in range(self.dice.randint(3, 8)))
        return self.dice.choice(self._words)

    def words(self, low: int, high: int) -> list[str]:
        return [self.word() for _ in range(self.dice.randint(low, high))]

    def phrase(self) -> str:
        """One word mostly, two words sometimes."""
        return self.word() if self.dice.random() < 0.6 else f"{self.word()} {self.word()}"

    def ask(self, *forms: str, **parts: object) -> str:
        """One of several ways to put the question."""
        return self.dice.choice(forms).format(**parts)

    def quoted(self, word: str) -> str:
        return self.dice.choice((word, f'"{word}"', f"'{word}'", word))


def _repeat(s: Source) -> Pair:
    text = " ".join(s.words(1, 4))
    return s.ask("Repeat: {t}", "Say {t}", "Copy this: {t}", "Echo {t}", "Write {t}", t=text), text


def _spell(s: Source) -> Pair:
    word = s.word()
    return s.ask("Spell {w}", "Spell the word {w} with dashes", "Spell out {w}", w=s.quoted(word)), "-".join(word)


def _space_out(s: Source) -> Pair:
    word = s.word()
    return s.ask("Put spaces between the letters of {w}", "Space out {w}", w=s.quoted(word)), " ".join(word)


def _upper(s: Source) -> Pair:
    text = s.phrase()
    return s.ask("Uppercase {t}", "Write {t} in capitals", "Convert to upper case: {t}", "upper {t}", t=text), text.upper()


def _lower(s: Source) -> Pair:
    text = s.phrase()
    forms = ("Lowercase {t}", "Write {t} in small letters", "Convert to lower case: {t}", "lower {t}")
    return s.ask(*forms, t=text.upper()), text


def _capitalize(s: Source) -> Pair:
    word = s.word()
    return s.ask("Capitalize {w}", "Write {w} with a capital first letter", w=s.quoted(word)), word.capitalize()


def _reverse(s: Source) -> Pair:
    word = s.word()[:8]
    return s.ask("Reverse {w}", "Write {w} backwards", "Reverse the letters of {w}", w=s.quoted(word)), word[::-1]


def _first_letter(s: Source) -> Pair:
    word = s.word()
    return s.ask("What is the first letter of {w}?", "First letter of {w}", w=s.quoted(word)), word[0]


def _last_letter(s: Source) -> Pair:
    word = s.word()
    return s.ask("What is the last letter of {w}?", "Last letter of {w}", w=s.quoted(word)), word[-1]


def _length(s: Source) -> Pair:
    word = s.word()
    return s.ask("How many letters are in {w}?", "Count the letters of {w}", "Length of {w}", w=s.quoted(word)), str(len(word))


def _count_letter(s: Source) -> Pair:
    word = s.word()
    letter = s.dice.choice(word if s.dice.random() < 0.8 else LETTERS)
    prompt = s.ask("How many times is {x} in {w}?", "Count the letter {x} in {w}", x=letter, w=s.quoted(word))
    return prompt, str(word.count(letter))


def _drop_first(s: Source) -> Pair:
    word, count = s.word(), s.dice.randint(1, 2)
    name = COUNTS[count - 1].removeprefix("one ")
    return s.ask("Drop the first {n} of {w}", "Remove the first {n} from {w}", n=name, w=s.quoted(word)), word[count:]


def _drop_last(s: Source) -> Pair:
    word, count = s.word(), s.dice.randint(1, 2)
    name = COUNTS[count - 1].removeprefix("one ")
    return s.ask("Drop the last {n} of {w}", "Remove the last {n} from {w}", n=name, w=s.quoted(word)), word[:-count]


def _append(s: Source) -> Pair:
    word, end = s.word(), s.dice.choice(("er", "ing", "ed", "s", "ly", "-o", "!", ".py", "()", "ness", "-x"))
    return s.ask("Add {x} to the end of {w}", "Append {x} to {w}", x=end, w=s.quoted(word)), word + end


def _prepend(s: Source) -> Pair:
    word, start = s.word(), s.dice.choice(("un", "re", "pre", "x-", "_", "my_", "the "))
    return s.ask("Add {x} to the start of {w}", "Prepend {x} to {w}", x=start, w=s.quoted(word)), start + word


def _longer(s: Source) -> Pair:
    a, b = s.word(), s.word()
    return s.ask("Which is longer, {a} or {b}?", "Longer word: {a} or {b}", a=a, b=b), a if len(a) >= len(b) else b


def _sort_words(s: Source) -> Pair:
    words = s.words(2, 4)
    return s.ask("Sort: {t}", "Sort alphabetically: {t}", t=" ".join(words)), " ".join(sorted(words))


def _sort_letters(s: Source) -> Pair:
    word = s.word()[:6]
    return s.ask("Sort the letters of {w}", "Letters of {w} in order", w=s.quoted(word)), "".join(sorted(word))


def _vowel_start(s: Source) -> Pair:
    word = s.word()
    forms = ("Does {w} start with a vowel?", "Is the first letter of {w} a vowel?")
    return s.ask(*forms, w=s.quoted(word)), "yes" if word[0] in "aeiou" else "no"


def _join(s: Source) -> Pair:
    words, mark = s.words(2, 4), s.dice.choice("-,_/")
    return s.ask("Join with {m}: {t}", "Use {m} to join {t}", m=mark, t=" ".join(words)), mark.join(words)


def _nth_word(s: Source) -> Pair:
    words, place = s.words(2, 5), s.dice.choice((0, -1))
    name = ("first", "last")[place]
    return s.ask("What is the {n} word of: {t}", "Give the {n} word: {t}", n=name, t=" ".join(words)), words[place]


def _replace(s: Source) -> Pair:
    word = s.word()
    old, new = s.dice.choice(word), s.dice.choice(LETTERS)
    return s.ask("Replace {a} with {b} in {w}", "Change each {a} to {b}: {w}", a=old, b=new, w=word), word.replace(old, new)


def _times(s: Source) -> Pair:
    word, count = s.word(), s.dice.randint(2, 3)
    name = s.dice.choice(({2: "two", 3: "three"}[count], str(count)))
    return s.ask("Write {w} {n} times", "Repeat {w} {n} times", w=word, n=name), " ".join([word] * count)


def _swap(s: Source) -> Pair:
    a, b = s.word(), s.word()
    return s.ask("Swap the words: {a} {b}", "Swap {a} and {b}", a=a, b=b), f"{b} {a}"


def _larger(s: Source) -> Pair:
    a, b = s.dice.randint(0, 99), s.dice.randint(0, 99)
    return s.ask("Which is larger, {a} or {b}?", "max of {a} and {b}", a=a, b=b), str(max(a, b))


def _plus(s: Source) -> Pair:
    a, b = s.dice.randint(0, 9), s.dice.randint(0, 9)
    return s.ask("{a}+{b}", "What is {a} + {b}?", "Add {a} and {b}", a=a, b=b), str(a + b)


def _minus(s: Source) -> Pair:
    b, a = sorted((s.dice.randint(0, 9), s.dice.randint(0, 9)))
    return s.ask("{a}-{b}", "What is {a} - {b}?", a=a, b=b), str(a - b)


def _next_letter(s: Source) -> Pair:
    place = s.dice.randrange(25)
    return s.ask("Which letter comes after {x}?", "Letter after {x}", x=LETTERS[place]), LETTERS[place + 1]


WORD_SKILLS: tuple[Callable[[Source], Pair], ...] = (
    _repeat, _spell, _space_out, _upper, _lower, _capitalize, _reverse, _first_letter, _last_letter, _length,
    _count_letter, _drop_first, _drop_last, _append, _prepend, _longer, _sort_words, _sort_letters, _vowel_start, _join, _nth_word,
    _replace, _times, _swap,
)  # fmt: skip
OTHER_SKILLS: tuple[Callable[[Source], Pair], ...] = (_larger, _plus, _minus, _next_letter)
# What is hardest gets more practice.
PRACTICE: dict[Callable[[Source], Pair], int] = {
    _reverse: 5, _sort_letters: 4, _sort_words: 4, _replace: 4, _repeat: 2, _count_letter: 2, _length: 2, _longer: 2, _larger: 2,
}  # fmt: skip


def draw(source: Source) -> Pair:
    """One (prompt, answer) of any skill, the hard ones more often."""
    return source.dice.choice(_practised())(source)


@cache
def _practised() -> tuple[Callable[[Source], Pair], ...]:
    return tuple(skill for skill in WORD_SKILLS + OTHER_SKILLS for _ in range(PRACTICE.get(skill, 1)))


def skills_rows(seen: frozenset[str] | set[str] = frozenset(), seed: int = 5) -> list[tuple[str, Pair]]:
    """The general-skills evaluation: every word skill in turn, held-out words only and none of `seen`, no prompt twice."""
    # Some skills cut a long word, and what is left may be a word of its own.
    source = Source(Dice(seed), [word for word in held_out_words() if not {word, word[:6], word[:8]} & seen], nonsense=0)
    rows: dict[str, tuple[str, Pair]] = {}
    for _ in range(ROUNDS):
        for skill in WORD_SKILLS:
            prompt, answer = skill(source)
            while prompt in rows:
                prompt, answer = skill(source)
            rows[prompt] = (skill.__name__.lstrip("_"), (prompt, answer))
    return list(rows.values())
