"""What a recipe learns from and is proven on: demo or file, split the same way every time.

A held-out example's prompt is never in the training part. Knows nothing of tokens.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from engine import knowledge
from engine.data import demos, shelf
from engine.data.examples import DataSet, Example, Problem, Report, Shape, with_system
from engine.data.files import unit
from engine.data.formats import KEPT, read_examples
from engine.data.transforms import transformed
from engine.errors import DataError

if TYPE_CHECKING:
    from engine.recipe import DataSpec, Mixed, Recipe

_SPLIT_FROM = 10


def load_data(recipe: Recipe, skills: bool | None = None, shape: Shape | None = None) -> DataSet:
    """The data set of a recipe, its system prompt put before each conversation that has none of its own.

    `skills` says whether to bring the general-skills prompts; by default they come where they mean something, with nano. `shape` is
    that of the rows that the method learns from, unless it is said; the data set has the one that its rows have. Raises DataError.
    """
    spec, shape = recipe.data, shape or knowledge.shape(recipe.method)
    if not (spec.demo or spec.path or spec.dataset):
        raise DataError("the recipe names no data", "Give a demo, a file or a data set of the library.", where="data")
    file, format, mapping = source(spec, shape)
    name = spec.demo or (file.stem if spec.path else recipe.name or spec.dataset)
    try:
        report = _read(file, format, mapping, shape, spec)
    except DataError as error:
        # Where a data set of the library lies is nobody's concern.
        where = error.where.replace(str(file), name) if spec.dataset else error.where
        raise DataError(error.message, error.next_step, where=where) from error
    examples, problems, notes = report.examples, list(report.problems), list(report.notes)
    held_out_path = str(demos.find(spec.demo, shape).held_out) if spec.demo else spec.held_out_path
    shape = report.shape
    if held_out_path:
        # What is kept apart of a data set of the library is a file as it came.
        own = ("auto", {}) if spec.dataset else (format, mapping)
        held_out_report = _read(held_out_path, *own, shape, spec)
        problems += held_out_report.problems
        held_out, repeated = _apart(held_out_report.examples, examples)
        if not held_out:
            raise DataError(
                "every held-out prompt is in the training data too, so nothing could be proven",
                "Give other held-out examples, or none and let some be split off.",
                where=held_out_path,
            )
        problems += [_repeated(example) for example in repeated]
        held_out = _some(held_out, spec.held_out_max, recipe.seed)
        train = examples
    else:
        train, held_out = _split(examples, spec.held_out_fraction, spec.held_out_max, recipe.seed)
    for number, mixed in enumerate(spec.mix, 1):
        found = _mixed_in(mixed, number, shape, held_out, spec)
        train, problems, notes = train + found.examples, problems + found.problems, notes + found.notes
    if skills is None:
        skills = recipe.base_model == "nano"
    # The file goes through the skills in turn, so that its first so many rows hold each about equally often.
    skill_examples = read_examples(demos.SKILLS_FILE, "messages").examples[: recipe.evaluation.skills_max] if skills else []
    for example in [*train, *held_out, *skill_examples]:
        example.messages = with_system(example.messages, recipe.system_prompt)
    weights = [mixed.weight for mixed in spec.mix]
    replayed = sum(example.kind == "replay" for example in train)
    return DataSet(name, train, held_out, problems, replayed, skill_examples, shape, notes, (1 - sum(weights), *weights))


def unseen(data: DataSet, learned: DataSet) -> DataSet:
    """The same without the held-out rows whose prompts are learned in the other, which comes before it in the same run."""
    held_out, repeated = _apart(data.held_out, learned.train)
    if not repeated:
        return data
    note = f"{len(repeated):,} held-out rows were left out of the proof: an earlier stage learns their prompts"
    return replace(data, held_out=held_out, notes=[*data.notes, note])


def source(spec: DataSpec | Mixed, shape: Shape) -> tuple[Path, str, dict[str, str]]:
    """Where its rows are, and how they are to be read: (file, format, mapping). Raises DataError."""
    if spec.demo:
        return demos.find(spec.demo, shape).train, "auto", {}
    if spec.dataset:
        # What couldn't be used was left out, with the person's knowledge, when the file was added.
        return shelf.chats_file(spec.dataset), KEPT, {}
    return Path(spec.path).expanduser(), spec.format, spec.mapping


def stamp(spec: DataSpec) -> tuple[tuple[int, int], ...]:
    """Changes with the files that the data is read from."""
    paths_given = [spec.held_out_path, *(part.path for part in (spec, *spec.mix))]
    files = [Path(path).expanduser() for path in paths_given if path]
    files += [shelf.chats_file(part.dataset) for part in (spec, *spec.mix) if part.dataset]
    return tuple((stat.st_mtime_ns, stat.st_size) for stat in (file.stat() for file in files if file.is_file()))


def _read(file: Path | str, format: str, mapping: dict[str, str], shape: Shape, spec: DataSpec) -> Report:
    """A file's rows after what the recipe does to every example."""
    report = read_examples(file, format, mapping, shape)
    return transformed(report, spec.transforms, unit(Path(file).expanduser())) if spec.transforms else report


