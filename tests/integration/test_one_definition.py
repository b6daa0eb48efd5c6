"""One set of parameters everywhere: query, form, clients, command, page; and sizes through all."""

import inspect
from html.parser import HTMLParser
from typing import Any, get_args, get_type_hints

import httpx
import pytest
import typer.main

from app.inference.enhance import EnhanceOptions
from superres.cli import cli
from superres.client import AsyncClient, Client
from superres.codecs import FORMATS, OUTPUT_FORMATS, probe
from superres.errors import BadRequest
from superres.parameters import Given, Parameters, bounds, choices
from tests.integration.test_errors import assert_problem
from tests.integration.test_parameters import announced
from tests.pictures import plain
from tests.serving import SPECIFICATION

NAMES = list(Parameters.model_fields)
OF_THE_COMMAND = {
    "help", "output", "recursive", "resume", "dry-run", "force", "max-pixels", "cluster",
    "provenance", "watch", "models", "precision", "device", "runtime",
}  # fmt: skip
"""Options that say where the work is done, and not what is made."""
OF_THE_PAGE = {
    "format": {name for name in OUTPUT_FORMATS if not FORMATS[name].shown_by_browsers},
    "fallback": {"always"},
}
"""Values that the page leaves out: browsers do not show them, or they are deprecated."""


