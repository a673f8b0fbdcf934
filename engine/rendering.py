"""Chat messages to tokens and weights, and tokens back to text.

A renderer is had by name: `chat_template` follows the model's own template, `llama3`, `qwen3`, `chatml` and `role_colon` are
written out here. All give weight 0 to what the model is asked and weight 1 to what it answers, its end mark included, on every
assistant turn. Text that people wrote never turns into control tokens: `<|im_end|>` typed by a user is encoded as its letters.
(`role_colon` has no control tokens, so there a user who types a line "User:" can't be told from the format itself.)

Ships to rented machines with the server, so it knows nothing of the rest of the engine, nor of data sets or training.
Formats as in the Qwen3 and Llama 3 chat templates and in the tinker-cookbook's renderers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from engine.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

Message = dict[str, str]
NAMES = ("chat_template", "llama3", "qwen3", "chatml", "role_colon")
_EMPTY_THOUGHT = re.compile(r"\A\s*<think>\s*</think>\s*")
# transformers swaps its module while it is imported; a second thread that waited for the import would get the old, empty one.
_IMPORTING = Lock()
_OTHER_RENDERER = "Choose another renderer (chatml, llama3, qwen3 or role_colon)."


@dataclass
class Rendered:
    """One training sequence: tokens and, of the same length, the weight of each in the loss (0 prompt, 1 completion).
    `truncated` says how many tokens were cut off the end to keep within `max_length`."""

    tokens: list[int]
    weights: list[float]
    truncated: int = 0

    @property
    def completion_tokens(self) -> int:
        """How many tokens are learned from; 0 when truncation left nothing of any answer."""
        return sum(weight > 0 for weight in self.weights)


def load_tokenizer(folder: Path | str) -> PreTrainedTokenizerFast:
    """The fast tokenizer of a local model folder, without importing torch. Raises ModelError."""
    folder = Path(folder)
    if not (folder / "tokenizer.json").is_file():
        advice = "Copy tokenizer.json (and tokenizer_config.json) from the model's page into the folder."
        raise ModelError("the model has no tokenizer: there is no tokenizer.json in its folder", advice, where=str(folder))
    with _IMPORTING:
        from transformers import PreTrainedTokenizerFast

    try:
        return PreTrainedTokenizerFast.from_pretrained(str(folder), local_files_only=True)
    except Exception as error:
        # The tokenizers library raises bare Exception for a broken file.
        raise ModelError(f"can't load the tokenizer: {error}", "Download the model's tokenizer files again.", where=str(folder)) from error


def get_renderer(name: str, tokenizer: PreTrainedTokenizerFast) -> Renderer:
    """The renderer of that name; "auto" is the tokenizer's chat template where it has one, else role_colon. Raises ModelError."""
    if name == "auto":
        name = "chat_template" if tokenizer.chat_template else "role_colon"
    kinds = {"chat_template": ChatTemplate, "llama3": Llama3, "qwen3": Qwen3, "chatml": ChatML, "role_colon": RoleColon}
    if name not in kinds:
        raise ModelError(f"there is no renderer called {name!r}", f"Choose one of: auto, {', '.join(NAMES)}.", where="renderer")
    return kinds[name](tokenizer)


