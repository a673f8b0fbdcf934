"""Tokens to text as they come: no half characters, no stop strings, nothing of a chat's frame. Knows neither HTTP nor models."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_NO_THOUGHT = "<think></think>"
_EMPTY_THOUGHT = re.compile(r"\A\s*<think>\s*</think>\s*")
_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


class Detokenizer:
    """Whole characters only. Decodes a short window, since a token's text may depend on the tokens before it."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast):
        self._tokenizer = tokenizer
        self._done: list[int] = []
        self._open: list[int] = []

    def add(self, token: int) -> str:
        """The text that is certain by now and wasn't before."""
        self._open.append(token)
        text = self._text()
        # The replacement character stands for bytes that may yet become a character.
        if not text or text.endswith("\ufffd"):
            return ""
        self._done, self._open = self._open, []
        return text

    def end(self) -> str:
        """What is left, broken characters included."""
        text = self._text() if self._open else ""
        self._done, self._open = self._open, []
        return text

    def _text(self) -> str:
        return self._decode(self._done + self._open)[len(self._decode(self._done)) :]

    def _decode(self, tokens: list[int]) -> str:
        return self._tokenizer.decode(tokens, skip_special_tokens=False, clean_up_tokenization_spaces=False)


class AnswerText:
    """One answer's text. `chat` takes an empty thought off its start, `strip` blanks off both ends, as renderers do."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, stops: Sequence[str] = (), *, chat: bool = False, strip: bool = False):
        self._pieces = Detokenizer(tokenizer)
        self._stops = [stop for stop in stops if stop]
        self._strip = strip
        self._opening = chat or strip
        self._pending = ""
        self._blanks = ""
        self.decoded = 0  # characters written so far
        self.decided = 0  # of these, up to where it's known what is shown
        self.stopped = False

    def add(self, token: int) -> str:
        """The text to show now."""
        return self._take(self._pieces.add(token), end=False)

    def end(self) -> str:
        """The text to show at last."""
        return "" if self.stopped else self._take(self._pieces.end(), end=True)

    def _take(self, piece: str, *, end: bool) -> str:
        self._pending += piece
        self.decoded += len(piece)
        places = [place for stop in self._stops if (place := self._pending.find(stop)) >= 0]
        if places:
            self.stopped = end = True
            shown, self._pending = self._pending[: min(places)], ""
        else:
            keep = 0 if end else max((_overlap(self._pending, stop) for stop in self._stops), default=0)
            shown = self._pending[: len(self._pending) - keep]
            self._pending = self._pending[len(shown) :]
        self.decided += len(shown)
        return self._trim(shown, end)

    def _trim(self, text: str, end: bool) -> str:
        text = self._blanks + text
        self._blanks = ""
        if self._opening:
            if not end and _NO_THOUGHT.startswith("".join(text.split())):
                self._blanks = text
                return ""
            self._opening = False
            text = _EMPTY_THOUGHT.sub("", text)
            text = text.lstrip() if self._strip else text
        if self._strip:
            kept = text.rstrip()
            self._blanks = text[len(kept) :]
            return kept
        return text


def _overlap(text: str, stop: str) -> int:
    """How long an end of `text` is the beginning of `stop`."""
    return next((size for size in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:size])), 0)


def token_bytes(tokenizer: PreTrainedTokenizerFast, token: int) -> bytes:
    """The bytes that a token stands for, which needn't be whole characters."""
    piece = tokenizer.convert_ids_to_tokens(token)
    if piece is None:
        return b""
    decoder = repr(tokenizer.backend_tokenizer.decoder)
    if token in tokenizer.added_tokens_decoder:
        return piece.encode()
    if "ByteLevel" in decoder:
        letters = _byte_letters()
        return bytes(letters[letter] for letter in piece) if all(letter in letters for letter in piece) else piece.encode()
    if "ByteFallback" in decoder and (byte := _BYTE.fullmatch(piece)):
        return bytes([int(byte[1], 16)])
    return piece.replace("\u2581", " ").encode() if "\u2581" in piece else tokenizer.decode([token]).encode()


def token_text(raw: bytes) -> str:
    """A token's bytes as a string; those that are no characters written as `bytes:\\xe2`."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw)


@cache
def _byte_letters() -> dict[str, int]:
    """The letter by which byte-level tokenizers write each byte (GPT-2's table): printable ones as they are, others from 256 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + place): byte for place, byte in enumerate(others)}
