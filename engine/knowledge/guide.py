"""The tables of TRAINING_GUIDE.md, written from the recipe's own descriptions and the metrics' knowledge.

`python -m engine.knowledge.guide` rewrites what stands between the guide's markers; a test sees to it that nothing in
between is out of date. Knows the guide's markers; nothing of training.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import yaml

from engine import knowledge
from engine.recipe import RewardPart, fields

GUIDE = Path(__file__).resolve().parents[2] / "TRAINING_GUIDE.md"


def field_table() -> str:
    """Every recipe field: what it is, its default, its usual range."""
    lines = ["| field | what it is | default | usual range |", "|---|---|---|---|"]
    for field in fields():
        unit = f" {field['unit']}" if field["unit"] else ""
        healthy = f"{field['healthy'][0]:g} to {field['healthy'][1]:g}{unit}" if field["healthy"] else ""
        lines.append(f"| `{field['name']}` | {field['help']} | {_shown(field['default'])} | {healthy} |")
    return "\n".join(lines)


def metric_sections() -> str:
    """Every metric: meaning, what is healthy, what to do when it isn't."""
    return "\n\n".join(f"### {metric_title(name)}\n{metric_text(name)}".rstrip() for name in knowledge.metrics())


def metric_title(name: str) -> str:
    """Training loss (nats/token)."""
    metric = knowledge.metric(name)
    return metric["title"] + (f" ({metric['unit']})" if metric["unit"] else "")


def metric_text(name: str) -> str:
    """What the guide says of one metric, in Markdown. Raises NotFound."""
    metric = knowledge.metric(name)
    lines = [f"`{name}`. {metric['meaning']}", "", f"Healthy: {metric['healthy']}", ""]
    return "\n".join([*lines, *(f"- {flag['sign']} {flag['action']}" for flag in metric["red_flags"])])


def text() -> str:
    """The whole guide, without the marks that its tables stand between."""
    return re.sub(r"<!--.*?-->\n?", "", GUIDE.read_text(encoding="utf-8"))


def method_sections() -> str:
    """Every method: when to use it, when not, what it needs."""
    sections = []
    for name, method in knowledge.methods().items():
        lines = [f"### {method['title']}: {method['term']}", f"`method: {name}`. {method['meaning']}", "", "Use it when:"]
        lines += [f"- {reason}" for reason in method["use_when"]]
        lines += ["", "Rather not when:", *[f"- {reason}" for reason in method["not_when"]]]
        row = json.dumps(knowledge.shapes()[knowledge.shape(name)]["row"], ensure_ascii=False)
        lines += ["", f"It needs: {method['needs']} A row, for example:", "", "```json", row, "```", "", "Look at:"]
        lines += [f"- {metric_title(one)} (`{one}`). {knowledge.metric(one)['healthy']}" for one in method["watch"]]
        lines += ["", "What goes wrong:", *(f"- {one.strip()}" for one in method["goes_wrong"])]
        lines += ["", f"Flow: {' → '.join(method['flow'])}", "", f"Source: {method['source']}"]
        sections.append("\n".join(lines))
    return "\n\n".join(sections)


def reward_sections() -> str:
    """Every kind of reward: when to use it, what it reads, what to watch for."""
    known = {field["name"]: field["help"] for field in fields(RewardPart)}
    sections = []
    for name, kind in knowledge.rewards().items():
        lines = [f"### {kind['title']}", f"`kind: {name}`. {kind['meaning']}", "", f"Use it when: {kind['use_when']}", ""]
        lines += [f"- `{field}`: {known[field]}" for field in kind["reads"]]
        sections.append("\n".join([*lines, "", "What to watch for:", *(f"- {pitfall}" for pitfall in kind["pitfalls"])]))
    return "\n\n".join(sections)


def demo_table() -> str:
    """Every demo, and the preference pairs: what is learned, what to expect."""
    lines = ["| demo | what is learned | what to expect |", "|---|---|---|"]
    for name, demo in knowledge.demos().items():
        lines.append(f"| `{name}` | {demo['task']} {demo['learns'].strip()} | {demo['expect'].strip()} |")
    for entry in knowledge.pairs().values():
        files = " and ".join(f"`{file}`" for file in entry["files"].values())
        lines += ["", f"{entry['title']} ({files}). {entry['format']} {entry['learns'].strip()} {entry['expect'].strip()}"]
    return "\n".join(lines)


def shown_table() -> str:
    """Every demo of a method: what is done, what came of it, and its stages as a recipe has them."""
    lines = ["| demo | what is learned | what came of it |", "|---|---|---|"]
    for name, shown in knowledge.method_demos().items():
        lines.append(f"| `{name}` | {shown['task']} {shown['learns'].strip()} | {shown['expect'].strip()} |")
    for name, shown in knowledge.method_demos().items():
        recipe = yaml.safe_dump(shown["recipe"], sort_keys=False, allow_unicode=True, width=120).strip()
        lines += ["", f"`--demo {name}` is this recipe:", "", "```yaml", recipe, "```"]
    return "\n".join(lines)


def transform_table() -> str:
    """Every change that can be made to examples."""
    lines = ["| `kind` | what it does | it reads |", "|---|---|---|"]
    for name, known in knowledge.transforms().items():
        reads = ", ".join(f"`{field}`" for field in ["part", *known["fields"]])
        lines.append(f"| `{name}` | {known['meaning']} | {reads} |")
    return "\n".join(lines)


def profile_table() -> str:
    """The profiles that ship."""
    lines = ["| `profile` | what it does | when |", "|---|---|---|"]
    lines += [f"| `{name}` | {known['meaning']} | {known['use_when']} |" for name, known in knowledge.profiles().items()]
    return "\n".join(lines)


def written(guide: str) -> str:
    """The guide's text with fresh tables between `<!-- NAME -->` and `<!-- /NAME -->`."""
    tables = {
        "fields": field_table(),
        "metrics": metric_sections(),
        "methods": method_sections(),
        "rewards": reward_sections(),
        "demos": demo_table(),
        "shown": shown_table(),
    }
    tables |= {"transforms": transform_table(), "profiles": profile_table()}
    for name, content in tables.items():
        pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        guide = pattern.sub(lambda match, content=content: match[1] + content + "\n" + match[2], guide)
    return guide


def _shown(value: Any) -> str:
    if value in ("", None, {}, ()):
        return "empty"
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    GUIDE.write_text(written(GUIDE.read_text(encoding="utf-8")), encoding="utf-8")
    sys.exit(0)