class Renderer:
    """What all renderers share. A subclass gives `_sequences`, `prompt` and its stops."""

    name: str

    def __init__(self, tokenizer: PreTrainedTokenizerFast):
        from tokenizers import Tokenizer

        self._tokenizer = tokenizer
        # A copy of our own, since the switch that keeps control tokens out of plain text is a state of the tokenizer.
        self._encoder = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
        self._encoder.encode_special_tokens = True
        for encoder in (self._encoder, tokenizer.backend_tokenizer):
            encoder.no_truncation()
            encoder.no_padding()
        self.stop_tokens: list[int] = []
        self.stop_strings: list[str] = []

    def examples(self, messages: Sequence[Message], max_length: int | None = None) -> list[Rendered]:
        """Training sequences that together teach every assistant turn. Usually one; one a turn where the format shows past
        turns differently from the one being written (Qwen3 drops thoughts from the history)."""
        rendered = []
        for pieces in self._sequences(list(messages)):
            tokens = [token for piece, _ in pieces for token in piece]
            weights = [weight for piece, weight in pieces for _ in piece]
            cut = max(0, len(tokens) - max_length) if max_length else 0
            keep = len(tokens) - cut
            rendered.append(Rendered(tokens[:keep], weights[:keep], cut))
        return rendered

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """The tokens up to where the assistant starts to write."""
        raise NotImplementedError

    @property
    def stop_texts(self) -> list[str]:
        """The end marks as they are written, for samplers that take stop strings only."""
        return [self._tokenizer.decode([token], skip_special_tokens=False) for token in self.stop_tokens]

    def text(self, tokens: Sequence[int]) -> str:
        """A sampled answer as text: up to its end mark, less an empty thought."""
        end = next((place for place, token in enumerate(tokens) if token in self.stop_tokens), None)
        text = self._tokenizer.decode(list(tokens)[:end], skip_special_tokens=False, clean_up_tokenization_spaces=False)
        for stop in self.stop_strings:
            text = text.split(stop, 1)[0]
        return _EMPTY_THOUGHT.sub("", text)

    def _sequences(self, messages: list[Message]) -> Iterator[list[tuple[list[int], float]]]:
        """For each training sequence its pieces: (tokens, weight)."""
        raise NotImplementedError

    def encode(self, text: str) -> list[int]:
        """The tokens of a text by itself."""
        return self._encoder.encode(text, add_special_tokens=False).ids

    def _special(self, text: str) -> int:
        token = self._tokenizer.get_added_vocab().get(text)
        if token is None:
            raise ModelError(
                f"the tokenizer has no token {text}, which the renderer {self.name} is built on",
                "Choose the renderer auto, or one made for this model.",
                where=f"renderer {self.name}",
            )
        return token


class _Turns(Renderer):
    """Formats that show each message in the same way wherever it stands: frame, lead, content, end mark, gap."""

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        turns = [token for message in messages for token in self._turn(message)]
        return self._start() + turns + self._header("assistant")

    def _sequences(self, messages: list[Message]) -> Iterator[list[tuple[list[int], float]]]:
        pieces = [(self._start(), 0.0)]
        for message in messages[: _last_assistant(messages) + 1]:
            if message["role"] == "assistant":
                pieces += [(self._header("assistant"), 0.0), (self._answer(message["content"]), 1.0), (self._gap(), 0.0)]
            else:
                pieces.append((self._turn(message), 0.0))
        yield pieces[:-1]

    def _frame(self, role: str) -> tuple[list[int], str]:
        """What opens a message: control tokens, and the lead of text that its content follows."""
        raise NotImplementedError

    def _start(self) -> list[int]:
        return []

    def _gap(self) -> list[int]:
        return []

    def _header(self, role: str) -> list[int]:
        frame, lead = self._frame(role)
        return frame + self.encode(lead)

    def _answer(self, content: str) -> list[int]:
        """What the assistant writes, end mark included."""
        return [*self.encode(content), self._close]

    def _turn(self, message: Message) -> list[int]:
        """A whole past message."""
        frame, lead = self._frame(message["role"])
        if message["role"] == "assistant":
            return frame + self.encode(lead) + self._answer(message["content"]) + self._gap()
        # In one piece, as the model saw it: a tokenizer may join the lead's line break with the content's.
        return [*frame, *self.encode(lead + message["content"]), self._close, *self._gap()]


class ChatML(_Turns):
    """<|im_start|>user⏎Hi<|im_end|>⏎<|im_start|>assistant⏎Hello<|im_end|>"""

    name = "chatml"

    def __init__(self, tokenizer: PreTrainedTokenizerFast):
        super().__init__(tokenizer)
        self._open, self._close = self._special("<|im_start|>"), self._special("<|im_end|>")
        self.stop_tokens = _distinct([self._close, tokenizer.eos_token_id])

    def _frame(self, role: str) -> tuple[list[int], str]:
        return [self._open], f"{role}\n"

    def _gap(self) -> list[int]:
        return self.encode("\n")


