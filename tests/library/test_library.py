"""The library of data sets: what is kept, what is refused, and what can be seen of it."""

from __future__ import annotations

import io
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine import Engine, library
from engine.data import load_data, shelf
from engine.errors import DataError, NotFound, RecipeError, StateError
from engine.recipe import Recipe


@pytest.fixture
def engine(nothing_starts: list[str]) -> Iterator[Engine]:
    with Engine() as made:
        yield made


def jsonl(*rows: object) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def pairs(count: int) -> bytes:
    return jsonl(*({"prompt": f"Question {n}", "completion": f"Answer {n}"} for n in range(count)))


def test_a_file_is_kept_and_survives_a_restart(engine: Engine) -> None:
    kept = engine.datasets.add("Support chats.jsonl", io.BytesIO(pairs(30)))
    assert (kept.name, kept.file, kept.state, kept.format) == ("Support chats", "Support chats.jsonl", "ready", "prompt_completion")
    assert (kept.examples, kept.left_out, kept.stats["rows"]) == (30, 0, 30)
    with Engine() as later:
        assert later.datasets.find() == [kept]
        assert later.datasets.rows(kept.id, 28)[-1].messages[-1]["content"] == "Answer 29"
        assert later.datasets.original(kept.id) == ("Support chats.jsonl", pairs(30))


def test_the_same_bytes_are_kept_once(engine: Engine, thinker_home: Path) -> None:
    first = engine.datasets.add("a.jsonl", pairs(3))
    assert engine.datasets.add("b.jsonl", pairs(3)) == first
    assert [path.name for path in (thinker_home / "datasets").iterdir()] == [first.id]
    assert engine.datasets.add("a.jsonl", pairs(4)).name == "a-2"


def test_names_of_files_lead_nowhere_else(engine: Engine, thinker_home: Path) -> None:
    for number, name in enumerate(["../../evil.jsonl", "C:\\data\\evil.jsonl", "/", "", ".jsonl", "x" * 300 + ".jsonl"], 1):
        kept = engine.datasets.add(name, pairs(number))
        assert kept.name and len(kept.name) <= 120 and "/" not in kept.file
    assert {path.parent.parent.parent for path in thinker_home.rglob("original*")} == {thinker_home}


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", b"", "a.jsonl: the file is empty"),
        ("a.json", b'[{"prompt": 1,]', "a.json, line 1: the file isn't JSON"),
        ("a.xlsx", b"PK\x03\x04" + bytes(50), "a.xlsx: this is a zip archive or an Excel workbook"),
        ("a.csv", "prompt,completion\nä,ö\n".encode("latin-1"), "a.csv, line 2: the text isn't UTF-8"),
        ("a.csv", b"prompt,completion\n", "a.csv: the file holds no rows"),
        ("a.jsonl", b"{\n{\n", "a.jsonl, line 1: none of the 2 rows can be used"),
    ],
)
def test_what_cant_be_read_is_refused_and_leaves_nothing(engine: Engine, thinker_home: Path, name: str, content: bytes, said: str) -> None:
    with pytest.raises(DataError) as raised:
        engine.datasets.add(name, content)
    assert str(raised.value).startswith(said) and raised.value.next_step
    assert engine.datasets.find() == [] and not list((thinker_home / "datasets").iterdir())


def test_a_file_that_is_too_big(engine: Engine, thinker_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "MAX_BYTES", 100)
    for source in (pairs(10), io.BytesIO(pairs(10))):
        with pytest.raises(DataError, match="the most that the library keeps"):
            engine.datasets.add("a.jsonl", source)
    assert not list((thinker_home / "datasets").iterdir())


def test_what_a_killed_process_left_is_swept_up(engine: Engine, thinker_home: Path) -> None:
    left = thinker_home / "datasets" / ".0123456789ab.999999999.abcd.tmp"
    left.mkdir(parents=True)
    assert engine.datasets.find() == [] and not left.exists()


def test_rows_that_cant_be_used_are_named_and_left_out(engine: Engine) -> None:
    good, empty = {"prompt": "Q", "completion": "A"}, {"prompt": "Q", "completion": " "}
    kept = engine.datasets.add("a.jsonl", jsonl(good, empty, empty, {"prompt": "Q"}, good))
    assert (kept.state, kept.examples, kept.left_out) == ("check", 2, 3)
    assert (kept.stats["empty_answers"], kept.stats["duplicates"]) == (2, 1)
    found = engine.datasets.problems(kept.id)
    assert [problem["place"] for problem in found["problems"]] == ["line 2, completion", "line 3, completion", "line 4, completion"]
    assert [(group["count"], group["message"]) for group in found["groups"]] == [(2, "the answer is empty"), (1, "the field is missing")]
    assert [row.row for row in engine.datasets.rows(kept.id)] == [1, 5]
    assert engine.datasets.accept(kept.id).state == "ready"


