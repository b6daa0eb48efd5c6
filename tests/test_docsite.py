"""The generated pages of the site, and that nothing can be left out of them."""

import re
from pathlib import Path
from typing import Annotated

import httpx
import pytest
import typer
from prometheus_client import CollectorRegistry, Counter
from pydantic import Field

from app import errors
from app.errors import STATUS_AND_TYPE
from app.main import create_app
from app.settings import Settings
from docsite import assemble as site
from docsite import models, openapi, reference
from docsite.hosts import external_resources
from superres.cli import cli
from superres.models.registry import AUTO


def rows(table: str) -> list[list[str]]:
    """The cells of each row of a table but its head."""
    lines = [line.strip("| ").split(" | ") for line in table.splitlines()]
    return [[cell.strip() for cell in line] for line in lines[2:]]


def test_every_setting_is_there_with_its_default():
    found = {row[0].strip("`"): row[1].strip("`") for row in rows(reference.settings())}
    assert found.keys() == {f"SUPERRES_{name.upper()}" for name in Settings.model_fields}
    assert found["SUPERRES_RATE_LIMIT"] == "120/minute"
    assert found["SUPERRES_JOBS"] == "jobs/` of the clone"


def test_a_setting_without_a_description_is_an_error(monkeypatch: pytest.MonkeyPatch):
    class More(Settings):
        planted: int = Field(1)

    monkeypatch.setattr(reference, "Settings", More)
    with pytest.raises(reference.Undocumented, match="the setting SUPERRES_PLANTED has no desc"):
        reference.settings()


def test_every_metric_of_a_service_is_there(fake_service: httpx.Client):
    families = set(
        re.findall(r"^# TYPE (\w+)", fake_service.get("/metrics").text, flags=re.MULTILINE)
    )
    # Each counter and histogram has a gauge beside it that tells when it was made.
    shown = {name for name in families if not name.endswith("_created") and "process_" not in name}
    assert len(shown) > 8
    assert shown == {row[0].strip("`") for row in rows(reference.metrics())} - {"process_*"}


def test_a_metric_without_a_description_is_an_error(monkeypatch: pytest.MonkeyPatch):
    registry = CollectorRegistry()
    Counter("planted", "", registry=registry)

    class App:
        class state:  # noqa: N801 (of Starlette)
            metrics = registry

    monkeypatch.setattr(reference, "create_app", lambda settings: App)
    with pytest.raises(reference.Undocumented, match="the metric planted_total has no desc"):
        reference.metrics()


def test_every_error_type_is_there_with_its_status():
    found = {(row[0], row[1].strip("`")) for row in rows(reference.errors())}
    assert found >= {(str(status), slug) for status, slug in STATUS_AND_TYPE.values()}
    assert ("404", "not-found") in found