class Qwen3(ChatML):
    """ChatML in which the turn being written opens with its thoughts, empty ones if need be, and past turns show none."""

    name = "qwen3"

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        return super().prompt([self._past(message) for message in messages])

    def _sequences(self, messages: list[Message]) -> Iterator[list[tuple[list[int], float]]]:
        for place, message in enumerate(messages):
            if message["role"] == "assistant":
                thought, answer = _split_thought(message["content"])
                written = f"<think>\n{thought}\n</think>\n\n{answer}"
                yield [(self.prompt(messages[:place]), 0.0), (self._answer(written), 1.0)]

    @staticmethod
    def _past(message: Message) -> Message:
        if message["role"] == "assistant":
            return {"role": "assistant", "content": _split_thought(message["content"])[1]}
        if message["role"] == "tool":
            return {"role": "user", "content": f"<tool_response>\n{message['content']}\n</tool_response>"}
        return message


class Llama3(_Turns):
    """<|begin_of_text|><|start_header_id|>user<|end_header_id|>⏎⏎Hi<|eot_id|>…"""

    name = "llama3"

    def __init__(self, tokenizer: PreTrainedTokenizerFast):
        super().__init__(tokenizer)
        self._begin, self._close = self._special("<|begin_of_text|>"), self._special("<|eot_id|>")
        self._marks = self._special("<|start_header_id|>"), self._special("<|end_header_id|>")
        self.stop_tokens = _distinct([self._close, tokenizer.eos_token_id])

    def _start(self) -> list[int]:
        return [self._begin]

    def _frame(self, role: str) -> tuple[list[int], str]:
        return [self._marks[0], *self.encode("ipython" if role == "tool" else role), self._marks[1]], "\n\n"


class RoleColon(_Turns):
    """User: Hi⏎⏎Assistant: Hello⏎⏎User: … for models without any chat format; "⏎⏎User:" ends an answer."""

    name = "role_colon"

    def __init__(self, tokenizer: PreTrainedTokenizerFast):
        super().__init__(tokenizer)
        self.stop_strings = ["\n\nUser:"]
        self.stop_tokens = _distinct([tokenizer.eos_token_id])
        first = tokenizer.encode("x")[:1]
        self._begin = first if first == [tokenizer.bos_token_id] else []

    def text(self, tokens: Sequence[int]) -> str:
        return super().text(tokens).strip()

    def _sequences(self, messages: list[Message]) -> Iterator[list[tuple[list[int], float]]]:
        pieces = [(self._start(), 0.0)]
        answered = False
        for message in messages[: _last_assistant(messages) + 1]:
            # The next speaker's name is part of the end mark, so it is learned from where it follows an answer.
            pieces.append((self._header(message["role"]), float(answered and message["role"] == "user")))
            answered = message["role"] == "assistant"
            pieces.append((self._answer(message["content"]), float(answered)))
        yield [*pieces, (self._header("user"), 1.0)]

    def _start(self) -> list[int]:
        return list(self._begin)

    def _header(self, role: str) -> list[int]:
        return self.encode(f"{role.capitalize()}:")

    def _answer(self, content: str) -> list[int]:
        return self.encode(f" {content}\n\n")

    def _turn(self, message: Message) -> list[int]:
        return self._header(message["role"]) + self._answer(message["content"])


