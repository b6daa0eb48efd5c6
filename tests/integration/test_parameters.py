"""Parameters and headers: in the query or in a form, of any length, told before the body."""

import json
from contextlib import closing
from urllib.parse import urlencode

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from superres.codecs import MEDIA_TYPES, probe
from tests.integration.test_callers import answer_of, connected, wait_until_idle
from tests.integration.test_errors import assert_problem
from tests.pictures import plain
from tests.serving import SPECIFICATION

UPLOADS = ["/enhance", "/compare"]


def announced(client: httpx.Client, target: str, *headers: str) -> tuple[int, dict[str, object]]:
    """What is answered to the head of a request whose body never comes."""
    lines = [
        f"POST {target} HTTP/1.1",
        f"Host: 127.0.0.1:{client.base_url.port}",
        "Content-Length: 5000000",
        *(headers or ("Content-Type: image/png",)),
    ]
    with connected(client) as connection:
        connection.sendall("\r\n".join([*lines, "", ""]).encode())
        return answer_of(connection)


@pytest.mark.parametrize("path", UPLOADS)
@pytest.mark.parametrize(
    ("query", "headers", "status", "slug"),
    [
        ("scale=9", [], 422, "bad-parameter"),
        ("scael=3", [], 422, "bad-parameter"),
        ("model=esrgan", [], 422, "unknown-model"),
        ("", ["X-Deadline-Ms: soon"], 422, "bad-parameter"),
        ("", ["Accept: video/mp4"], 406, "not-acceptable"),
    ],
)
def test_what_is_wrong_whatever_the_body_is_told_before_it_is_sent(
    fake_service, path, query, headers, status, slug
):
    of_picture = announced(fake_service, f"{path}?{query}", "Content-Type: image/png", *headers)
    assert (of_picture[0], of_picture[1]["type"]) == (status, f"urn:superres:problem:{slug}")
    if not any(header.startswith("Accept") for header in headers):
        form = "Content-Type: multipart/form-data; boundary=x"
        assert announced(fake_service, f"{path}?{query}", form, *headers)[0] == status
    wait_until_idle(fake_service)


def test_a_proof_at_a_scale_too_small_is_told_before_the_body(fake_service):
    status, problem = announced(fake_service, "/enhance?scale=1.2&proof=true")
    assert (status, problem["type"]) == (422, "urn:superres:problem:bad-parameter")


def test_the_fields_of_a_form_are_parameters_and_the_query_comes_first(fake_service):
    fields = {"scale": "2", "format": "webp", "quality": "80", "ensemble": "true"}
    answer = fake_service.post("/enhance", data=fields, files={"file": plain()})
    query = fake_service.post("/enhance", params=fields, content=plain())
    assert answer.content == query.content
    assert answer.headers["content-type"] == "image/webp"
    assert "+ensemble" in answer.headers["x-model"]
    both = fake_service.post(
        "/enhance", data=fields, files={"file": plain()}, params={"scale": 3, "format": "png"}
    )
    assert both.headers["content-type"] == "image/png"
    assert probe(both.content).size == tuple(3 * side for side in probe(plain()).size)
    dry = httpx.post(
        f"{fake_service.base_url}/enhance",
        data={"dry_run": "true", "model": "srcnn-x2"},
        files={"file": plain()},
    ).json()
    assert dry["model"].startswith("srcnn-x2")
    compared = fake_service.post(
        "/compare", data={"scale": "2"}, files={"file": plain(120, 120)}
    ).json()
    assert compared["scale"] == 2


@pytest.mark.parametrize("path", UPLOADS)
@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("scael", "4", "unknown parameter 'scael'"),
        ("picture", "x", "unknown parameter 'picture'"),
        ("scale", "9", "scale: input should be less than or equal to 4, not '9'"),
        ("scale", "", "scale: "),
        ("ensemble", "perhaps", "ensemble: "),
    ],
)
def test_a_field_that_is_no_parameter_is_refused_by_name(fake_service, path, field, value, says):
    answer = fake_service.post(path, data={field: value}, files={"file": plain(120, 120)})
    assert_problem(answer, 422, "bad-parameter", says)


