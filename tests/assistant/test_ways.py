"""Ways of training beside plain examples, as newcomers speak of them: what is understood, asked for, offered and proposed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from engine import Engine, Recipe, knowledge
from engine.assistant import ways
from engine.assistant.meaning import Names, read
from engine.recipe import METHODS
from engine.recipe.chain import written
from tests.assistant.conftest import Conversation, kinds
from tests.assistant.test_newcomers import tuned
from tests.fakes.judge_server import JudgeServer
from tests.test_planning import rows
from tests.test_ratings import chat

NAMES = Names(
    {"support chats": "a" * 12, "verdicts of june": "d" * 12},
    {"tutor": "b" * 12, "dpo run": "c" * 12},
    ("nano",),
    {"tutor": "e" * 12, "nano v2": "f" * 12},
)
SAID = {
    "dpo": """train with DPO|I want to do DPO|learn from preferences|improve from preferences|use preference pairs
        I have pairs of good and bad answers
        I have 300 pairs of a better and a worse answer|people chose the better of two answers|it should prefer polite answers
        my data has chosen and rejected columns, train on that|can you learn which answer is better?
        we did A/B tests of two answers, learn from them
        how do I train on preferences?|teach it from comparisons|use simpo|make it prefer shorter answers
        preference tuning please, I have pairs""",
    "kto": """learn from thumbs up and down|I have thumbs up and down from users|train on thumbs|use kto
        users rated answers good or bad, learn from that
        we have likes and dislikes for each reply|learn from upvotes and downvotes|I have answers marked as good or bad
        can it learn from my ratings of answers?|I gave thumbs in the playground, use them|improve it with star ratings""",
    "rl": """I want to use reinforcement learning|optimise a score|train with RL|use GRPO|let it learn by trial and error
        give it a reward for right answers
        maximise a score that my function gives|write code that passes unit tests, learn from that|reward it when the tests pass
        I want to train with a reward function|can I use an LLM judge to train?|learn with ppo|it should practise by itself
        optimize a metric|teach it to add numbers with rl|reinforce correct answers|score by the right number|reward valid json
        use my reward model for RL|train against the reward model""",
    "rlhf": """I want RLHF|train with rlhf|use reinforcement learning from human feedback|improve by a model of your preferences
        do it like openai with human feedback
        train a reward model and then optimise against it|learn from human feedback""",
    "reward_model": """train a reward model|I need a model that can score answers|make a model that rates answers
        teach a model to score answers
        build a grader|create a preference model""",
    "distill": """distill a larger model|imitate a better model|I want it to work without my long prompt
        do without a long prompt, or imitate a better model
        bake my system prompt into the model|get rid of the system prompt|make a small model copy a big model|use Qwen3-8B as a teacher
        learn from gpt-4|it should answer like chatgpt|distil tutor into nano|knowledge distillation please, I want it
        learn from a bigger model
        can I train it to mimic claude?|I want to save the long system prompt""",
    "own_loss": """use my own loss|train with a custom loss|I want my own loss function|minimise a loss of your own
        can I use a custom loss function?
        try my own objective""",
    "sft": "train with sft|learn from examples|use supervised fine-tuning",
}  # fmt: skip
WISHES = [(said.strip(), method) for method, many in SAID.items() for said in many.replace("\n", "|").split("|") if said.strip()]
ABOUT = {
    "explain": """what is DPO?|what is a reward model|explain rlhf|what does KTO mean?|what is reward hacking|what is a judge?
        what does entropy mean?
        what is the reward margin?|what are dead groups|what is clip share?|explain distillation|what is group size|what does beta do?
        what is calibration error|what is a rollout?|how much data do I need for DPO?|when should I use kto?|what is agreement
        what is the kl penalty?""",
    "between": "DPO or KTO?|RLHF vs DPO|should I use RL or SFT?|what is the difference between dpo and rlhf|reward model or judge?",
    "status": "how is the dpo run|how did dpo run go",
    "trouble": """the entropy is too low|my reward is stuck|kl too high?|the reward margin explodes|my dead groups are too high
        the preference loss goes up""",
    "failure": "why did my rl run fail?|my run with rewards crashed",
    "limit": "train with ORPO|I want qlora|do continued pretraining|train with DPO on runpod|fine-tune gpt-4|learn from pictures with rl",
    "correcting": "I want to give feedback on its answers|thumbs down on that answer",
    "goal": "I have pairs of questions and answers|I have 200 question answer pairs",
    "further": "train tutor further with dpo|improve tutor with rl|improve tutor from preferences|go on from nano v2 with thumbs",
}  # fmt: skip
TALK = [(said.strip(), intent) for intent, many in ABOUT.items() for said in many.replace("\n", "|").split("|") if said.strip()]


@pytest.mark.parametrize(("said", "method"), WISHES)
def test_a_way_of_training_is_understood(said: str, method: str) -> None:
    meaning = read(said, NAMES)
    assert meaning.intent in ("goal", "use_data") and meaning.method == method, meaning.intent


@pytest.mark.parametrize(("said", "intent"), TALK)
def test_what_only_speaks_of_one(said: str, intent: str) -> None:
    assert read(said, NAMES).intent == intent


def test_all_ways_are_spoken_of_in_many_words() -> None:
    assert {method for _, method in WISHES} == set(METHODS) and len(WISHES) + len(TALK) > 120
    for name, goal in knowledge.goals().items():
        if "demo" not in goal and goal["method"] != "sft":
            meaning = read(goal["title"])
            assert (meaning.intent, meaning.method, meaning.goal) == ("goal", goal["method"], name), "its own title is always understood"


def keep(engine: Engine, name: str, *many: dict[str, Any]) -> str:
    return engine.datasets.add(f"{name}.jsonl", "".join(json.dumps(row) + "\n" for row in many).encode()).id


def taste(engine: Engine) -> str:
    return keep(engine, "taste", *({"prompt": f"Say {n}", "chosen": f"{n}!", "rejected": f"{n}"} for n in range(80)))


@pytest.mark.slow
def test_every_wish_is_answered_with_something_that_is_understood(engine: Engine) -> None:
    tuned(engine, "Tutor"), tuned(engine, "nano v2"), taste(engine)
    engine.datasets.add("support chats.jsonl", rows(80))
    through = Conversation(engine)
    for said, _ in [*WISHES, *TALK]:
        for reply in (engine.assistant.answer(said)[0], through(said)):
            assert reply.intent not in ("unknown", "unknown_term") and reply.text and (reply.choices or reply.actions), said
            if reply.proposal:
                Recipe.make(reply.proposal.recipe)
        for choice in reply.choices:
            assert engine.assistant.answer(choice.say)[0].intent not in ("unknown", "unknown_term", "empty"), (said, choice)
    assert len(engine.jobs()) == 2, "nothing was started"


def stages(reply: Any) -> list[Recipe]:
    return written(Recipe.make(reply.proposal.recipe))


@pytest.mark.parametrize("method", [method for method in METHODS if method != "sft"])
def test_every_way_can_be_tried_without_data(engine: Engine, say: Conversation, method: str) -> None:
    goal = ways.goal_of(method)
    asked = say(knowledge.goals()[goal]["title"])
    assert asked.proposal is None and knowledge.method(method)["term"] in asked.text and "datasets" in kinds(asked)
    advised = say("I have no data")
    assert " ".join(knowledge.shapes()[knowledge.shape(method)]["collect"].split()) in advised.text
    shown = say(asked.choices[1].say)
    made = stages(shown)
    assert made[-1].method == method and made[-1].data.demo == ("courtesy" if method == "rlhf" else "piglatin") and shown.proposal.sound
    assert len(made) == (2 if method in ("dpo", "kto", "rl", "rlhf", "distill") else 1), "nano has nothing to improve by itself"
    if shown_as := knowledge.goals()[goal].get("try"):
        measured = Recipe.make(knowledge.method_demos()[shown_as]["recipe"])
        assert Recipe.make(shown.proposal.recipe) == measured and knowledge.method_demos()[shown_as]["title"] in shown.text
    fewer = stages(say("fewer steps"))
    assert fewer[-1].training.steps == made[-1].training.steps // 2 and fewer[0].training.steps <= made[0].training.steps
    # The wizard, by hand, comes to the very same.
    talk = engine.assistant.say(asked.choices[1].say)
    draft = engine.assistant.to_wizard(talk.id, 1)
    assert draft.goal == goal and engine.planner.suggest(draft.changes).recipe == engine.assistant.recipe(talk.id, 1)


def test_pairs_of_ones_own(engine: Engine, say: Conversation) -> None:
    engine.datasets.add("support chats.jsonl", rows(80))
    lacking = say("I have 300 pairs, train with DPO")
    assert "**support chats** holds prompts with answers" in lacking.text and "300 are a good start" in lacking.text
    kept = taste(engine)
    asked = say("train with DPO")
    assert next(choice.say for choice in asked.choices) == "Use the data set taste" and "support chats" not in repr(asked.choices)
    say("use taste")
    made = stages(say("use nano"))
    assert [(one.method, one.data.dataset) for one in made] == [("sft", kept), ("dpo", kept)]
    assert (made[0].training.learning_rate, made[1].training.learning_rate) == (0.005, 0.001)
    alone = say("without examples first")
    assert [one.method for one in stages(alone)] == ["dpo"] and "next to nothing" in alone.proposal.warnings[0].text
    assert [one.method for one in stages(say("examples first"))] == ["sft", "dpo"]
    other = say("learn from thumbs instead")
    assert [one.method for one in stages(other)] == ["sft", "kto"], "pairs are verdicts, too"
    refused = say("use support chats")
    assert refused.proposal is None and "this needs answers found good or bad" in refused.text
    plain = say(next(choice.say for choice in refused.choices if choice.label.startswith("Answer questions")))
    assert "dataset" in kinds(refused) and plain.intent == "use_data"
    assert [one.method for one in stages(say("use nano"))] == ["sft"]


def test_data_alone_says_what_it_is_for(engine: Engine) -> None:
    taste(engine)
    keep(engine, "verdicts", *({"prompt": f"Say {n}", "completion": f"{n}!", "label": n % 2 == 0} for n in range(80)))
    for name, method, goal in (("taste", "dpo", "prefer"), ("verdicts", "kto", "thumbs")):
        say = Conversation(engine)
        say(f"use {name}")
        made = say("use nano")
        assert (stages(made)[-1].method, made.proposal.goal) == (method, goal)


def test_a_score_is_chosen_by_what_the_rows_expect(engine: Engine, say: Conversation) -> None:
    keep(engine, "sums", *({"prompt": f"{n} + 1", "answer": str(n + 1)} for n in range(80)))
    keep(engine, "questions", *({"prompt": f"What about {n}?"} for n in range(80)))
    say("I want to use reinforcement learning"), say("use sums")
    made = say("use nano")
    assert "the right number" in made.text and stages(made)[-1].reward.parts[0].kind == "numeric"
    exact = stages(say("score by the same text"))[-1].reward.parts[0]
    short = stages(say("score by length up to 20 words"))[-1].reward.parts[0]
    assert (exact.kind, short.kind, short.longest, short.unit) == ("exact", "length", 20, "words")
    judged = say("score by a judge with a rubric")
    assert "A judge needs a rubric" in judged.text and "wizard" in kinds(judged)
    asked = say("use questions")
    assert asked.proposal, "the length needs no right answer"
    fresh = Conversation(engine)
    fresh("rl with questions, use nano")
    asked = fresh("use questions")
    assert asked.proposal is None and "don't say which is right" in asked.text
    assert stages(fresh(asked.choices[1].say))[0].reward.parts[0].form == {"type": "object"}


def test_a_teacher_is_asked_for(engine: Engine, say: Conversation) -> None:
    tutor = tuned(engine, "Tutor")
    keep(engine, "questions", *({"prompt": f"What about {n}?"} for n in range(80)))
    say("imitate a better model")
    asked = say("use questions")
    assert asked.proposal is None and "Who teaches?" in asked.text and "settings" in kinds(asked)
    say(asked.choices[0].say)
    made = stages(say("use nano"))[0].distill
    assert (made.kind, made.teacher) == ("answers", tutor.name)
    prompted = stages(say("the prompt is: You are a pirate. Answer in rhymes."))[0].distill
    assert (prompted.kind, prompted.teacher_prompt) == ("prompt", "You are a pirate. Answer in rhymes.")
    other = Conversation(engine)
    other("get rid of my long prompt"), other("use questions"), other("You are a pirate. Answer in rhymes.")
    assert stages(other("use nano"))[0].distill.teacher_prompt == "You are a pirate. Answer in rhymes."
    assert ways.teacher("imitate Qwen/Qwen3-1.7B") == {"kind": "answers", "teacher": "Qwen/Qwen3-1.7B"}
    assert ways.teacher("learn from http://host/a/b") == {}
    with JudgeServer(lambda body, number: "7", models=("wise",)) as server:
        engine.judges.add("Lab", server.url)
        engine.judges.look(server.url)
        elsewhere = Conversation(engine)
        elsewhere("imitate a better model")
        asked = elsewhere("use questions")
        elsewhere(next(choice.say for choice in asked.choices if choice.label == "wise at Lab teaches"))
        found = stages(elsewhere("use nano"))[0].distill
        assert (found.kind, found.teacher, found.teacher_url) == ("answers", "wise", server.url)


def test_a_model_is_improved_in_another_way(engine: Engine, say: Conversation) -> None:
    tutor = tuned(engine, "Tutor")
    made = stages(say("train tutor further with DPO"))
    assert [(one.method, one.start.checkpoint, one.data.demo) for one in made] == [("dpo", tutor.id, "piglatin")]
    kept = taste(engine)
    other = Conversation(engine)
    other("train with DPO")
    asked = other("use taste")
    assert asked.choices[0].label == "Go on from Tutor" and "best start" in asked.text
    made = stages(other(asked.choices[0].say))
    assert [(one.method, one.start.checkpoint, one.data.dataset) for one in made] == [("dpo", tutor.id, kept)]


def test_thumbs_that_were_given_are_counted(engine: Engine, say: Conversation) -> None:
    turn, _ = chat(engine, ("Hi", "Hello!"), ("Sure?", "No."))
    engine.ratings.rate(turn.conversation_id, turn.id, 0, True)
    assert "1 thumbs up and 0 down" in say("learn from thumbs up and down").text


def test_figures_and_words_of_all_ways_are_explained(say: Conversation) -> None:
    for name in knowledge.metrics():
        title = knowledge.metric(name)["title"]
        reply = say(f"what is {title}?")
        assert reply.intent in ("explain", "figure", "machine", "estimate"), (name, reply.intent)
        if reply.intent == "explain":
            assert knowledge.metric(name)["meaning"] in reply.text, name
    needs = say("how much data do I need for DPO?").text
    assert knowledge.method("dpo")["needs"] in needs and '"chosen"' in needs
    assert "Improve from preferences" in [choice.say for choice in say("what is DPO?").choices]
    assert "simpo" in say("train with ORPO").text


def test_the_function_that_ships_is_one(engine: Engine) -> None:
    """Focal loss with gamma 2: of the log-probability log 1/2 it is 1/4 log 2, and what is no answer's token counts nothing."""
    code = knowledge.method("own_loss")["example"]
    space: dict[str, Any] = {"exp": __import__("math").exp}
    exec(code, space)
    assert space["loss"]([-0.6931471805599453, -5.0], [1, 0], {}) == pytest.approx(0.25 * 0.6931471805599453)


@pytest.mark.slow
@pytest.mark.timeout(200)
@pytest.mark.parametrize(
    ("said", "figure"), [("Minimise a loss of your own", "own_loss"), ("Learn from thumbs up and down", "preference_loss")]
)
def test_what_is_proposed_trains(said: str, figure: str) -> None:
    with Engine() as engine:
        talk = engine.assistant.say(f"Show me the demo: {said}")
        proposed = engine.assistant.recipe(talk.id, 1)
        then = [{**stage, "training": {**stage["training"], "steps": 20}} for stage in proposed.then]
        short = {"training": {"steps": 12}, "evaluation": {"proof": False, "samples_every": 0, "eval_every": 0}, "then": then}
        job = engine.run_job(proposed.merged(short))
        values = [value for _, value in engine.curve(job.id, figure)]
        assert engine.job(job.id).state == "done" and sum(values[-3:]) < sum(values[:3])
