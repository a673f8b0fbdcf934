"""The guide says what the program says: every recipe field and every metric, in today's words."""

from __future__ import annotations

from engine import knowledge
from engine.knowledge import guide
from engine.recipe import fields


def test_the_guides_tables_are_up_to_date() -> None:
    text = guide.GUIDE.read_text(encoding="utf-8")
    assert guide.written(text) == text, "run: python -m engine.knowledge.guide"


def test_the_guide_has_every_field_metric_demo_and_method() -> None:
    text = guide.GUIDE.read_text(encoding="utf-8")
    for name in [field["name"] for field in fields()] + list(knowledge.metrics()) + list(knowledge.demos()):
        assert f"`{name}`" in text, name
    for name in knowledge.methods():
        assert f"`method: {name}`" in text


def test_every_field_says_what_it_is() -> None:
    for field in fields():
        assert field["help"] and field["help"].endswith("."), field["name"]


def test_how_long_to_train_on_so_many_rows() -> None:
    # 5,000 rows fill 157 batches of 32; 500 rows are repeated to reach 100 updates; 40 rows stop at ten passes: 400 / 32 = 12.5.
    assert [knowledge.steps_for(rows, 32)["value"] for rows in (5000, 500, 40, 1)] == [157, 100, 13, 1]
    assert "about 6 times" in knowledge.steps_for(500, 32)["reason"]