def test_a_form_with_too_many_or_too_long_fields_is_refused(fake_service):
    for fields, says in (
        ({f"field{n}": "1" for n in range(40)}, "Too many fields"),
        ({"scale": "1" * 5000}, "maximum size"),
    ):
        answer = fake_service.post("/enhance", data=fields, files={"file": plain()})
        assert_problem(answer, 400, "malformed-request", says)


def test_every_parameter_can_be_a_field_by_the_openapi(fake_service):
    for path in UPLOADS:
        operation = SPECIFICATION["paths"][path]["post"]
        query = {one["name"] for one in operation["parameters"] if one["in"] == "query"}
        form = operation["requestBody"]["content"]["multipart/form-data"]["schema"]
        assert form["properties"].keys() == query | {"file"}
        assert "null" not in json.dumps(form)


@pytest.mark.parametrize("accept", ["application/json", "application/json, text/plain;q=0.5"])
def test_an_answer_in_json_takes_json_alone(fake_service, accept):
    headers = {"Accept": accept}
    dry = fake_service.post(
        "/enhance", params={"dry_run": True}, content=plain(), headers=headers
    ).json()
    assert dry["source_format"] == "png"
    job = fake_service.post(
        "/enhance", content=plain(), headers=headers | {"Prefer": "respond-async"}
    )
    assert job.status_code == 202
    fake_service.delete(job.headers["location"])
    # A picture is not JSON.
    assert_problem(
        fake_service.post("/enhance", content=plain(), headers=headers),
        406,
        "not-acceptable",
        "Accept is 'application/json",
    )


def test_the_picture_of_a_job_has_the_format_that_accept_asks_for_beside_json(fake_service):
    headers = {"Accept": "application/json, image/webp;q=0.1", "Prefer": "respond-async"}
    job = fake_service.post("/enhance", content=plain(), headers=headers)
    result = fake_service.get(f"{job.headers['location']}/result")
    while result.status_code == 409:
        result = fake_service.get(f"{job.headers['location']}/result")
    assert result.headers["content-type"] == "image/webp"
    fake_service.delete(job.headers["location"])


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("text/plain; version=0.0.4", "text/plain"),
        ("text/plain;version=1.0.0;escaping=allow-utf-8;q=0.5", "text/plain"),
        ("application/openmetrics-text; version=1.0.0; charset=utf-8", "application/openmetrics"),
        ("application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5", "app"),
        ("application/json;charset=utf-8", "application/json"),
    ],
)
def test_metrics_are_given_in_the_version_that_a_scraper_asks_for(fake_service, accept, kind):
    answer = fake_service.get("/metrics", headers={"Accept": accept})
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith(kind)


def numbers() -> list[tuple[str, str, str, str]]:
    """Method, path, place and name of all parameters of the API that are numbers."""
    return [
        (method, path, one["in"], one["name"])
        for path, operations in SPECIFICATION["paths"].items()
        for method, operation in operations.items()
        for one in operation.get("parameters", [])
        if {"integer", "number"} & {
            kind.get("type") for kind in one["schema"].get("anyOf", [one["schema"]])
        }
    ]  # fmt: skip


DIGITS = [1, 19, 20, 309, 310, 4300, 4301, 8000]


@pytest.mark.parametrize("sign", ["", "-", "+", "0.", "1e", "00"])
def test_no_number_is_too_long_to_be_refused(fake_service, sign):
    found = numbers()
    assert {name for *_, name in found} >= {"scale", "quality", "X-Deadline-Ms"}
    for method, path, place, name in found:
        for digits in DIGITS:
            value = sign + "9" * digits
            parts = {"params": {name: value}} if place == "query" else {"headers": {name: value}}
            content = plain() if method == "post" else None
            answer = fake_service.request(method, path, content=content, **parts)
            allowed = (200, 422, 504) if name == "X-Deadline-Ms" else (200, 422)
            assert answer.status_code in allowed, (path, name, sign, digits, answer.text[:300])
            if method == "post" and place == "query":
                answer = fake_service.post(path, data={name: value[:4000]}, files={"file": plain()})
                assert answer.status_code in (200, 422), (path, name, sign, digits)