def _mixed_in(mixed: Mixed, number: int, shape: Shape, held_out: list[Example], spec: DataSpec) -> Report:
    """A further source's rows, less those whose prompt is in the proof of the main one."""
    report = _read(*source(mixed, shape), shape, spec)
    report.examples = [replace(example, source=number) for example in _unproven(report.examples, held_out)]
    if not report.examples:
        raise DataError("every prompt that is mixed in is kept for the proof", "Mix in other data.", where=f"data.mix {number}")
    return report


def _split(examples: list[Example], fraction: float, most: int, seed: int) -> tuple[list[Example], list[Example]]:
    """(train, held out): the same prompts go to the same side, replay rows are never held out."""
    tasks = [example for example in examples if example.kind == "task"]
    wanted = min(round(len(tasks) * fraction), most)
    if fraction and len(tasks) >= _SPLIT_FROM:
        wanted = max(wanted, 1)
    groups: dict[tuple, list[Example]] = {}
    for example in tasks:
        groups.setdefault(_key(example), []).append(example)
    chosen: set[tuple] = set()
    count = 0
    for key in sorted(groups, key=lambda key: _lot(key, seed)):
        # Taking the last group would leave nothing to learn from.
        if count + len(groups[key]) <= wanted and len(chosen) < len(groups) - 1:
            chosen.add(key)
            count += len(groups[key])
    train = [example for example in examples if example.kind == "replay" or _key(example) not in chosen]
    held_out = [example for example in tasks if _key(example) in chosen]
    # A prompt can also stand in the middle of a longer conversation; such rows go back, which may pull others along.
    while True:
        held_out, repeated = _apart(held_out, train)
        if not repeated:
            return train, held_out
        train += repeated


def _apart(held_out: list[Example], train: list[Example]) -> tuple[list[Example], list[Example]]:
    """(held-out examples whose prompt isn't trained on, the others)."""
    trained = {prompt for example in train for prompt in example.prompts()}
    return [e for e in held_out if _key(e) not in trained], [e for e in held_out if _key(e) in trained]


def _unproven(examples: list[Example], held_out: list[Example]) -> list[Example]:
    """Those that teach no prompt of the proof, in none of their turns."""
    proven = {_key(example) for example in held_out}
    return [example for example in examples if proven.isdisjoint(example.prompts())]


def _repeated(example: Example) -> Problem:
    message = "the held-out prompt is in the training data too and was left out of the proof"
    return Problem(example.row, "", message, "Take it out of either.")


def _some(examples: list[Example], most: int, seed: int) -> list[Example]:
    if len(examples) <= most:
        return examples
    chosen = sorted(examples, key=lambda example: _lot((example.row, _key(example)), seed))[:most]
    return sorted(chosen, key=lambda example: example.row)


def _key(example: Example) -> tuple:
    return tuple((message["role"], message["content"]) for message in example.prompt)


def _lot(key: tuple, seed: int) -> bytes:
    """A draw that depends on the content and the seed alone, not on order or on the Python version."""
    return hashlib.sha256(f"{seed}:{key!r}".encode()).digest()
