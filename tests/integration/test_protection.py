"""What browsers send for pages of other sites, and by other names, is refused; the rest is not."""

import socket
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.access import make_key
from app.api.protection import CrossOriginMiddleware
from superres.models.card import ModelCard
from tests.engines import BlurEngine
from tests.integration.test_errors import assert_problem
from tests.pictures import plain

OTHER = "https://evil.example"


def own(client: httpx.Client) -> str:
    return f"http://127.0.0.1:{client.base_url.port}"


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site", "Origin": OTHER},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site", "Origin": "http://127.0.0.1:1"},
        {"Origin": OTHER},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "http://[", "Authorization": "Basic eDp5"},
    ],
)
def test_a_page_of_another_site_can_have_the_service_do_no_work(fake_service, headers):
    job = fake_service.post("/enhance", content=plain(), headers={"Prefer": "respond-async"})
    for method, path in (
        ("POST", "/enhance"),
        ("POST", "/compare"),
        ("POST", "/admin/reload"),
        ("DELETE", job.headers["location"]),
    ):
        answer = fake_service.request(method, path, headers=headers)
        assert_problem(answer, 403, "cross-origin", "SUPERRES_CORS_ORIGINS")
    assert fake_service.delete(job.headers["location"]).status_code == 204


def test_own_pages_programs_and_bearers_of_a_key_may(fake_service):
    port = fake_service.base_url.port
    for headers in (
        {},
        {"Sec-Fetch-Site": "same-origin", "Origin": own(fake_service)},
        {"Sec-Fetch-Site": "none"},
        {"Origin": own(fake_service)},
        {"Origin": f"http://localhost:{port}", "Host": f"LOCALHOST:{port}"},
        {"Sec-Fetch-Site": "same-origin", "Origin": "https://behind.a.proxy.example"},
        {"Sec-Fetch-Site": "cross-site", "Origin": OTHER, "Authorization": "Bearer x"},
    ):
        answer = fake_service.post("/enhance", content=plain(), headers=headers)
        assert answer.status_code == 200, headers


def test_what_changes_nothing_is_answered_whoever_asks(fake_service):
    headers = {"Sec-Fetch-Site": "cross-site", "Origin": OTHER}
    for path in ("/healthz", "/metrics", "/version", "/"):
        answer = fake_service.get(path, headers=headers)
        assert answer.status_code == 200
        assert "access-control-allow-origin" not in answer.headers


def test_origins_that_may_call_are_trusted(serve, srcnn_card: ModelCard):
    engines = {srcnn_card.name: BlurEngine(srcnn_card.geometry)}
    with serve(engines, cors_origins="https://a.example") as client:
        for origin, status in (("https://a.example", 200), ("http://a.example", 403)):
            headers = {"Origin": origin, "Sec-Fetch-Site": "cross-site"}
            answer = client.post("/enhance", content=plain(), headers=headers)
            assert answer.status_code == status
    with serve(engines, cors_origins="*") as client:
        assert client.post("/enhance", content=plain(), headers=headers).status_code == 200


@settings(max_examples=100)
@example("POST", None, "null", "", None)
@given(
    method=st.sampled_from(["POST", "DELETE", "PUT", "PATCH", "FOO"]),
    site=st.sampled_from([None, "", "cross-site", "same-site", "none", "same-origin", "x"]),
    origin=st.none() | st.sampled_from(["null", OTHER, "http://a:80", "http://a"]) | st.text(),
    host=st.sampled_from(["a", "a:80", "evil.example:1", ""]),
    authorization=st.sampled_from([None, "Basic x", "bearer x", "Bearer", "Bearerx"]),
)
def test_only_what_a_browser_sends_for_the_same_origin_or_a_token_passes(
    method, site, origin, host, authorization
):
    headers = {"host": host, "sec-fetch-site": site, "origin": origin}
    headers["authorization"] = authorization
    headers = {name: value for name, value in headers.items() if value is not None}
    allowed = CrossOriginMiddleware(None, [])._is_allowed(method, headers)
    if authorization == "bearer x" or (site is None and origin is None):
        assert allowed
    elif site is not None:
        assert allowed == (site in ("same-origin", "none"))
    elif allowed:
        assert origin.lower().partition("//")[2].partition("/")[0].startswith(host)
    if site is None and origin in ("null", OTHER) and authorization != "bearer x":
        assert not allowed


def named(client: httpx.Client, host: str, path: str = "/version") -> httpx.Response:
    return client.get(path, headers={"Host": host})


def test_a_service_without_keys_is_called_by_the_names_of_loopback_alone(fake_service):
    port = fake_service.base_url.port
    for host in ("localhost", "LOCALHOST", "127.0.0.1", "[::1]", f"localhost:{port}", "[::1]:80"):
        assert named(fake_service, host).status_code == 200, host
    strangers = ["evil.example", f"evil.example:{port}", "localhost.evil.example", "10.0.0.7"]
    for host in [*strangers, "127.0.0.1.evil.example", "a b", "[::2]", "x@localhost"]:
        answer = named(fake_service, host)
        assert_problem(answer, 421, "unknown-host", "SUPERRES_TRUSTED_HOSTS")
    assert "localhost, 127.0.0.1, [::1]" in answer.json()["detail"]


def test_probes_and_scrapes_call_a_container_by_any_address(fake_service):
    for path in ("/healthz", "/readyz", "/metrics"):
        for host in ("10.0.0.7:8000", "api:8000"):
            assert named(fake_service, host, path).status_code == 200


@pytest.mark.parametrize(
    ("setting", "host", "status"),
    [
        ({"without_keys": True}, "superres.example", 200),
        ({"api_keys": make_key("alice")[1]}, "superres.example", 401),
        ({"trusted_hosts": "superres.example, *.b.example"}, "superres.example", 200),
        ({"trusted_hosts": "superres.example, *.b.example"}, "a.b.example:443", 200),
        ({"trusted_hosts": "superres.example"}, "localhost", 421),
        ({"trusted_hosts": "a.example", "without_keys": True}, "b.example", 421),
        ({"trusted_hosts": "*"}, "anything", 200),
    ],
)
def test_hosts_are_set_or_any_where_keys_or_a_proxy_decide(
    serve: Callable[..., Any], srcnn_card: ModelCard, setting, host, status
):
    with serve({srcnn_card.name: BlurEngine(srcnn_card.geometry)}, **setting) as client:
        assert named(client, host).status_code == status


def test_a_request_without_a_host_is_answered_and_not_served(fake_service):
    with socket.create_connection(("127.0.0.1", fake_service.base_url.port), 60) as connection:
        connection.sendall(b"GET /version HTTP/1.0\r\n\r\n")
        assert connection.recv(1000).split()[1] in (b"421", b"400")
