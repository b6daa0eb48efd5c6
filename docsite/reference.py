"""The reference pages' tables, from the code: settings, metrics, errors, commands.

Whatever has no description there is an error, so that nothing can be left undocumented.
"""

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer
from fastapi import FastAPI
from pydantic import SecretStr
from typer.cli import get_docs_for_click
from typer.main import get_command

from app.errors import CAUSES, RETRIED, STATUS_AND_TYPE, TITLES
from app.main import create_app
from app.settings import Settings
from docsite.markdown import table
from docsite.openapi import operations
from superres.cli import cli
from superres.importing.cli import cli as models_cli
from superres.messages import error_class
from superres.models.registry import DEFAULT_MODELS
from superres.schemas import PROBLEM_TYPE, Problem
from training.cli import cli as training_cli

COMMANDS: dict[str, typer.Typer] = {
    "superres": cli,
    "superres-models": models_cli,
    "superres-train": training_cli,
}
OUTSIDE_THE_TABLE = {"not-found": 404, "method-not-allowed": 405}
"""Problems that no class of errors stands for, with their status."""
PROCESS = "process_"
"""Beginning of the metrics that the client library reports of any process: one row."""


class Undocumented(Exception):
    """Something that users see has no description in the code."""


def settings() -> str:
    """A row for each environment variable."""
    read_by = _variables_of_commands()
    rows = []
    for name, field in Settings.model_fields.items():
        variable = f"SUPERRES_{name.upper()}"
        about = _described(field.description, f"the setting {variable}")
        if commands := read_by.get(variable):
            about += f" Also read by `superres {'`, `superres '.join(commands)}`."
        rows.append([f"`{variable}`", _default(field.default), about])
    return table(["variable", "default", "what"], rows)


def errors() -> str:
    """A row for each problem type."""
    statuses = {slug: status for status, slug in STATUS_AND_TYPE.values()} | OUTSIDE_THE_TABLE
    retried = {STATUS_AND_TYPE[kind][1] for kind in RETRIED}
    rows = []
    for slug in sorted(TITLES, key=lambda slug: statuses[slug]):
        status, cause = statuses[slug], _described(CAUSES.get(slug), f"the problem {slug}")
        when = f"**{TITLES[slug]}.** {cause}" + " Has `Retry-After`." * (slug in retried)
        raised = "" if status == 499 else f"`{error_class(_problem(status, slug)).__name__}`"
        rows.append([str(status), f"`{slug}`", raised, when])
    return table(["status", "type", "class in Python", "title, and when"], rows)


def metrics() -> str:
    """A row for each metric of a service."""
    rows = []
    with _app() as app:
        found = sorted(app.state.metrics.collect(), key=lambda metric: metric.name)
    for metric in found:
        if metric.name.startswith(PROCESS):
            continue
        name = metric.name + ("_total" if metric.type == "counter" else "")
        about = _described(metric.documentation, f"the metric {name}")
        rows.append([f"`{name}`", metric.type, about])
    rows.append([f"`{PROCESS}*`", "", "Memory, processor time and open files of the process."])
    return table(["metric", "kind", "what"], rows)


def commands(program: str) -> str:
    """Everything that the ``--help`` of a program says."""
    command = get_command(COMMANDS[program])
    for path, parameter in _parameters(command, program):
        _described(getattr(parameter, "help", None), f"{parameter.name} of {path}")
    text = get_docs_for_click(obj=command, ctx=typer.Context(command), name=program)
    text = text.replace(str(DEFAULT_MODELS), "models/")
    text = text.partition("\n")[2].replace(f"$ {program}", program)
    text = re.sub("(?<!`)``(?!`)", "`", text)  # of docstrings
    return re.sub("^##", "###", text, flags=re.MULTILINE).strip()


def api() -> str:
    """Every operation of the OpenAPI, and the schemas of its JSON."""
    with _app() as app:
        return operations(app.openapi())


@contextmanager
def _app() -> Iterator[FastAPI]:
    """The app, not served, with a folder for jobs that is removed."""
    with tempfile.TemporaryDirectory() as folder:
        yield create_app(
            Settings(default_model="bicubic", jobs=Path(folder) / "jobs", device="cpu")
        )


def _described(text: str | None, what: str) -> str:
    if not text:
        raise Undocumented(f"{what} has no description in the code")
    return text


def _default(value: object) -> str:
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    if isinstance(value, Path):
        return f"`{value.name}/` of the clone"
    return f"`{value}`" if value != "" else ""


def _parameters(command: Any, path: str) -> Iterator[tuple[str, Any]]:
    """The parameters of a command and of those below it, with the command's path."""
    below = getattr(command, "commands", {})
    for name, sub in below.items():
        yield from _parameters(sub, f"{path} {name}")
    if not below:
        yield from ((path, parameter) for parameter in command.params)


def _variables_of_commands() -> dict[str, list[str]]:
    """Each environment variable that an option reads, and the commands with that option."""
    found: dict[str, list[str]] = {}
    for path, parameter in _parameters(get_command(cli), ""):
        if variable := getattr(parameter, "envvar", None):
            found.setdefault(variable, []).append(path.strip())
    return found


def _problem(status: int, slug: str) -> Problem:
    return Problem(type=f"{PROBLEM_TYPE}{slug}", title="", status=status, detail="", request_id="")