def test_columns_can_be_told_apart_by_hand(engine: Engine) -> None:
    content = b"frage,antwort\nWer?,Ich\nWas?,\n"
    kept = engine.datasets.add("fragen.csv", content)
    assert kept.state == "unmapped" and kept.error["where"] == "fragen.csv"
    for needs in (engine.datasets.rows, engine.datasets.lengths, engine.datasets.as_chats, engine.dataset_recipe):
        with pytest.raises(StateError, match="which columns"):
            needs(kept.id)
    seen = engine.datasets.columns(kept.id)
    assert seen["columns"] == ["frage", "antwort"] and seen["rows"][0] == {"frage": "Wer?", "antwort": "Ich"}
    with pytest.raises(DataError, match=r"fragen\.csv"):
        engine.datasets.remap(kept.id, "prompt_completion", {"prompt": "frage", "completion": "nix"})
    assert engine.datasets.get(kept.id) == kept and engine.datasets.original(kept.id)[1] == content
    mapped = engine.datasets.remap(kept.id, "prompt_completion", {"prompt": "frage", "completion": "antwort"})
    assert (mapped.state, mapped.examples, mapped.error) == ("check", 1, None)
    assert engine.datasets.rows(kept.id)[0].messages[-1]["content"] == "Ich"


def test_pages_and_search(engine: Engine) -> None:
    rows = ({"prompt": f'Say "{n}"\nloud', "completion": f"ÄPFEL {n}"} for n in range(25))
    kept = engine.datasets.add("a.jsonl", jsonl(*rows))
    look = engine.datasets
    assert [row.position for row in look.rows(kept.id, 20, 10)] == [20, 21, 22, 23, 24]
    assert look.rows(kept.id, 25, 10) == look.rows(kept.id, 999) == []
    assert look.search(kept.id, "äpfel 7") == [7]
    assert look.search(kept.id, '"7"\nLOUD') == [7]
    assert look.search(kept.id, "content") == look.search(kept.id, "user") == look.search(kept.id, " ") == []
    assert len(look.search(kept.id, "say")) == 25


