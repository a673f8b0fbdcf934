"""What newcomers say to the assistant with some runs and models of their own: understood, or answered with a question that helps."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine import Engine, Recipe, paths, policy
from engine.assistant import Reply, pointing
from engine.assistant.meaning import Names, read
from engine.errors import KeyNeeded
from engine.evaluation.winrate import compare
from engine.jobs import host
from engine.store import Job, Model
from tests.app.conftest import Runs
from tests.assistant.test_assistant import Conversation, kinds
from tests.test_planning import rows

NAMES = Names(
    {"support chats": "a" * 12},
    {"tutor": "b" * 12, "poet": "c" * 12, "b" * 12: "b" * 12},
    ("nano",),
    {"tutor": "e" * 12, "nano v2": "f" * 12, "e" * 12: "e" * 12},
)
SAID = {
    "further": """train tutor further|can you keep training tutor?|go on from nano v2|improve tutor with support chats|train it further
        continue training my last model|use tutor as a starting point|teach tutor addition on top of what it knows|build on my best model
        use nano v2|start from tutor|I'd like to train tutor some more|tutor should learn more from support chats""",
    "compare": """compare tutor and poet|compare tutor with nano v2|which is better, tutor or poet?|is tutor better than its base model?
        put tutor and nano v2 side by side|what's the difference between tutor and poet|tutor vs poet""",
    "figure": "what's the loss now|what is the accuracy right now?|how high is the loss|show me the numbers|current loss",
    "status": "how is it going|hows it going with tutor|how is tutor",
    "model": "how good is nano v2?|tell me about nano v2",
    "privacy": """is my data private?|where does my data go|do you send my files anywhere|can other people see my chats?
        does my data leave this computer|is my data safe here?""",
    "estimate": "how much will it cost|what will that cost me?|does it cost anything|is it free?",
    "best_model": "which is my best model|which one is the best so far?",
    "change": "make it shorter|make it cheaper|can you make it faster?|make it use less memory|make it a bit quicker please",
    "correcting": """teach by correcting|how do I correct a wrong answer|the model answers wrong, what can I do?
        can I fix its bad answers myself?|I want to give feedback on its answers|tell the model what it should have said""",
    "key": "where do I put my API key?|how do I add a key|my run is waiting for a key",
    "chat": "chat with tutor|ask tutor|talk to nano v2",
    "resume": "continue|continue the training",
    "goal": "make it correct grammar in emails|it should correct my spelling|make the answers shorter",
    "use_data": "use support chats|train on support chats",
}  # fmt: skip
PHRASES = [(said.strip(), intent) for intent, many in SAID.items() for said in many.replace("\n", "|").split("|")]


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    monkeypatch.setattr(host, "ensure_runner", lambda *_: None)
    with Engine() as made:
        yield made


@pytest.fixture
def say(engine: Engine) -> Conversation:
    return Conversation(engine)


def tuned(engine: Engine, name: str, **more: Any) -> Model:
    """A finished run on the demo, and a model of it that can be gone on from."""
    job = Runs(engine).done(name)
    path = f"tinker://made/weights/{job.id}-100"
    for kind in ("weights", "sampler_weights"):
        (paths.folder("checkpoints", "made", kind, f"{job.id}-100") / "adapter_config.json").write_text("{}")
    about = {"full": False, "rank": 32, "train_mlp": True, "train_attn": True, "train_unembed": True, "seed": None}
    (paths.folder("checkpoints", "made", "weights", f"{job.id}-100") / "checkpoint.json").write_text(json.dumps(about))
    [model] = engine.models(job.id)
    engine.registry.delete(model.id)
    known = {
        "base_model": "nano",
        "endpoint": "local",
        "renderer": "chat_template",
        "proof": model.proof,
        "sampler_path": model.sampler_path,
    }
    return engine.store.add_model(name, job_id=job.id, weights_path=path, owner=engine.owner, **known, **more)


