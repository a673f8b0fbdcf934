"""The replies of OpenAI's API: choices as they grow, and the JSON of whole answers, chunks and errors. Knows no HTTP."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from engine.server.openai_text import AnswerText, token_text
from engine.server.scoring import Score

_LEAST = -9999.0  # JSON has no -infinity; OpenAI writes this


@dataclass
class Entry:
    """One token with its log-probability (None for the very first of a prompt), and where its text begins."""

    token: int
    logprob: float | None
    best: list[tuple[int, float]]
    offset: int


@dataclass
class Piece:
    """What one choice has to show since its last piece."""

    index: int
    text: str = ""
    entries: list[Entry] = field(default_factory=list)
    finish: str | None = None

    def __bool__(self) -> bool:
        return bool(self.text or self.entries or self.finish)


class Choice:
    """One of the answers asked for. Ends at an end mark, at a stop string or at its limit, whatever comes after."""

    def __init__(self, index: int, text: AnswerText, stop_tokens: Sequence[int], limit: int, offset: int = 0):
        """`offset`: how many characters are shown before the answer (an echoed prompt)."""
        self.index = index
        self.tokens = 0
        self.finish: str | None = None
        self._text = text
        self._stop_tokens = stop_tokens
        self._limit = limit
        self._offset = offset
        self._waiting: list[Entry] = []

    def add(self, token: int, logprob: float, best: list[tuple[int, float]] | None = None) -> Piece:
        """The next token."""
        if self.finish:
            return Piece(self.index)
        self.tokens += 1
        if token in self._stop_tokens:
            return self._close("stop")
        self._waiting.append(Entry(token, logprob, best or [], self._offset + self._text.decoded))
        text = self._text.add(token)
        if self._text.stopped:
            return Piece(self.index, text, self._decided(), self._end("stop"))
        if self.tokens >= self._limit:
            return self._close("length", text)
        return Piece(self.index, text, self._decided())

    def close(self, stopped: bool) -> Piece:
        """No more tokens come."""
        return Piece(self.index) if self.finish else self._close("stop" if stopped else "length")

    def _close(self, finish: str, text: str = "") -> Piece:
        text += self._text.end()
        if self._text.stopped:
            return Piece(self.index, text, self._decided(), self._end("stop"))
        return Piece(self.index, text, self._waiting, self._end(finish))

    def _end(self, finish: str) -> str:
        self.finish = finish
        return finish

    def _decided(self) -> list[Entry]:
        shown = [entry for entry in self._waiting if entry.offset - self._offset < self._text.decided]
        self._waiting = self._waiting[len(shown) :]
        return shown


def joined(pieces: Sequence[Piece]) -> Piece:
    """All pieces of one choice as one."""
    entries = [entry for piece in pieces for entry in piece.entries]
    finish = next((piece.finish for piece in reversed(pieces) if piece.finish), None)
    return Piece(pieces[0].index, "".join(piece.text for piece in pieces), entries, finish)


def echoed(index: int, text: str, tokens: list[int], scores: list[Score] | None, starts: list[int]) -> Piece:
    """The prompt as a choice's first piece; `scores` are those of all tokens but the first."""
    if scores is None:
        return Piece(index, text)
    rest = zip(tokens[1:], scores, starts[1:], strict=True)
    entries = [Entry(tokens[0], None, [], 0), *(Entry(token, own, best, start) for token, (own, best), start in rest)]
    return Piece(index, text, entries)


class Shape:
    """How one kind of reply is written."""

    prefix: str
    object: str
    chunk_object: str

    def __init__(self, reply_id: str, created: int, model: str, with_logprobs: bool, spell: Callable[[int], bytes]):
        """`spell`: the bytes of a token."""
        self._head = {"id": reply_id, "created": created, "model": model}
        self._with_logprobs = with_logprobs
        self._spell = spell

    def whole(self, pieces: list[Piece], usage: dict[str, int]) -> dict[str, Any]:
        """The answer to a request that doesn't stream; one piece a choice."""
        return {**self._head, "object": self.object, "choices": [self._whole_choice(piece) for piece in pieces], "usage": usage}

    def chunk(self, pieces: list[Piece], **more: Any) -> dict[str, Any]:
        """One event of a stream."""
        return {**self._head, "object": self.chunk_object, "choices": [self._chunk_choice(piece) for piece in pieces], **more}

    def opening(self, index: int) -> dict[str, Any] | None:
        """The choice before it says anything, where the format has such a thing."""
        return None

    def _whole_choice(self, piece: Piece) -> dict[str, Any]:
        raise NotImplementedError

    def _chunk_choice(self, piece: Piece) -> dict[str, Any]:
        raise NotImplementedError


class ChatShape(Shape):
    """chat/completions."""

    prefix, object, chunk_object = "chatcmpl-", "chat.completion", "chat.completion.chunk"

    def opening(self, index: int) -> dict[str, Any]:
        return {"index": index, "delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": None}

    def _whole_choice(self, piece: Piece) -> dict[str, Any]:
        message = {"role": "assistant", "content": piece.text, "refusal": None}
        return {"index": piece.index, "message": message, "logprobs": self._logprobs(piece), "finish_reason": piece.finish}

    def _chunk_choice(self, piece: Piece) -> dict[str, Any]:
        delta = {"content": piece.text} if piece.text else {}
        return {"index": piece.index, "delta": delta, "logprobs": self._logprobs(piece), "finish_reason": piece.finish}

    def _logprobs(self, piece: Piece) -> dict[str, Any] | None:
        if not self._with_logprobs:
            return None
        content = []
        for entry in piece.entries:
            best = [self._token(token, logprob) for token, logprob in entry.best]
            content.append({**self._token(entry.token, entry.logprob), "top_logprobs": best})
        return {"content": content, "refusal": None}

    def _token(self, token: int, logprob: float | None) -> dict[str, Any]:
        raw = self._spell(token)
        return {"token": token_text(raw), "logprob": _number(logprob), "bytes": list(raw)}


class CompletionShape(Shape):
    """completions."""

    prefix, object, chunk_object = "cmpl-", "text_completion", "text_completion"

    def _whole_choice(self, piece: Piece) -> dict[str, Any]:
        return {"index": piece.index, "text": piece.text, "logprobs": self._logprobs(piece), "finish_reason": piece.finish}

    _chunk_choice = _whole_choice

    def _logprobs(self, piece: Piece) -> dict[str, Any] | None:
        if not self._with_logprobs:
            return None
        return {
            "tokens": [self._text(entry.token) for entry in piece.entries],
            "token_logprobs": [_number(entry.logprob) for entry in piece.entries],
            "top_logprobs": [self._best(entry) for entry in piece.entries],
            "text_offset": [entry.offset for entry in piece.entries],
        }

    def _best(self, entry: Entry) -> dict[str, float | None] | None:
        """The likeliest tokens, and the one that was taken whether it is among them or not."""
        if entry.logprob is None:
            return None
        return {self._text(token): _number(logprob) for token, logprob in [*entry.best, (entry.token, entry.logprob)]}

    def _text(self, token: int) -> str:
        return token_text(self._spell(token))


def error_body(message: str, kind: str = "invalid_request_error", param: str | None = None, code: str | None = None) -> dict[str, Any]:
    """An error as OpenAI's clients read it."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def usage(prompt: int, completion: int) -> dict[str, int]:
    """Token counts."""
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def _number(logprob: float | None) -> float | None:
    return None if logprob is None else max(logprob, _LEAST)