def test_lengths_are_worked_out_once(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    # <|user|> Hi <|end|> <|assistant|> Yo <|end|> is 8 tokens, of which 3 are learned; 3,000 letters are over nano's 1,024.
    kept = engine.datasets.add("a.jsonl", jsonl({"prompt": "Hi", "completion": "Yo"}, {"prompt": "x" * 3000, "completion": "Yo"}))
    found = engine.datasets.lengths(kept.id)
    assert (found["rows"], found["measured"], found["over"], found["unanswered"], found["limit"]) == (2, 2, 1, 1, 1024)
    assert found["learned"] == 6 and sum(bar["count"] for bar in found["histogram"]) == 2
    monkeypatch.setattr(library.lengths, "measure", lambda *_: pytest.fail("measured again"))
    assert engine.datasets.lengths(kept.id) == found


def test_what_the_model_sees(engine: Engine) -> None:
    messages = [{"role": "user", "content": "Hi 😀"}, {"role": "assistant", "content": "Yo"}]
    row = shelf.Row(0, 1, messages, "task")
    (tokens,) = (shown.tokens for shown in engine.datasets.seen(row))
    assert "".join(token.text for token in tokens) == "<|user|>Hi 😀<|end|><|assistant|>Yo<|end|>"
    assert "".join(token.text for token in tokens if token.part == "answer") == "Yo<|end|>"
    assert [token.part for token in engine.datasets.seen(row, max_length=5)[0].tokens][-1] == "cut"
    with pytest.raises(NotFound, match="isn't on this machine"):
        engine.datasets.seen(row, "Qwen/none-such")


def test_names(engine: Engine) -> None:
    first, second = engine.datasets.add("a.jsonl", pairs(2)), engine.datasets.add("b.jsonl", pairs(3))
    assert engine.datasets.rename(first.id, "  Good   rows ").name == "Good rows"
    for bad in ("", " ", "x" * 121, "b"):
        with pytest.raises(StateError):
            engine.datasets.rename(first.id, bad)
    assert [found.id for found in engine.datasets.find("good")] == [first.id]
    assert {found.id for found in engine.datasets.find()} == {first.id, second.id}


def test_a_run_on_a_data_set(engine: Engine) -> None:
    kept = engine.datasets.add("Shouts.jsonl", pairs(40))
    recipe = engine.dataset_recipe(kept.id)
    assert (recipe.name, recipe.data.dataset) == ("Shouts", kept.id)
    engine.datasets.rename(kept.id, "Louder")
    job = engine.launch(Recipe.make({"data": {"dataset": kept.id}}))
    assert job.name == "Louder" and engine.datasets.used_by(kept.id) == [job]
    data = load_data(job.recipe)
    assert (data.name, len(data.train) + len(data.held_out)) == ("Louder", 40)
    for refused in (engine.datasets.delete, engine.datasets.remap):
        with pytest.raises(StateError, match="waiting its turn"):
            refused(kept.id)
    engine.stop(job.id)
    engine.datasets.delete(kept.id)
    assert not shelf.folder(kept.id).exists()
    with pytest.raises(DataError, match="isn't in the library"):
        load_data(job.recipe)
    with pytest.raises(NotFound):
        engine.launch(recipe)


def test_a_recipe_names_one_source() -> None:
    for data in ({"dataset": "../../etc"}, {"dataset": "0123456789ab", "demo": "piglatin"}, {"dataset": "x"}):
        with pytest.raises(RecipeError):
            Recipe.make({"data": data})


def test_what_ships_can_be_looked_at_but_not_changed(engine: Engine) -> None:
    shipped = next(found for found in engine.datasets.ships() if found.name == "piglatin")
    assert {found.name for found in engine.datasets.ships()} == set(engine.demos())
    assert engine.datasets.get(shipped.id) == shipped and shipped.examples == shipped.stats["rows"] > 1000
    assert len(engine.datasets.rows(shipped.id, 0, 5)) == 5
    assert engine.datasets.search(shipped.id, "pig latin")
    assert engine.dataset_recipe(shipped.id) == engine.demo_recipe("piglatin")
    assert len(engine.datasets.as_chats(shipped.id)[1].splitlines()) == shipped.examples
    change = engine.datasets
    for refused in (change.delete, change.accept, change.columns, change.remap, lambda one: change.rename(one, "x")):
        with pytest.raises(StateError, match="comes with Thinker"):
            refused(shipped.id)


def test_what_is_somebody_elses_isnt_there(engine: Engine) -> None:
    kept = engine.datasets.add("a.jsonl", pairs(12))
    with Engine(owner="ann") as other:
        theirs = other.datasets
        calls = [theirs.get, theirs.usable, theirs.rows, theirs.problems, theirs.columns, theirs.lengths, theirs.original, theirs.as_chats]
        calls += [theirs.delete, theirs.accept, theirs.remap, theirs.used_by, other.dataset_recipe]
        calls += [lambda one: theirs.search(one, "a"), lambda one: theirs.rename(one, "b")]
        calls += [lambda one: other.launch(Recipe.make({"data": {"dataset": one}}))]
        for call in calls:
            with pytest.raises(NotFound):
                call(kept.id)
        assert theirs.find() == []
        assert theirs.add("a.jsonl", pairs(12)).id != kept.id
    assert engine.datasets.get(kept.id) == kept


def test_taking_away(engine: Engine) -> None:
    kept = engine.datasets.add("a.csv", b"question,answer\nQ,A\nQ,\n")
    assert engine.datasets.original(kept.id) == ("a.csv", b"question,answer\nQ,A\nQ,\n")
    name, chats = engine.datasets.as_chats(kept.id)
    assert name == "a.chats.jsonl"
    assert [json.loads(line) for line in chats.splitlines()] == [
        {"messages": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]}
    ]


@pytest.mark.slow
def test_a_large_file_stays_fast(engine: Engine) -> None:
    content = jsonl(*({"prompt": f"Question {n} " + "word " * 30, "completion": f"Answer {n} " + "word " * 30} for n in range(100_000)))
    kept = engine.datasets.add("large.jsonl", content)
    before = time.process_time()
    for start in range(0, 100_000, 10_000):
        assert len(engine.datasets.rows(kept.id, start, 10)) == 10
    assert time.process_time() - before < 0.5
    assert engine.datasets.search(kept.id, "answer 99999 ") == [99999]
    assert engine.datasets.lengths(kept.id)["measured"] == library.MEASURED_ROWS
    assert os.path.getsize(shelf.folder(kept.id) / shelf.OFFSETS) == 8 * 100_001


PAIRS = [{"prompt": f"Q{n}", "chosen": f"good {n}", "rejected": f"a longer bad {n}", "level": n} for n in range(30)]
LABELS = [{"prompt": f"Q{n}", "completion": f"A{n}", "label": "up" if n % 2 else "down", "who": "Ann"} for n in range(30)]
PROMPTS = [{"prompt": f"Q{n}", **({"answer": f"A{n}"} if n % 3 == 0 else {}), "tests": [f"t{n}"]} for n in range(30)]