@pytest.mark.parametrize(("said", "intent"), PHRASES)
def test_each_is_understood(said: str, intent: str) -> None:
    assert read(said, NAMES).intent == intent


def test_there_are_many() -> None:
    assert len(PHRASES) > 55


def test_each_is_answered_with_something_to_do(engine: Engine) -> None:
    tuned(engine, "Tutor"), tuned(engine, "Poet"), tuned(engine, "nano v2")
    engine.datasets.add("support chats.jsonl", rows(80))
    for said, _ in PHRASES:
        reply = engine.assistant.answer(said)[0]
        assert reply.intent != "unknown" and reply.text and (reply.actions or reply.choices), said
        assert Reply.from_dict(json.loads(json.dumps(reply.to_dict()))) == reply
        for choice in reply.choices:
            assert engine.assistant.answer(choice.say)[0].intent not in ("unknown", "unknown_term", "empty"), (said, choice)
    assert len(engine.jobs()) == 3, "nothing was started"


def test_a_model_is_gone_on_from(engine: Engine, say: Conversation) -> None:
    assert "no tuned model" in say("train my model further").text
    tutor = tuned(engine, "Tutor")
    reply = say("train tutor further")
    assert reply.proposal and "goes on from **Tutor**" in reply.text and kinds(reply) == ["launch", "wizard"]
    recipe = Recipe.make(reply.proposal.recipe)
    assert (recipe.start.checkpoint, recipe.data.demo, recipe.name) == (tutor.id, "piglatin", "Tutor v2")
    assert reply.proposal.summary[0].startswith("Tutor learns from") and reply.proposal.sound
    assert "full" not in repr([choice.say for choice in reply.choices]), "an adapter is gone on with as one"
    kept = engine.datasets.add("support chats.jsonl", rows(80))
    other = say("use support chats").proposal
    assert other and (other.recipe["data"]["dataset"], other.recipe["start"]["checkpoint"]) == (kept.id, tutor.id)
    shorter = say("make it shorter")
    assert shorter.proposal and shorter.proposal.recipe["training"]["steps"] == other.recipe["training"]["steps"] // 2
    fresh = say("use nano").proposal
    assert fresh and fresh.recipe["start"]["checkpoint"] == "" and fresh.recipe["base_model"] == "nano"
    more = Conversation(engine)("teach tutor addition on top of what it knows with 40 steps").proposal
    assert more and (more.recipe["data"]["demo"], more.recipe["training"]["steps"]) == ("addition", 40)
    assert engine.launch(Recipe.make(more.recipe)).recipe.start.checkpoint == tutor.id


def test_a_model_without_its_weights_or_run_is_told(engine: Engine, say: Conversation) -> None:
    Runs(engine).done("Kept for use")
    reply = say("train kept for use further")
    assert "without the weights to go on from" in reply.text and say(reply.choices[0].say).intent == "again"
    lone = tuned(engine, "Lone")
    engine.delete(lone.job_id or "")
    reply = say("train lone further")
    assert reply.proposal is None and "goes on from **Lone**" in reply.text and "Add your examples" in reply.text
    assert "no model yet" in say(f"train run {Runs(engine).failed('Broken').id} further").text


def test_two_are_compared_by_name(engine: Engine, say: Conversation) -> None:
    tutor, poet = tuned(engine, "Tutor"), tuned(engine, "Poet")
    tuned(engine, "Newest")
    reply = say("compare tutor and poet")
    assert set(reply.facts[0]) == {"figure", "Tutor", "Poet"} and kinds(reply) == ["compare", "beside"]
    assert [action.about for action in reply.actions] == [f"{tutor.job_id},{poet.job_id}", f"{tutor.id},{poet.id}"]
    base = say("is tutor better than its base?")
    assert "from 0 % to **96.5 %**" in base.text and base.actions[0].about == f"{tutor.id},base:nano"
    assert [choice.label for choice in base.choices] == ["With Newest", "With Poet"]
    assert set(say(base.choices[1].say).facts[0]) == {"figure", "Tutor", "Poet"}
    engine.delete(poet.job_id or "")
    gone = say("compare tutor and poet")
    assert "the run is gone" in gone.text and kinds(gone) == ["beside"] and len(gone.facts) == 2
    assert (
        "the same model twice" in say(f"compare tutor and model {tutor.id}").text
        or "With" in say("compare tutor and tutor").choices[0].label
    )


