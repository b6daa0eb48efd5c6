"""The OpenAPI of the service as Markdown."""

from collections.abc import Iterator, Mapping
from typing import Any

from docsite.markdown import table
from superres.schemas import PROBLEM_TYPE

REFERENCE = "#/components/schemas/"
Spec = Mapping[str, Any]


class UndocumentedParameter(Exception):
    """A parameter without a description."""


def operations(spec: Spec) -> str:
    """A section for each group of calls, with a part for each call; then the schemas of the JSON.

    Raises:
        UndocumentedParameter: one has no description.
    """
    calls = [
        (method.upper(), path, call)
        for path, methods in spec["paths"].items()
        for method, call in methods.items()
    ]
    parts = []
    for tag in spec["tags"]:
        parts += [f"## {tag['name'].capitalize()}", tag["description"]]
        for method, path, call in calls:
            if tag["name"] in call["tags"]:
                parts += _call(method, path, call)
    parts.append("## JSON")
    for name, schema in spec["components"]["schemas"].items():
        parts += _schema(name, schema)
    return "\n\n".join(parts)


def _call(method: str, path: str, call: Spec) -> Iterator[str]:
    yield f"### {method} {path}"
    yield f"**{call['summary']}.** {call.get('description', '')}"
    if call.get("security"):
        yield "Needs a key, if the service has keys."
    parameters = call.get("parameters", [])
    for one in parameters:
        if not one.get("description"):
            raise UndocumentedParameter(f"{one['name']} of {method} {path} has no description")
    if parameters:
        rows = [
            [f"`{one['name']}`", one["in"], _type(one["schema"]), one["description"]]
            for one in parameters
        ]
        yield table(["parameter", "in", "value", "what"], rows)
    if body := call.get("requestBody"):
        yield f"Body: {', '.join(f'`{kind}`' for kind in body['content'])}."
    rows = [[status, _answer(answer)] for status, answer in sorted(call["responses"].items())]
    yield table(["status", "answer"], rows)
    headers = call["responses"].get("200", {}).get("headers", {})
    if headers:
        rows = [[f"`{name}`", one["description"]] for name, one in headers.items()]
        yield table(["header of the answer", "what"], rows)


def _answer(answer: Spec) -> str:
    schemas = [one.get("schema", {}) for one in answer.get("content", {}).values()]
    names = (one["$ref"].removeprefix(REFERENCE) for one in schemas if "$ref" in one)
    links = [f"[{name}](#{name.lower()})" for name in names if name != "Problem"]
    text = answer["description"].replace(PROBLEM_TYPE, "")
    if text == "Successful Response":  # FastAPI's words for nothing in particular
        text = "JSON:" if links else "Done."
    return f"{text} {', '.join(links)}".strip()


def _schema(name: str, schema: Spec) -> Iterator[str]:
    yield f"### {name}"
    yield schema.get("description", "")
    rows = [
        [f"`{field}`", _type(one), one.get("description", "")]
        for field, one in schema.get("properties", {}).items()
    ]
    yield table(["field", "value", "what"], rows)


def _type(schema: Spec) -> str:
    """The values that a schema allows, in words."""
    if reference := schema.get("$ref"):
        name = reference.removeprefix(REFERENCE)
        return f"[{name}](#{name.lower()})"
    if options := schema.get("anyOf"):
        kinds = [_type(one) for one in options if one.get("type") != "null"]
        text = " or ".join(kinds)
    elif values := schema.get("enum"):
        text = ", ".join(f"`{value}`" for value in values)
    elif "const" in schema:
        text = f"`{schema['const']}`"
    elif schema.get("type") == "array":
        text = f"several: {_type(schema['items'])}"
    else:
        text = schema.get("format", schema.get("type", "anything"))
        low, high = schema.get("minimum"), schema.get("maximum")
        if low is not None and high is not None:
            text += f", {low:g} to {high:g}" if high < 1e6 else f", at least {low:g}"
    default = schema.get("default")
    return text if default in (None, "", []) else f"{text}; default `{default}`"
