"""Commands about runs: train, jobs, show, watch, pause, stop, resume, delete."""

from __future__ import annotations

import json
import signal
import threading
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from rich.console import Console
from rich.table import Table

from engine import knowledge
from engine.amounts import duration, size
from engine.cli.screen import Watch, console, main_figures, plain, print_json, result_table, short_proof
from engine.engine import Engine
from engine.errors import DataError, EngineError, RecipeError
from engine.evaluation import outcome
from engine.jobs import states
from engine.recipe import FORMATS, METHODS, Recipe
from engine.store import Job

METHOD_DEMOS = tuple(knowledge.method_demos())
JsonFlag = Annotated[bool, typer.Option("--json", help="Last line on stdout: one JSON object.")]
JobId = Annotated[str, typer.Argument(help="The job's id, or the beginning of it.")]


def train(
    data: Annotated[Path | None, typer.Argument(help="Your data (JSONL, JSON, CSV, Parquet), or a recipe (.yaml, .json).")] = None,
    demo: Annotated[
        str,
        typer.Option(
            help=f"Train a demo that ships with Thinker: {', '.join(knowledge.demos())}; or of a method: {', '.join(METHOD_DEMOS)}."
        ),
    ] = "",
    dataset: Annotated[str, typer.Option(help="Train on a data set of your library, by its id.")] = "",
    recipe_file: Annotated[Path | None, typer.Option("--recipe", help="A recipe file (YAML or JSON).")] = None,
    method: Annotated[str, typer.Option(help=f"How it learns: {', '.join(METHODS)}. What each is: thinker explain METHOD.")] = "",
    model: Annotated[str, typer.Option(help="The model to start from: nano, a local folder, or a hub id.")] = "",
    start: Annotated[str, typer.Option(help="Go on from a tuned model (its name or id) or a run's checkpoint (JOB@STEP).")] = "",
    name: Annotated[str, typer.Option(help="What to call the result.")] = "",
    steps: Annotated[int | None, typer.Option(help="Exactly this many updates.")] = None,
    epochs: Annotated[float | None, typer.Option(help="How many times to go through the data.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="How many examples at once.")] = None,
    lr: Annotated[float | None, typer.Option(help="How big each update is (learning rate).")] = None,
    rank: Annotated[int | None, typer.Option(help="How much the adapter can hold (LoRA rank).")] = None,
    max_length: Annotated[int | None, typer.Option(help="Cut longer examples to this many tokens.")] = None,
    seed: Annotated[int | None, typer.Option(help="Same seed, same run.")] = None,
    held_out: Annotated[Path | None, typer.Option(help="Examples for the proof, never trained on.")] = None,
    format: Annotated[str, typer.Option(help=f"How rows are laid out: {', '.join(FORMATS)}.")] = "",
    renderer: Annotated[str, typer.Option(help="How a chat becomes tokens: auto, chat_template, llama3, qwen3, chatml, role_colon.")] = "",
    system: Annotated[str, typer.Option(help="A system prompt for every conversation without one.")] = "",
    stop: Annotated[list[str] | None, typer.Option(help="A string at which answers end. May be given more than once.")] = None,
    endpoint: Annotated[str, typer.Option("--at", help="Where it trains: local, tinker, or a server that you named.")] = "",
    max_dollars: Annotated[float | None, typer.Option(help="Save and stop before it costs more.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Any recipe field: training.weight_decay=0.01. May be given more than once.")
    ] = None,
    background: Annotated[bool, typer.Option("--background", help="Return at once; follow it with `thinker watch`.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the recipe and do nothing.")] = False,
    as_json: JsonFlag = False,
) -> int:
    """Fine-tune a model, see it learn, and get proof that it did."""
    changes = changes_of(
        {
            "name": name,
            "method": method,
            "base_model": model,
            "start.checkpoint": start,
            "training.steps": steps,
            "training.epochs": epochs,
            "training.batch_size": batch_size,
            "training.learning_rate": lr,
            "training.max_length": max_length,
            "lora.rank": rank,
            "seed": seed,
            "data.held_out_path": str(held_out.expanduser().resolve()) if held_out else "",
            "data.format": format,
            "renderer": renderer,
            "system_prompt": system,
            "stop": stop or None,
            "endpoint": endpoint,
            "budget.max_dollars": max_dollars,
        },
        set_ or [],
    )
    out = console(as_json)
    with Engine() as engine:
        recipe = recipe_of(engine, data, demo, dataset, recipe_file, changes)
        if dry_run:
            out.print(recipe.to_yaml(), markup=False)
            if as_json:
                print_json({"recipe": recipe.model_dump(mode="json")})
            return 0
        if background:
            job = engine.launch(recipe)
            out.print(f"queued as {job.id}; follow it with: python thinker.py watch {job.id}")
            if as_json:
                print_json({"job_id": job.id, "state": job.state})
            return 0
        return _train_here(engine, recipe, as_json)


def _train_here(engine: Engine, recipe: Recipe, as_json: bool) -> int:
    out = console(as_json)
    over, started, pausing = threading.Event(), threading.Event(), threading.Event()
    watching: list[threading.Thread] = []
    job_ids: list[str] = []

    def on_start(job: Job) -> None:
        job_ids.append(job.id)
        out.print(f"[bold]{plain(job.name)}[/bold] ({job.id})")
        watcher = threading.Thread(target=Watch(engine, job.id, out).follow, args=(over,), daemon=True)
        watching.append(watcher)
        watcher.start()
        started.set()

    def ask_to_pause() -> None:
        try:
            engine.pause(job_ids[0])
        except EngineError as error:
            out.print(str(error), markup=False)
        else:
            out.print("pausing after this step (Ctrl-C again to give up what isn't saved)")

    def on_interrupt(number: int, frame: Any) -> None:
        if not started.is_set() or pausing.is_set():
            raise KeyboardInterrupt
        pausing.set()
        # In a thread: the interrupted code may be in the middle of a write of its own.
        threading.Thread(target=ask_to_pause, daemon=True).start()

    before = signal.signal(signal.SIGINT, on_interrupt)
    try:
        job = engine.run_job(recipe, on_start)
    except KeyboardInterrupt:
        if job_ids:
            out.print(f"\ngiven up; go on from the last checkpoint with: python thinker.py resume {job_ids[0]}")
        raise
    finally:
        signal.signal(signal.SIGINT, before)
        over.set()
        for watcher in watching:
            watcher.join(timeout=2)
    if job.state != states.DONE:
        out.print(f"\n{states.LIGHTS[job.state].label} at step {job.step}")
        _reason(engine, job, out)
        out.print(f"go on with: python thinker.py resume {job.id}")
        if as_json:
            print_json({"job_id": job.id, "state": job.state, "step": job.step})
        return 0
    result = engine.result(job.id)
    out.print(f"\n{result.steps} steps, {result.tokens:,} tokens in {duration(result.seconds)}")
    if result.held_out.get("after"):
        out.print(result_table(result))
        out.print(f"answers that became right: {result.better}; that became wrong: {result.worse}")
    if won := outcome.wins_sentence(result.to_dict()):
        out.print(won, markup=False)
    for note in result.notes:
        out.print(f"note: {note}", style="yellow", markup=False)
    out.print("\ntalk to it: python thinker.py chat")
    if as_json:
        print_json(result.to_dict())
    return 0


def list_jobs(
    search: Annotated[str, typer.Option(help="Only names and models with this text.")] = "",
    limit: Annotated[int, typer.Option(help="At most so many.")] = 30,
    as_json: JsonFlag = False,
) -> None:
    """All runs, newest first."""
    out = console(as_json)
    with Engine() as engine:
        engine.revive()
        jobs = engine.jobs(search=search or None, limit=limit)
        table = Table(box=None, pad_edge=False)
        for title in ("job", "name", "state", "step", "method", "model", "held-out"):
            table.add_column(title)
        for job in jobs:
            steps = f"{job.step}/{job.total_steps}" if job.total_steps else "-"
            label = states.LIGHTS[job.state].label
            table.add_row(job.id, plain(job.name), label, steps, methods_of(job), plain(job.base_model), short_proof(job.result))
        out.print(table if jobs else "no runs yet: python thinker.py train --demo piglatin")
        if as_json:
            print_json({"jobs": [job.to_dict() for job in jobs]})


def show(job_id: JobId, as_json: JsonFlag = False) -> None:
    """One run: its state, proof, checkpoints and last log lines."""
    out = console(as_json)
    with Engine() as engine:
        job = engine.job(job_id)
        out.print(f"[bold]{plain(job.name)}[/bold] ({job.id})  {states.LIGHTS[job.state].label}  {job.stage}".rstrip())
        trained = f"step {job.step} of {job.total_steps or '?'}, {job.tokens:,} tokens, {duration(job.training_seconds)}"
        stages = engine.runs.chapters(job)
        out.print(f"{plain(job.base_model)}, {' then '.join(one.method for one in stages) or job.method}, {trained}")
        for one in stages if len(stages) > 1 else ():
            where = f"after step {one.begins}" if one.number > 1 else "from the beginning"
            out.print(
                f"  stage {one.number}: {one.title} ({one.method}), {one.steps or '?'} steps {where}{' (to come)' if one.planned else ''}"
            )
        if said := main_figures(engine, job):
            out.print(", ".join(said))
        if spent := engine.spending.of(job).text:
            out.print(f"cost: {spent}", markup=False)
        _outcome(engine, job, out)
        checkpoints = engine.checkpoints(job.id)
        for checkpoint in checkpoints:
            use = "to go on from" if checkpoint.kind == "weights" else "to use"
            about = (", pinned" if checkpoint.pinned else "") + (f", {size(checkpoint.bytes)}" if checkpoint.bytes else "")
            out.print(f"step {checkpoint.step} {use}{about}: {checkpoint.path}", markup=False)
        out.print()
        for line in engine.log(job.id, 8):
            out.print(f"{line['level']}: {line['text']}", markup=False, style="dim")
        if as_json:
            print_json({**job.to_dict(), "metrics": engine.latest(job.id), "checkpoints": [c.to_dict() for c in checkpoints]})


def watch(job_id: JobId, as_json: JsonFlag = False) -> int:
    """Follow a run until it comes to rest."""
    out = console(as_json)
    with Engine() as engine:
        engine.revive()
        job = Watch(engine, engine.job(job_id).id, out).follow()
        out.print(f"{states.LIGHTS[job.state].label} at step {job.step}")
        _outcome(engine, job, out)
        if as_json:
            print_json(job.to_dict())
        return 1 if job.state == states.FAILED else 0


def pause(job_id: JobId, as_json: JsonFlag = False) -> None:
    """Pause a run; what it learned is saved."""
    _control("pause", job_id, as_json)


def stop(job_id: JobId, as_json: JsonFlag = False) -> None:
    """Stop a run and keep what it learned."""
    _control("stop", job_id, as_json)


def resume(
    job_id: JobId,
    max_dollars: Annotated[float | None, typer.Option(help="Another limit in dollars; 0 for none.")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Another limit in tokens; 0 for none.")] = None,
    max_minutes: Annotated[float | None, typer.Option(help="Another limit in minutes; 0 for none.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Go on from the last checkpoint, in the background; with a higher limit where the run stopped at its own."""
    given = {"max_dollars": max_dollars, "max_tokens": max_tokens, "max_minutes": max_minutes}
    _control("resume", job_id, as_json, {name: value or None for name, value in given.items() if value is not None})


def delete(job_id: JobId, as_json: JsonFlag = False) -> None:
    """Delete a run with its curves and log."""
    with Engine() as engine:
        job = engine.job(job_id)
        engine.delete(job.id)
        console(as_json).print(f"{job.name} ({job.id}) is deleted", markup=False)
        if as_json:
            print_json({"deleted": job.id})


def methods_of(job: Job) -> str:
    """sft, or sft > dpo for a run of two stages."""
    try:
        return " > ".join(stage.recipe.method for stage in job.recipe.stages())
    except EngineError:
        return job.method


def _control(action: str, job_id: str, as_json: bool, budget: dict[str, Any] | None = None) -> None:
    with Engine() as engine:
        job = engine.resume(job_id, budget) if action == "resume" else getattr(engine, action)(job_id)
        follow = f"; follow it with: python thinker.py watch {job.id}" if action == "resume" else ""
        console(as_json).print(f"{job.name} ({job.id}): {states.LIGHTS[job.state].label}{follow}", markup=False)
        if as_json:
            print_json(job.to_dict())


def _reason(engine: Engine, job: Job, out: Console) -> None:
    if question := engine.runs.question(job):
        out.print(f"it asks: {question}", style="yellow", markup=False)
    if job.error:
        out.print(str(EngineError.from_dict(job.error)), style="red", markup=False)


def _outcome(engine: Engine, job: Job, out: Console) -> None:
    _reason(engine, job, out)
    if job.result and engine.result(job.id).held_out.get("after"):
        out.print()
        out.print(result_table(engine.result(job.id)))
        if won := outcome.wins_sentence(job.result):
            out.print(won, markup=False)


def recipe_of(engine: Engine, data: Path | None, demo: str, dataset: str, recipe_file: Path | None, changes: dict[str, Any]) -> Recipe:
    if recipe_file is None and data is not None and _is_recipe(data):
        recipe_file, data = data, None
    given = [source for source in (demo, dataset, recipe_file, data) if source]
    if len(given) != 1:
        demos = ", ".join((*knowledge.demos(), *METHOD_DEMOS))
        raise RecipeError(
            "give one of: a data file, --demo NAME, or --recipe FILE" if not given else "give a data file, a demo or a recipe, not several",
            f"For example: thinker train my_data.jsonl, or thinker train --demo NAME (there are: {demos}).",
        )
    if recipe_file:
        return Recipe.load(recipe_file).merged(changes)
    if demo:
        return engine.demo_recipe(demo, changes)
    if dataset:
        return engine.dataset_recipe(dataset, changes)
    assert data is not None
    if not data.exists():
        raise DataError("there is no such file", "Check the path and its spelling.", where=str(data))
    return engine.file_recipe(data, changes)


def _is_recipe(file: Path) -> bool:
    """Whether a file is a recipe rather than data: YAML is, and JSON that is an object which names some."""
    if file.suffix != ".json":
        return file.suffix in (".yaml", ".yml")
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and bool({"data", "method", "base_model"} & set(found))


def changes_of(flags: dict[str, Any], assignments: list[str]) -> dict[str, Any]:
    """Flags that were given, and `--set a.b=value`, as one nested change. Raises RecipeError."""
    flat = {field: value for field, value in flags.items() if value not in (None, "")}
    for assignment in assignments:
        field, equals, text = assignment.partition("=")
        if not equals or not field.strip():
            raise RecipeError(f"--set {assignment!r} assigns nothing", "Write --set field=value, such as training.warmup=0.1.")
        try:
            flat[field.strip()] = yaml.safe_load(text)
        except yaml.YAMLError:
            raise RecipeError(f"--set {assignment!r}: the value can't be read", "Put quotes around text that holds signs.") from None
    nested: dict[str, Any] = {}
    for field, value in flat.items():
        *parts, leaf = field.split(".")
        place = nested
        for part in parts:
            place = place.setdefault(part, {})
            if not isinstance(place, dict):
                raise RecipeError(f"{part} is set as a whole and in part", "Set one or the other.", where=f"recipe {field}")
        place[leaf] = value
    return nested
