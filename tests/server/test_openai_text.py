"""Text as it comes: the same in the end as all at once, and never half a character or the beginning of a stop string."""

from __future__ import annotations

import random

import pytest
from transformers import PreTrainedTokenizerFast

from engine.rendering import get_renderer, load_tokenizer
from engine.server.openai_text import AnswerText, token_bytes, token_text
from tests.server.harness import NANO, text_tokens


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return load_tokenizer(NANO)


def pieces(text: AnswerText, tokens: list[int]) -> list[str]:
    shown = []
    for token in tokens:
        shown.append(text.add(token))
        if text.stopped:
            return shown
    return [*shown, text.end()]


class TestCharacters:
    def test_whole_ones_only(self, tokenizer: PreTrainedTokenizerFast) -> None:
        # nano spells bytes: é is two tokens, € three, the face four.
        shown = pieces(AnswerText(tokenizer), text_tokens("aé€😀z"))
        assert shown == ["a", "", "é", "", "", "€", "", "", "", "😀", "z", ""]

    def test_broken_ones_come_in_the_end(self, tokenizer: PreTrainedTokenizerFast) -> None:
        half = text_tokens("ok€")[:-1]
        assert "".join(pieces(AnswerText(tokenizer), half)) == "ok\ufffd"
        assert "".join(pieces(AnswerText(tokenizer), half + text_tokens("!"))) == "ok\ufffd!"

    @pytest.mark.parametrize("name", ["chat_template", "role_colon"])
    def test_as_the_renderer_reads_the_whole(self, tokenizer: PreTrainedTokenizerFast, name: str) -> None:
        renderer, dice = get_renderer(name, tokenizer), random.Random(7)
        alphabet = [" ", "\n", "a", "é", "€", "😀", "<think>", "</think>", "\n\nUser", "\n\nUser:", "<|user|>", "<", "User:"]
        for _ in range(300):
            spelled = [text_tokens(dice.choice(alphabet)) for _ in range(dice.randint(0, 8))]
            tokens = [token for word in spelled for token in word if dice.random() < 0.97]
            text = AnswerText(tokenizer, renderer.stop_strings, chat=True, strip=name == "role_colon")
            assert "".join(pieces(text, tokens)) == renderer.text(tokens), tokens

    def test_an_empty_thought_is_not_shown_and_a_real_one_is(self, tokenizer: PreTrainedTokenizerFast) -> None:
        assert "".join(pieces(AnswerText(tokenizer, chat=True), text_tokens("<think>\n\n</think>\n\nHi"))) == "Hi"
        assert "".join(pieces(AnswerText(tokenizer, chat=True), text_tokens("<think>\nwell</think>\nHi"))) == "<think>\nwell</think>\nHi"


class TestStopStrings:
    @pytest.mark.parametrize(
        ("said", "stops", "shown"),
        [
            ("one two three", ["two"], "one "),
            ("one two three", ["three", "two"], "one "),
            ("abababac!", ["abac"], "abab"),
            ("aaab", ["aab"], "a"),
            ("ends with tw", ["two"], "ends with tw"),
            ("caf\u00e9 au lait", ["\u00e9"], "caf"),
            ("stop", ["stop"], ""),
            ("never", ["x", "yy"], "never"),
        ],
    )
    def test_they_and_what_follows_are_never_shown(
        self, tokenizer: PreTrainedTokenizerFast, said: str, stops: list[str], shown: str
    ) -> None:
        text = AnswerText(tokenizer, stops)
        found, so_far = pieces(text, text_tokens(said)), ""
        for piece in found:
            so_far += piece
            assert shown.startswith(so_far)
        assert so_far == shown and text.stopped == (shown != said)

    def test_nothing_is_held_back_longer_than_needed(self, tokenizer: PreTrainedTokenizerFast) -> None:
        assert pieces(AnswerText(tokenizer, ["two"]), text_tokens("a twin")) == ["a", " ", "", "", "twi", "n", ""]


class TestTokens:
    def test_bytes(self, tokenizer: PreTrainedTokenizerFast) -> None:
        for text in ("a", " ", "\n", "é", "😀", "\x00\x7f"):
            assert b"".join(token_bytes(tokenizer, token) for token in text_tokens(text)) == text.encode()
        assert token_bytes(tokenizer, 1) == b"<|end|>"

    def test_those_that_are_no_text(self) -> None:
        assert token_text("é".encode()) == "é" and token_text(b"\xe2\x82") == "bytes:\\xe2\\x82"

    def test_other_tokenizers(self) -> None:
        from tokenizers import Tokenizer, decoders, models

        vocab = {"<unk>": 0, "<0xE2>": 1, "<0x82>": 2, "<0xAC>": 3, "\u2581Hi": 4, "there": 5}
        backend = Tokenizer(models.BPE(vocab, [], unk_token="<unk>", byte_fallback=True))
        steps = [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        backend.decoder = decoders.Sequence(steps)
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend)
        assert [token_bytes(tokenizer, token) for token in (1, 4, 5)] == [b"\xe2", b" Hi", b"there"]
        assert pieces(AnswerText(tokenizer), [4, 5, 1, 2, 3, 4]) == ["Hi", "there", "", "", "€", " Hi", ""]