def test_the_second_one_is_of_the_last_list(engine: Engine, say: Conversation) -> None:
    assert say("how is the second one?").intent == "which_one" and "shown no list" in say("train the second one further").text
    first, second, third = tuned(engine, "Ann"), tuned(engine, "Bob"), tuned(engine, "Cy")
    kept = [engine.datasets.add(f"{name}.jsonl", rows(60 + n)) for n, name in enumerate(("apples", "pears"))]
    say("list my runs")
    assert "**Bob** is finished" in say("how is the second one?").text
    assert "**Ann** is finished" in say("and the last one?").text
    assert "**Cy** is finished" in say("#1").text
    assert set(say("compare the first and the third one").facts[0]) == {"figure", "Cy", "Ann"}
    assert set(say("compare them").facts[0]) == {"figure", "Cy", "Bob"}
    missed = say("how is the fifth one?")
    assert missed.intent == "which_one" and "The last list has 3" in missed.text
    say("which models do I have?")
    assert say("tell me about the third one").actions[-1].about == first.id
    assert say("chat with the 2nd one").actions[0].about == second.id
    further = say("train the last one further").proposal
    assert further and further.recipe["start"]["checkpoint"] == first.id
    assert "**Bob**" in say("the second model").text, "of the list of models still"
    say("which data sets are there?")
    used = say("use the second one")
    assert used.intent == "use_data" and say("use nano").proposal.recipe["data"]["dataset"] == kept[0].id
    assert say("the last run").intent == "status", "that is the newest, whatever was listed"
    assert say("use 2 epochs").intent == "change" and third


@pytest.mark.parametrize("said", ["the last one", "2", "number 2", "first", "how did the last one go?"])
def test_without_a_list_words_mean_what_they_meant(said: str) -> None:
    assert pointing.resolved(said, []) == said


def test_the_newest_figures_are_told(engine: Engine, say: Conversation) -> None:
    assert "no run yet" in say("what's the loss now").text
    running = Runs(engine).running("Poet")
    reply = say("what's the loss now")
    assert "**Poet** is learning" in reply.text and reply.actions[0].about == running.id
    assert "0.1** at step 40, from 4 at step 1" in reply.text and "0.168** at step 25, from 4 at step 0" in reply.text
    assert "gradient" in say("what is the gradient norm now?").text.lower()
    assert say("make it cheaper").text.startswith("Once more what **Poet** did")


def test_a_cheaper_run_is_proposed_and_said_what_it_saves(engine: Engine, say: Conversation) -> None:
    steps = [say("one-minute demo").proposal.recipe["training"]["steps"]]
    for said in ("make it cheaper", "make it shorter", "can you make it faster?"):
        reply = say(said)
        steps.append(reply.proposal.recipe["training"]["steps"])
        assert ("costs nothing but time" in reply.text) == ("cheaper" in said)
    assert steps == [100, 50, 25, 12]
    batch = say("make it use less memory").proposal
    assert batch and batch.recipe["training"]["batch_size"] == 16
    assert "nothing" in say("how much will it cost").text


def test_where_data_goes_is_told_as_it_is(engine: Engine, say: Conversation) -> None:
    reply = say("is my data private?")
    assert "stays on this machine" in reply.text and "None of your runs was placed there" in reply.text and kinds(reply) == ["settings"]
    engine.store.create_job(engine.demo_recipe("piglatin", {"name": "Away", "endpoint": "tinker"}))
    assert "1 of your runs was placed there; the newest is **Away**" in say("where does my data go").text
    with Engine(f"{policy.VISITOR}0a1b") as visitor:
        told = visitor.assistant.answer("is my data private?")[0].text
        assert "Other visitors see nothing of yours" in told and "read its disk" in told and "Away" not in told