@pytest.mark.parametrize(
    ("rows", "shape", "told"),
    [
        (PAIRS, "pairs", {"longer_chosen": 0, "rejected_median": 15}),
        (LABELS, "labels", {"good": 15, "bad": 15}),
        (PROMPTS, "prompts", {"expected": 10}),
    ],
)
def test_every_shape_is_kept_whole(engine: Engine, rows: list[dict], shape: str, told: dict) -> None:
    kept = engine.datasets.add("rows.jsonl", jsonl(*rows))
    assert (kept.shape, kept.examples, kept.state) == (shape, 30, "ready")
    assert kept.stats == kept.stats | told | {"duplicates": 0, "repeated_prompts": 0}
    place = Path(engine.store.dataset(kept.id).file)
    assert place.name == "rows.jsonl"
    # What a run reads of the library is what it would read of the file.
    source = {"dataset": kept.id}
    from_library = load_data(Recipe.make({"data": source}), shape=shape)
    original = Path(shelf.original(kept.id))
    from_file = load_data(Recipe.make({"data": {"path": str(original)}}), shape=shape)
    assert (from_library.train, from_library.held_out) == (from_file.train, from_file.held_out)
    # And what can be taken away reads as the same again.
    name, text = engine.datasets.as_chats(kept.id)
    again = engine.datasets.add(name, text)
    assert [row.example for row in engine.datasets.rows(again.id, 0, 30)] == [row.example for row in engine.datasets.rows(kept.id, 0, 30)]
    assert again.shape == shape and engine.datasets.lengths(again.id)["tokens"] == engine.datasets.lengths(kept.id)["tokens"] > 0


def test_both_sides_of_a_pair_count_and_are_seen(engine: Engine) -> None:
    kept = engine.datasets.add("a.jsonl", jsonl({"prompt": "Hi", "chosen": "Yo", "rejected": "Hello"}))
    # <|user|> Hi <|end|> <|assistant|> and Yo <|end|> or Hello <|end|>, in bytes: 5 + 3 and 5 + 6 tokens.
    found = engine.datasets.lengths(kept.id)
    assert (found["tokens"], found["longest"], found["learned"]) == (19, 11, 9)
    better, worse = engine.datasets.seen(engine.datasets.rows(kept.id)[0])
    assert ["".join(token.text for token in side.tokens if token.part == "answer") for side in (better, worse)] == [
        "Yo<|end|>",
        "Hello<|end|>",
    ]
    prompts = engine.datasets.add("b.jsonl", jsonl({"prompt": "Hi", "answer": "Yo"}, {"prompt": "Hi there", "level": 1}), format="prompt")
    (shown,) = engine.datasets.seen(engine.datasets.rows(prompts.id)[0])
    assert "".join(token.text for token in shown.tokens) == "<|user|>Hi<|end|><|assistant|>"
    assert engine.datasets.search(kept.id, "hello") == [0] and engine.datasets.search(prompts.id, "1") == [1]


def test_a_set_that_an_older_version_kept_is_read(engine: Engine) -> None:
    kept = engine.datasets.add("a.jsonl", pairs(12))
    chats = shelf.chats_file(kept.id)
    old = [
        json.dumps({name: line[name] for name in ("messages", "row", "kind")}) for line in map(json.loads, chats.read_text().splitlines())
    ]
    chats.write_text("".join(f"{line}\n" for line in old))
    (chats.parent / shelf.OFFSETS).unlink()
    stats = {name: value for name, value in kept.stats.items() if name not in ("shape", "other_columns")}
    engine.store.set_dataset(kept.id, stats=stats)
    assert engine.datasets.get(kept.id).shape == "answers" and len(engine.datasets.rows(kept.id, 0, 20)) == 12
    assert len(load_data(Recipe.make({"data": {"dataset": kept.id}})).train) == 11
    with pytest.raises(DataError, match="these are prompts with answers") as raised:
        load_data(Recipe.make({"name": "mine", "data": {"dataset": kept.id}}), shape="pairs")
    assert raised.value.where == "mine"


def test_mixed_in_sets_are_their_owners_and_needed(engine: Engine) -> None:
    main, other = engine.datasets.add("a.jsonl", pairs(30)), engine.datasets.add("b.jsonl", pairs(40))
    recipe = Recipe.make({"data": {"dataset": main.id, "mix": [{"dataset": other.id, "weight": 0.2}]}, "training": {"steps": 3}})
    assert engine.planner.figures(recipe)["epoch"] == 27 + 7
    job = engine.launch(recipe)
    assert engine.datasets.used_by(other.id) == [job]
    with pytest.raises(StateError, match="needs it"):
        engine.datasets.delete(other.id)
    with Engine("stranger") as stranger:
        mine = stranger.datasets.add("c.jsonl", pairs(50))
        stolen = recipe.merged({"data": {"dataset": mine.id}})
        for use in (stranger.launch, stranger.planner.plan, stranger.planner.preview):
            with pytest.raises(NotFound):
                use(stolen)