def test_an_error_without_a_cause_is_an_error(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delitem(errors.CAUSES, "busy")
    with pytest.raises(reference.Undocumented, match="the problem busy has no description"):
        reference.errors()


@pytest.mark.parametrize("name", [command.name for command in cli.registered_commands])
def test_every_command_is_there(name: str):
    assert f"\n### `superres {name}`\n" in reference.commands("superres")


@pytest.mark.parametrize("program", reference.COMMANDS)
def test_every_option_of_every_program_says_what_it_does(program: str):
    assert "**Options**" in reference.commands(program)


def test_an_option_without_help_is_an_error(monkeypatch: pytest.MonkeyPatch):
    planted = typer.Typer()

    @planted.command()
    def one() -> None: ...

    @planted.command()
    def other(depth: Annotated[int, typer.Option()] = 1) -> None: ...

    monkeypatch.setitem(reference.COMMANDS, "planted", planted)
    with pytest.raises(reference.Undocumented, match="depth of planted other has no description"):
        reference.commands("planted")


def test_every_call_and_parameter_of_the_openapi_is_there(tmp_path: Path):
    settings = Settings(default_model="bicubic", jobs=tmp_path, device="cpu")
    specification = create_app(settings).openapi()
    page = openapi.operations(specification)
    for path, calls in specification["paths"].items():
        for method, call in calls.items():
            (part,) = re.findall(
                rf"^### {method.upper()} {re.escape(path)}\n(.*?)^##",
                page,
                re.DOTALL | re.MULTILINE,
            )
            for parameter in call.get("parameters", []):
                assert f"| `{parameter['name']}` | {parameter['in']} |" in part


def test_a_parameter_without_a_description_is_an_error():
    call = {
        "tags": ["t"],
        "summary": "s",
        "parameters": [{"name": "planted", "in": "query", "schema": {}}],
        "responses": {},
    }
    spec = {"tags": [{"name": "t", "description": "d"}], "paths": {"/": {"get": call}}}
    with pytest.raises(openapi.UndocumentedParameter, match="planted of GET / has no description"):
        openapi.operations(spec | {"components": {"schemas": {}}})


def test_tables_of_models_name_each_family_and_auto():
    families = models.families()
    assert len(families) > 3
    assert len(rows(models.list_of_families())) == len(families)
    for kind in ("clean", "compressed"):
        head = models.scores(kind).splitlines()[0]
        assert head == f"| set | bicubic | {AUTO} | {' | '.join(families)} |"
    assert len(rows(models.gains("3"))) == len(models.KINDS)
    assert all("-" not in row[1:3] for row in rows(models.gains("3")))
    for family in families:
        assert rows(models.family_scores(family))
        assert rows(models.facts(family))
        assert models.worst(family).startswith("1. ")
        assert models.data(family)


@pytest.mark.slow  # make check does the same first
def test_the_pages_have_no_fault(tmp_path: Path):
    assert site.assemble(tmp_path / "pages") == []
    pages = [page.read_text() for page in (tmp_path / "pages").rglob("*.md")]
    assert len(pages) > 40
    assert not any(re.search("^<!-- generated", page, re.MULTILINE) for page in pages)


def test_links_out_of_the_site_become_paths_and_dead_ones_faults(monkeypatch: pytest.MonkeyPatch):
    source = site.DOCS / "how-to" / "planted.md"
    places = {source: "how-to/planted.md", site.REPOSITORY / "README.md": "index.md"}
    text, faults = site._with_links(
        "[a](../../README.md#x) [b](../../Makefile) [`Makefile`](../../Makefile) [c](none.md) "
        "![d](../../Makefile) [e](https://example.org) `[f](none.md)`\n```\n[g](none.md)\n```\n",
        source,
        places,
    )
    assert text.startswith("[a](../index.md#x) b (`Makefile`) `Makefile` [c](none.md) ")
    assert faults == [
        "docs/how-to/planted.md: [c](none.md) leads nowhere",
        "docs/how-to/planted.md: ![d](../../Makefile) leads nowhere",
    ]


def test_pages_outside_the_navigation_are_faults():
    pages = set(site._places().values())
    assert list(site._outside_navigation(pages)) == []
    assert list(site._outside_navigation({*pages, "planted.md"})) == [
        "planted.md is not in the navigation: add it to nav in zensical.toml"
    ]
    assert list(site._outside_navigation(pages - {"index.md"})) == [
        "index.md is in the navigation, and there is no such page: see nav in zensical.toml"
    ]


def test_a_family_without_a_page_or_with_old_worst_cases_is_a_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(models, "families", lambda: ["srcnn"])
    monkeypatch.setattr(models, "_worst_cases", lambda: {"srcnn": {"hash": "0123456789ab"}})
    monkeypatch.setattr(site, "DOCS", tmp_path)
    assert site.assemble(tmp_path / "pages") == [
        "the model family srcnn has no page docs/models/srcnn.md",
        "the worst cases of srcnn are not of its present weights: run benchmarks/worst_cases.py",
    ]


def test_what_a_page_loads_from_another_host_is_found(tmp_path: Path):
    (tmp_path / "page.html").write_text(
        '<link rel="canonical" href="https://a.example/"><a href="https://b.example/">b</a>'
        '<script src="https://c.example/c.js"></script><img src="//d.example/d.png">'
        '<link rel="stylesheet" href="https://e.example/e.css"><img src="ours.png">'
    )
    assert external_resources(tmp_path) == [
        f"{tmp_path}/page.html: loads {address}"
        for address in ("https://c.example/c.js", "//d.example/d.png", "https://e.example/e.css")
    ]