def test_how_to_correct_leads_to_the_playground(engine: Engine, say: Conversation) -> None:
    assert say("how do I correct a wrong answer?").actions[0].about == "base:nano"
    tutor = tuned(engine, "Tutor")
    reply = say("tutor answers wrong")
    assert "Correct it" in reply.text and "Undo" in reply.text and [(one.kind, one.about) for one in reply.actions] == [("chat", tutor.id)]


def test_a_run_that_waits_for_its_key_leads_to_the_settings(engine: Engine, say: Conversation) -> None:
    store = engine.store
    job = store.create_job(engine.demo_recipe("piglatin", {"name": "Away", "endpoint": "tinker"}))
    store.claim_job("test", job_id=job.id)
    store.transition(job.id, "needs_key", attempt=1, error=KeyNeeded("the key for Tinker isn't there", "Give it.").to_dict())
    for said in ("how is my run?", "is it getting better?", "how long still?"):
        reply = say(said)
        assert "waits for a key of yours for Tinker" in reply.text and "failed" not in reply.text.lower(), said
        assert ("settings", "Give the key") in [(action.kind, action.label) for action in reply.actions], said
    asked = say("where do I put my API key?")
    assert "**Away** waits for it" in asked.text and kinds(asked) == ["settings"]


def test_visitors_are_offered_what_they_may_have(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(host, "ensure_runner", lambda *_: None)
    with Engine(f"{policy.VISITOR}0a1b") as visitor:
        visitor.datasets.add("support chats.jsonl", rows(80))
        through = Conversation(visitor)
        made = through("use my latest upload").proposal
        assert made and made.recipe["base_model"] == "nano", "there is nothing to choose"
        for said in (
            "which base model should I use?",
            "what can this computer do?",
            "fine-tune gpt-4",
            "load a data set from hugging face",
        ):
            reply = through(said)
            told = repr(reply.to_dict())
            assert (
                "Qwen" not in told and "one from the hub" not in told and "come from the hub" not in told and str(paths.home()) not in told
            ), said
            for choice in reply.choices:
                assert "/" not in choice.say
        refused = through("use Qwen/Qwen3-0.6B")
        assert refused.proposal is None and "visitors can't have it downloaded" in refused.text
        assert through(refused.choices[0].say).proposal, "and the way back"
    with Engine() as alone:
        assert "Qwen" in repr(alone.assistant.answer("which base model should I use?")[0].to_dict())


def test_others_models_are_not_found(engine: Engine) -> None:
    tutor = tuned(engine, "Tutor")
    with Engine(owner="somebody else") as stranger:
        ask = stranger.assistant.answer
        assert ask("train tutor further")[0].intent != "further" or "no tuned model" in ask("train tutor further")[0].text
        for said in (f"train model {tutor.id} further", f"tell me about model {tutor.id}", "compare tutor and tutor"):
            assert "96.5" not in repr(ask(said)[0].to_dict()) and "**Tutor**" not in ask(said)[0].text, said
        state = {"model": tutor.id, "run": tutor.job_id, "shown": [{"kind": "model", "id": tutor.id}]}
        for said in ("train it further", "the first one", "chat with it", "how do I correct its answers"):
            assert "Tutor" not in repr(ask(said, state)[0].to_dict()), said


def scored(engine: Engine, name: str, before: float, after: float, won: float | None = None, metric: str = "reward", **changes: Any) -> Job:
    """A finished run whose proof is a score, and how often a judge prefers its answers."""
    recipe = {"method": "rl", "name": name, "data": {"demo": "piglatin"}, "reward": {"parts": [{"kind": "numeric"}]}, **changes}
    job = engine.store.create_job(Recipe.make(recipe))
    job = engine.store.claim_job("test", lease_s=3600, job_id=job.id)
    proof: dict[str, Any] = {"held_out": {"before": {"count": 64, metric: before}, "after": {"count": 64, metric: after}}}
    if won is not None:
        wins = compare([1.0] * round(64 * won) + [0.0] * (64 - round(64 * won)), [0.5] * 64)
        proof["win_rate"] = {"judge": ["judge"], "against": "stage", **wins.to_dict()}
    engine.store.set_fields(job.id, job.attempt, result=proof)
    known = {
        "base_model": "nano",
        "endpoint": "local",
        "renderer": "chat_template",
        "sampler_path": f"tinker://made/sampler_weights/{job.id}",
    }
    engine.store.add_model(name, job_id=job.id, proof=proof, **known)
    for state in ("training", "evaluating", "done"):
        job = engine.store.transition(job.id, state, attempt=job.attempt)
    return job


def test_scores_and_wins_are_told_as_right_answers_are(engine: Engine, say: Conversation) -> None:
    scored(engine, "Sums", 0.24, 0.88, 0.75), scored(engine, "Counts", 0.24, 0.5)
    told = say("how did sums go?").text
    assert "On 64 prompts it had never seen, score went from 0.24 to **0.88**." in told and "Wins 75 % against" in told
    assert "score went from 0.24 to **0.88**" in say("tell me about sums").text
    compared = say("compare sums and counts")
    assert "**Sums** is better: score 0.88 against 0.5." in compared.text and "**Sums** wins 75 %" in compared.text
    assert compared.facts[0]["Sums"] == "score 0.24 → 0.88, wins 75 %" and compared.facts[0]["Counts"] == "score 0.24 → 0.5"
    base = say("is sums better than its base model?").text
    assert "score went from 0.24 to **0.88**" in base and "Wins 75 %" in base and "no proof" not in base
    best = say("which is my best model?")
    assert best.text.startswith("**Sums**: score went from 0.24 to 0.88 on 64 prompts") and len(best.facts) == 2
    assert [row["proof"] for row in say("which models do I have?").facts] == ["score 0.24 → 0.5", "score 0.24 → 0.88, wins 75 %"]
    assert {row["proof"] for row in say("list my runs").facts} == {"score 0.24 → 0.5", "score 0.24 → 0.88, wins 75 %"}
    assert engine.runs.table()[0]["proof"] == "score 0.24 → 0.5"


def test_what_was_scored_otherwise_isnt_held_against_each_other(engine: Engine, say: Conversation) -> None:
    scored(engine, "Sums", 0.2, 0.9), scored(engine, "Texts", 0.2, 0.5, reward={"parts": [{"kind": "exact"}]})
    scored(engine, "Taught", 0.0, 0.7, metric="agreement", method="distill", distill={"kind": "answers", "teacher": "nano"})
    tuned(engine, "Tutor")
    for other in ("texts", "taught", "tutor"):
        assert "judged by different things" in say(f"compare sums and {other}").text, other
    scored(engine, "Elsewhere", 0.2, 0.4, data={"demo": "addition"})
    assert "different examples" in Conversation(engine)("compare sums and elsewhere").text
    best = say("which is my best model?")
    assert best.text.startswith("**Tutor**: right answers") and "of one kind" in best.text
    assert [row["model"] for row in best.facts][:2] == ["Tutor", "Sums"]


def test_a_model_elsewhere_can_be_talked_to_though_its_files_arent_here(engine: Engine, say: Conversation) -> None:
    known = {"base_model": "Qwen/Qwen3-8B", "endpoint": "tinker", "renderer": "qwen3"}
    engine.store.add_model("Afar", job_id=None, sampler_path="tinker://a/sampler_weights/b", weights_path="tinker://a/weights/b", **known)
    reply = say("tell me about afar")
    assert "gone" not in reply.text and kinds(reply) == ["chat", "model"] and reply.choices[0].label == "Train it further"