@pytest.mark.parametrize(
    "line",
    [
        "Content-Length: {}",
        "Range: bytes={}-",
        "Range: bytes=-{}",
        "If-Range: {}",
        "Accept: image/png;q={}",
        "Accept: image/png;q=0.{}",
        "Prefer: respond-async, wait={}",
        "Host: 127.0.0.1:{}",
        "Keep-Alive: timeout={}",
    ],
)
def test_no_header_is_too_long_to_be_answered(fake_service, line):
    for digits in DIGITS:
        header = line.format("9" * digits)
        lines = ["POST /enhance HTTP/1.1", "Content-Type: image/png", header]
        lines += [] if line.startswith("Host") else ["Host: 127.0.0.1"]
        lines += [] if line.startswith("Content-L") else ["Content-Length: 9"]
        with connected(fake_service) as connection:
            connection.sendall("\r\n".join([*lines, "", "no picture"[:9]]).encode())
            assert 400 <= int(connection.recv(1000).split()[1]) < 500, (line, digits)
    wait_until_idle(fake_service)


@settings(max_examples=25, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["scale", "quality", "format", "dry_run", "ensemble", "model", "x"]),
        st.text(max_size=30) | st.from_regex(r"-?[0-9]{0,400}(\.[0-9]{1,400})?", fullmatch=True),
    )
)
def test_a_query_and_a_form_are_answered_alike(fake_service, parameters):
    query = fake_service.post(f"/enhance?{urlencode(parameters)}", content=plain())
    form = fake_service.post("/enhance", data=parameters, files={"file": plain()})
    assert query.status_code == form.status_code
    assert query.status_code in (200, 422), query.text
    if query.status_code == 422:
        assert query.json()["detail"] == form.json()["detail"]


@pytest.mark.parametrize(
    "path",
    ["/", "/compare", "/metrics", "/healthz", "/readyz", "/version", "/models", "/docs",
     "/openapi.json", "/samples/coffee?thumbnail=true", "/static/page.js"],
)  # fmt: skip
def test_head_is_answered_as_get_without_the_body(fake_service, path):
    with closing(httpx.Client(base_url=fake_service.base_url, verify=False)) as client:
        head, get = client.head(path), client.get(path)
    assert head.status_code == get.status_code == 200
    assert head.content == b""
    volatile = {"x-request-id", "date", "server-timing"}
    assert head.headers.keys() == get.headers.keys()
    for name in head.headers.keys() - volatile - {"content-length" if path == "/metrics" else ""}:
        assert head.headers[name] == get.headers[name]


def test_head_of_what_is_not_there_or_only_takes_post_has_the_status_of_get(fake_service):
    with closing(httpx.Client(base_url=fake_service.base_url, verify=False)) as client:
        assert client.head("/nothing").status_code == 404
        assert client.head("/enhance").status_code == 405
        assert client.put("/healthz").headers["allow"] == "GET, HEAD"
        metrics = client.get("/metrics").text
    assert 'superres_requests_total{method="HEAD",route="/healthz",status="200"}' in metrics


def test_head_of_events_does_not_wait_for_the_job(fake_service):
    job = fake_service.post("/enhance", content=plain(), headers={"Prefer": "respond-async"})
    path = job.headers["location"]
    with httpx.Client(base_url=fake_service.base_url, verify=False) as client:
        for of in ("", "/events"):
            assert client.head(path + of).status_code == 200
            assert client.get("/healthz").status_code == 200  # on the same connection
    fake_service.delete(path)


def test_all_formats_can_be_asked_for_with_parameters(fake_service):
    for media_type in MEDIA_TYPES.values():
        answer = fake_service.post(
            "/enhance", content=plain(), headers={"Accept": f"{media_type};a=b;q=0.5"}
        )
        assert answer.headers["content-type"] == media_type