class ChatTemplate(Renderer):
    """The model's own Jinja template."""

    name = "chat_template"

    def __init__(self, tokenizer: PreTrainedTokenizerFast):
        super().__init__(tokenizer)
        if not tokenizer.chat_template:
            raise ModelError("the tokenizer has no chat template", _OTHER_RENDERER, where="renderer chat_template")
        added = {token.content: token for token in tokenizer.added_tokens_decoder.values() if token.special}
        longest_first = sorted(added, key=len, reverse=True)
        self._controls = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")
        # Some tokens swallow the blanks beside them; splitting by hand must do so too.
        self._split = re.compile("|".join(_swallowing(added[text]) for text in longest_first) or r"((?!))")
        self._ids = tokenizer.get_added_vocab()
        self._end = self._find_end()
        self.stop_tokens = _distinct([self._ids.get(self._end), tokenizer.eos_token_id])

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        safe, hidden = self._hide(messages)
        return self._encode(self._apply(safe, ask=True), hidden)

    def _sequences(self, messages: list[Message]) -> Iterator[list[tuple[list[int], float]]]:
        safe, hidden = self._hide(messages)
        spans = []
        for place, message in enumerate(safe):
            if message["role"] == "assistant":
                asked, answered = self._apply(safe[:place], ask=True), self._apply(safe[: place + 1])
                if not answered.startswith(asked):
                    message = "the chat template writes an answer in another way than it asks for one, so what to learn can't be told"
                    raise ModelError(message, _OTHER_RENDERER, where="renderer chat_template")
                end = answered.find(self._end, len(asked)) if self._end else -1
                spans.append((asked, answered[: end + len(self._end)] if end >= 0 else answered))
        if len(spans) > 1 and (together := self._together(spans, hidden)):
            yield together
            return
        eos = self._tokenizer.eos_token_id
        ending = [] if self._end or eos is None else [([eos], 1.0)]
        for asked, answered in spans:
            yield [(self._encode(asked, hidden), 0.0), (self._encode(answered[len(asked) :], hidden), 1.0), *ending]

    def _together(self, spans: list[tuple[str, str]], hidden: dict[str, str]) -> list[tuple[list[int], float]]:
        """All turns as one sequence; empty if some turn would then see other tokens before it than it does in a chat."""
        whole = spans[-1][1]
        if not self._end or not all(whole.startswith(answered) for _, answered in spans):
            return []
        pieces: list[tuple[list[int], float]] = []
        tokens: list[int] = []
        done = 0
        for asked, answered in spans:
            before = self._encode(asked[done:], hidden)
            answer = self._encode(answered[len(asked) :], hidden)
            if pieces and tokens + before != self._encode(asked, hidden):
                return []
            pieces += [(before, 0.0), (answer, 1.0)]
            tokens += before + answer
            done = len(answered)
        return pieces

    def _find_end(self) -> str:
        """The control token that the template writes after an answer; empty if it writes none."""
        shown = self._apply([{"role": "user", "content": "question"}, {"role": "assistant", "content": "answer"}])
        found = self._controls.search(shown, shown.rfind("answer"))
        return found[0] if found else ""

    def _apply(self, messages: Sequence[Message], ask: bool = False) -> str:
        try:
            return self._tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=ask)
        except Exception as error:
            # Templates refuse what they don't support (a system message, two user turns running) with errors of their own.
            raise ModelError(
                f"the model's chat template refuses the conversation: {error}",
                f"Change the conversation, or: {_OTHER_RENDERER[0].lower()}{_OTHER_RENDERER[1:]}",
                where="renderer chat_template",
            ) from error

    def _hide(self, messages: Sequence[Message]) -> tuple[list[Message], dict[str, str]]:
        """The messages with control-token look-alikes in their text replaced by stand-ins, and what each stands for."""
        hidden: dict[str, str] = {}

        def stand_in(found: re.Match) -> str:
            mark = f"\ue000{len(hidden)}\ue001"
            hidden[mark] = found[0]
            return mark

        return [{**message, "content": self._controls.sub(stand_in, message["content"])} for message in messages], hidden

    def _encode(self, text: str, hidden: dict[str, str]) -> list[int]:
        if not hidden:
            return self._tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids
        tokens, done = [], 0
        for found in self._split.finditer(text):
            tokens += self.encode(_restore(text[done : found.start()], hidden))
            tokens.append(self._ids[found[0].strip() if found[0] not in self._ids else found[0]])
            done = found.end()
        return tokens + self.encode(_restore(text[done:], hidden))


def _restore(text: str, hidden: dict[str, str]) -> str:
    return re.sub("\ue000\\d+\ue001", lambda found: hidden.get(found[0], found[0]), text)


def _swallowing(token: Any) -> str:
    return (r"\s*" if token.lstrip else "") + re.escape(token.content) + (r"\s*" if token.rstrip else "")


def _split_thought(content: str) -> tuple[str, str]:
    """(thoughts, answer) of an assistant's text, as Qwen3's template takes them apart."""
    if "</think>" not in content:
        return "", content.lstrip("\n")
    before, after = content.split("</think>")[0], content.split("</think>")[-1]
    return before.rstrip("\n").split("<think>")[-1].strip("\n"), after.lstrip("\n")


def _last_assistant(messages: Sequence[Message]) -> int:
    return max((place for place, message in enumerate(messages) if message["role"] == "assistant"), default=-1)


def _distinct(tokens: Sequence[int | None]) -> list[int]:
    return list(dict.fromkeys(token for token in tokens if token is not None))