class Fields(HTMLParser):
    """The named controls of the page's form, each with its attributes and options."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: dict[str, dict[str, Any]] = {}
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        if tag in ("input", "select") and "name" in given:
            self.found[given["name"]] = given | {"options": []}
        if tag == "option":
            default = given.get("data-value")
            list(self.found.values())[-1]["options"].append(default or given["value"])


def openapi(place: str) -> dict[str, dict[str, Any]]:
    operation = SPECIFICATION["paths"]["/enhance"]["post"]
    if place == "form":
        content = operation["requestBody"]["content"]["multipart/form-data"]["schema"]
        return content["properties"]
    return {one["name"]: one["schema"] for one in operation["parameters"] if one["in"] == "query"}


def test_all_ways_to_ask_have_the_same_parameters(fake_service):
    assert openapi("query").keys() - {"dry_run", "callback"} == set(NAMES)
    assert openapi("form").keys() - {"dry_run", "callback", "file"} == set(NAMES)
    assert EnhanceOptions.model_fields.keys() == set(NAMES)
    for client in (Client, AsyncClient):
        signature = inspect.signature(client.enhance).parameters
        assert list(signature) == ["self", "picture", "scale", "parameters"]
        hints = get_type_hints(client.enhance)
        assert hints["scale"] == get_type_hints(Parameters)["scale"]
        assert Given.__annotations__.keys() | {"scale"} == set(NAMES)
    hints = get_type_hints(Parameters)
    assert get_type_hints(Given) == {name: hints[name] for name in NAMES if name != "scale"}
    assert command().keys() == set(NAMES) | OF_THE_COMMAND - {"help"}
    assert Fields(fake_service.get("/").text).found.keys() == {*NAMES, "file"}


def command() -> dict[str, Any]:
    """The options of ``superres enhance``, by their long names."""
    parsed = typer.main.get_command(cli).commands["enhance"]  # type: ignore[attr-defined]
    return {one.opts[0].removeprefix("--"): one for one in parsed.params if one.opts[0][0] == "-"}


def test_all_ways_to_ask_have_the_same_values_and_defaults(fake_service):
    options = command()
    fields = Fields(fake_service.get("/").text).found
    for name in NAMES:
        default = Parameters.model_fields[name].default
        schema = openapi("query")[name]
        schema = next((one for one in schema.get("anyOf", ()) if one != {"type": "null"}), schema)
        assert schema.get("enum", []) == list(choices(name)), name
        limits = {"min": schema.get("minimum"), "max": schema.get("maximum")}
        assert {word: limit for word, limit in limits.items() if limit is not None} == bounds(name)
        if name == "model":
            continue  # the models of the service; and the default of the settings
        assert (options[name].default or None) == (default or None), name
        annotation = options[name].type_descriptor.annotation
        assert get_args(annotation) == choices(name), name
        if choices(name):
            left_out = OF_THE_PAGE.get(name, set())
            offered = set(fields[name]["options"]) - {"default", ""}
            assert offered == set(choices(name)) - left_out, name
        for word, limit in bounds(name).items():
            given = fields[name].get(word, fields[name].get(f"data-{word}"))
            assert float(given) == limit, name


@pytest.mark.parametrize(
    ("asked", "size", "model"),
    [
        ({"width": 150}, (75, 150), "srcnn-x3"),
        ({"width": 120, "height": 120}, (60, 120), "srcnn-x2"),
        ({"width": 120, "height": 120, "fit": "cover"}, (120, 120), "srcnn-x4"),
        ({"width": 70, "height": 90, "fit": "exact"}, (90, 70), "srcnn-x3"),
        ({"width": 30}, (15, 30), "bicubic"),
    ],
)
def test_a_picture_gets_the_size_that_is_asked_for_everywhere(fake_service, asked, size, model):
    picture = plain(60, 30)
    query = fake_service.post("/enhance", params=asked, content=picture)
    form = fake_service.post("/enhance", data=asked, files={"file": picture})
    client = Client(http=fake_service)
    answer = client.enhance(picture, **asked)
    as_job = Client(http=fake_service, job_pixels=0).enhance(picture, **asked)
    assert query.content == form.content == answer.content == as_job.content
    assert probe(query.content).size == size == answer.size
    assert query.headers["x-output-size"] == f"{size[1]}x{size[0]}"
    assert answer.model.startswith(f"{model}@")
    assert ("only shrunk, by bicubic" in answer.notes) == (model == "bicubic")
    dry = fake_service.post("/enhance", params=asked | {"dry_run": True}, content=picture).json()
    assert (dry["output_height"], dry["output_width"]) == size
    assert dry["model"] == model
    assert ("only shrunk" in dry["notes"]) == (model == "bicubic")


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"scale": 2, "width": 100}, "scale and width are two ways to say the size"),
        ({"fit": "cover"}, "fit=cover says how a picture fits a width and a height, and needs b"),
        ({"width": 0}, "width: input should be greater than or equal to 1, not '0'"),
        ({"width": 241}, "at most 4 times; width 241 of this one of 60x30 is 4.017 times: ask for"),
        ({"width": 80, "proof": True}, "a proof needs a scale of 1.5 to 4, not 1.33333"),
        ({"width": 30, "fallback": "auto"}, "a proof needs a scale of 1.5 to 4, not 0.5"),
    ],
)
def test_a_size_that_is_not_possible_is_refused_with_the_way_out(fake_service, asked, says):
    picture = plain(60, 30)
    for answer in (
        fake_service.post("/enhance", params=asked, content=picture),
        fake_service.post("/enhance", data=asked, files={"file": picture}),
    ):
        assert_problem(answer, 422, "bad-parameter", says)
    with pytest.raises(BadRequest):
        Client(http=fake_service).enhance(picture, **asked)


def test_a_form_completes_what_the_query_says_of_the_size(fake_service):
    form = {"width": "90", "height": "90"}
    answer = fake_service.post("/enhance?fit=cover", data=form, files={"file": plain(60, 30)})
    assert probe(answer.content).size == (90, 90)
    both = fake_service.post("/enhance?scale=2", data=form, files={"file": plain(60, 30)})
    assert_problem(both, 422, "bad-parameter", "scale and width are two ways")


def test_sizes_that_contradict_each_other_are_told_before_the_body(fake_service: httpx.Client):
    status, problem = announced(fake_service, "/enhance?scale=2&width=100")
    assert (status, problem["type"]) == (422, "urn:superres:problem:bad-parameter")


def test_a_proof_is_made_for_a_size(fake_service, chelsea):
    from tests.pictures import encoded

    answer = Client(http=fake_service).enhance(
        encoded(chelsea[:120, :160], "PNG"), width=400, height=400, fit="cover", proof=True
    )
    assert answer.size == (400, 400)
    assert answer.gain_db is not None
