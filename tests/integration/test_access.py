"""Keys, limits, and what browsers are told."""

import logging
import re
import time
from collections.abc import Iterator
from types import SimpleNamespace

import httpx
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from app.access import Access, make_key, read_keys
from app.api.middleware import HEADERS
from app.settings import Settings
from superres import errors
from superres.cli import cli
from superres.client import Client
from superres.errors import BadRequest, EngineError, ModelMissing
from superres.models.card import ModelCard
from tests.engines import BlurEngine
from tests.integration.test_errors import assert_problem
from tests.pictures import plain
from tests.serving import serve_app, wait_until_ready

KEYS = {
    "alice": make_key("alice"),
    "ops": make_key("ops", admin=True),
    "brief": make_key("brief", limit="3/5 seconds"),
}
SETTING = ", ".join(entry for _, entry in KEYS.values())


def bearer(name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {KEYS[name][0]}"}


@pytest.fixture(scope="module")
def guarded(srcnn_card: ModelCard) -> Iterator[httpx.Client]:
    """A service with keys."""
    settings = Settings(device="cpu", api_keys=SETTING, rate_limit="1000/minute")
    with serve_app(settings, {srcnn_card.name: BlurEngine(srcnn_card.geometry)}) as client:
        wait_until_ready(client)
        yield client


GUARDED = [
    ("POST", "/enhance"),
    ("POST", "/compare"),
    ("GET", "/compare"),
    ("GET", "/models"),
    ("GET", "/version"),
    ("POST", "/admin/reload"),
    ("GET", "/jobs"),
    ("GET", "/jobs/{job_id}"),
    ("DELETE", "/jobs/{job_id}"),
    ("GET", "/jobs/{job_id}/events"),
    ("GET", "/jobs/{job_id}/result"),
]
NO_JOB = "00000000-0000-4000-8000-000000000000"


@pytest.mark.parametrize(("method", "path"), GUARDED)
def test_without_a_key_and_with_a_wrong_one_the_answer_is_401(guarded, method, path):
    for headers, says in (
        ({}, "Authorization: Bearer KEY"),
        ({"Authorization": "Basic YWxpY2U6"}, "Authorization: Bearer KEY"),
        ({"Authorization": "Bearer superres_guess"}, "not one that is accepted"),
    ):
        answer = guarded.request(method, path.format(job_id=NO_JOB), headers=headers)
        assert_problem(answer, 401, "unauthorized", says)
        assert answer.headers["www-authenticate"] == 'Bearer realm="superres"'


def test_nothing_else_asks_for_a_key(guarded):
    spec = httpx.get(guarded.base_url.join("/openapi.json"))
    operations = [
        (method.upper(), path)
        for path, methods in spec.json()["paths"].items()
        for method, operation in methods.items()
        if operation.get("security")
    ]
    assert sorted(operations) == sorted(GUARDED)
    for path in (
        "/openapi.json",
        "/",
        "/healthz",
        "/readyz",
        "/metrics",
        "/static/page.js",
        "/docs",
    ):
        assert httpx.get(guarded.base_url.join(path)).status_code == 200
    assert guarded.get("/samples/coffee?thumbnail=true").status_code == 200


def test_a_body_is_not_read_of_a_caller_without_a_key(guarded):
    answer = guarded.post("/enhance?scale=9", content=b"no picture")
    assert_problem(answer, 401, "unauthorized", "no key was sent")


def test_with_a_key_a_picture_is_enhanced(guarded):
    answer = guarded.post("/enhance", content=plain(), headers=bearer("alice"))
    assert answer.status_code == 200
    assert answer.headers["ratelimit-policy"] == '"key";q=1000;w=60'
    assert re.fullmatch(r'"key";r=\d+;t=\d+', answer.headers["ratelimit"])


@pytest.mark.slow
def test_over_its_limit_a_key_is_told_when_to_come_back_and_that_is_right(guarded):
    call = {"content": plain(), "headers": bearer("brief")}
    left = [guarded.post("/enhance", **call).headers["ratelimit"] for _ in range(3)]
    assert [one.split(";")[1] for one in left] == ["r=2", "r=1", "r=0"]
    refused = guarded.post("/enhance", **call)
    assert_problem(refused, 429, "too-many-requests", "'brief' is good for 3 requests in 5 s")
    assert guarded.post("/enhance", content=plain(), headers=bearer("alice")).status_code == 200
    time.sleep(int(refused.headers["retry-after"]))
    again = [guarded.post("/enhance", **call).status_code for _ in range(4)]
    assert again == [200, 200, 200, 429]


@settings(max_examples=50, deadline=None)
@example(1, 5, [0.0, 5.0])
@given(
    st.integers(1, 5),
    st.integers(1, 10),
    st.lists(st.floats(0, 6), min_size=1, max_size=40),
)
def test_in_no_period_are_more_accepted_and_who_comes_back_as_told_is(amount, period, pauses):
    (key,) = read_keys(make_key("anyone", limit=f"{amount}/{period} seconds")[1], "1/second")
    clock = SimpleNamespace(now=1e9)
    stopped = SimpleNamespace(time=lambda: clock.now)
    accepted: list[float] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("limits.storage.memory.time", stopped)
        patch.setattr("app.access.time", stopped)
        access = Access((key,))
        for pause in pauses:
            clock.now += pause
            allowance = access.count(key)
            if not allowance.allowed:
                assert allowance.remaining == 0
                clock.now += allowance.seconds + 1e-3
                allowance = access.count(key)
                assert allowance.allowed
            accepted.append(clock.now)
            window = [one for one in accepted if one > clock.now - period]
            assert len(window) == amount - allowance.remaining <= amount


def test_a_job_is_there_for_the_key_that_sent_it_alone(guarded):
    headers = bearer("alice") | {"Prefer": "respond-async"}
    job = guarded.post("/enhance", content=plain(), headers=headers).headers["location"]
    for method, path in (("GET", job), ("GET", f"{job}/result"), ("DELETE", job)):
        answer = guarded.request(method, path, headers=bearer("ops"))
        assert_problem(answer, 404, "unknown-job", job.rpartition("/")[2])
    assert guarded.get(job, headers=bearer("alice")).status_code == 200
    assert guarded.delete(job, headers=bearer("alice")).status_code == 204


def test_an_idempotency_key_is_each_callers_own_and_so_is_the_list_of_jobs(guarded):
    asked = {"Prefer": "respond-async", "Idempotency-Key": "mine"}
    made = {}
    for name in ("alice", "ops"):
        answer = guarded.post("/enhance", content=plain(), headers=asked | bearer(name))
        made[name] = answer.json()["id"]
    assert made["alice"] != made["ops"]
    for name, job_id in made.items():
        page = guarded.get("/jobs", headers=bearer(name)).json()
        assert [job["id"] for job in page["jobs"]] == [job_id]
        guarded.delete(f"/jobs/{job_id}", headers=bearer(name))


def test_only_an_admins_key_reloads(guarded):
    answer = guarded.post("/admin/reload", headers=bearer("alice"))
    assert_problem(answer, 403, "forbidden", "'alice' is not an admin's")
    answer = guarded.post("/admin/reload", headers=bearer("ops"))
    assert answer.status_code == 200
    assert answer.json()["fresh"] == []


def test_without_any_keys_nobody_is_an_admin(fake_service):
    answer = fake_service.post("/admin/reload", headers=bearer("ops"))
    assert_problem(answer, 401, "unauthorized", "started without keys")


@pytest.mark.slow
def test_the_client_sends_its_key_and_waits_as_its_limit_says(guarded):
    url = str(guarded.base_url)
    with Client(url) as client, pytest.raises(errors.Unauthorized, match="no key was sent"):
        client.enhance(plain())
    with Client(url, key=KEYS["alice"][0]) as client:
        assert client.enhance(plain()).size == (30, 60)
    with Client(url, key=KEYS["brief"][0], retries=0) as impatient:

        def hurry() -> None:
            for _ in range(4):
                impatient.enhance(plain())

        with pytest.raises(errors.TooManyRequests) as refusal:
            hurry()
    assert 1 <= refusal.value.retry_after <= 5
    with Client(url, key=KEYS["brief"][0], retries=1) as patient:
        assert patient.enhance(plain()).size == (30, 60)


class Capricious(BlurEngine):
    """A device that fails as told."""

    failure: Exception | None = None

    def predict(self, tiles):
        if self.failure is not None:
            raise self.failure
        return super().predict(tiles)


@pytest.mark.slow
def test_no_key_is_ever_in_a_log_an_answer_or_a_metric(
    serve, srcnn_card: ModelCard, caplog: pytest.LogCaptureFixture, monkeypatch
):
    """Every error that a caller can meet, with each key that there is, and one that is not."""
    caplog.set_level(logging.DEBUG)
    engine = Capricious(srcnn_card.geometry)
    keys = [key for key, _ in KEYS.values()] + ["superres_is-no-key"]
    said = ""
    met = set()
    with (
        serve(
            {srcnn_card.name: engine},
            api_keys=SETTING,
            rate_limit="1000/minute",
            max_body_bytes=5000,
        ) as service,
        httpx.Client(base_url=service.base_url) as client,
    ):

        def ask(method: str, path: str, **parts) -> None:
            nonlocal said
            more = parts.pop("headers", {})
            for key in keys:
                headers = {"Authorization": f"Bearer {key}"} | more
                answer = client.request(method, path, headers=headers, **parts)
                said += f"{answer.headers} {answer.text}"
                if answer.status_code >= 400:
                    met.add(answer.json()["type"].rpartition(":")[2])

        for _ in range(2):
            ask("POST", "/enhance", content=plain())
        ask("POST", "/enhance", content=b"hello")
        ask("POST", "/enhance", content=bytes(6000))
        ask("POST", "/enhance?scale=9", content=plain())
        ask("POST", "/enhance?model=none", content=plain())
        ask("POST", "/enhance", content=plain(), headers={"Accept": "video/mp4"})
        ask("POST", "/enhance", content=plain(), headers={"X-Deadline-Ms": "x"})
        ask("POST", "/enhance", files={"x": b"y"})
        ask("GET", "/nowhere")
        ask("PUT", "/enhance")
        ask("POST", "/admin/reload")
        engine.failure = EngineError("broken")
        ask("POST", "/enhance", content=plain())
        engine.failure = RuntimeError("broken")
        ask("POST", "/enhance", content=plain())
        monkeypatch.setattr("app.inference.enhance._enhancer", None)
        ask("POST", "/enhance", content=plain())
        said += client.get("/metrics").text
    said += caplog.text + str(caplog.records)
    assert "broken" in said
    assert met >= {
        "unauthorized",
        "forbidden",
        "too-many-requests",
        "not-found",
        "method-not-allowed",
        "not-acceptable",
        "malformed-request",
        "bad-parameter",
        "body-too-large",
        "unsupported-format",
        "unknown-model",
        "engine-failed",
        "internal-error",
    }
    for key in keys:
        assert key not in said
        assert key.removeprefix("superres_") not in said


def test_a_setting_that_is_none_is_not_repeated():
    key, entry = make_key("alice")
    for setting in (key, f"alice:{key}", f"{entry}, bob:{key}", f"{entry}:boss"):
        with pytest.raises(BadRequest, match=r"SUPERRES_API_KEYS is not|a limit is as") as error:
            read_keys(setting, "1/second")
        assert key not in str(error.value)
    with pytest.raises(BadRequest, match="two keys of the name 'alice'"):
        read_keys(f"{entry},{entry}", "1/second")
    with pytest.raises(BadRequest, match="a limit is as 120/minute or 5/second, not 'often'"):
        read_keys(entry, "often")


def test_the_command_makes_a_key_that_its_entry_accepts():
    run = CliRunner().invoke(cli, ["key", "carol", "--admin", "--limit", "7/hour"])
    key, entry = (line.strip() for line in run.stdout.splitlines()[1::2])
    (known,) = read_keys(entry, "1/second")
    assert (known.name, known.admin, known.limit.amount) == ("carol", True, 7)
    assert key not in entry
    with pytest.raises(BadRequest, match="small letters"):
        make_key("Carol!")


def test_beyond_loopback_the_service_wants_keys_or_a_word():
    def error(*arguments: str, **environment: str) -> BaseException | None:
        run = CliRunner(env={"SUPERRES_MODELS": "/nowhere"} | environment)
        return run.invoke(cli, ["serve", "--host", "0.0.0.0", *arguments]).exception

    for refused in (error(), error(SUPERRES_API_KEYS=" , ")):
        assert isinstance(refused, BadRequest)
        assert "SUPERRES_API_KEYS" in str(refused)
        assert "--without-keys" in str(refused)
    # With either it goes on, to what is wrong next.
    for started in (
        error("--without-keys"),
        error(SUPERRES_WITHOUT_KEYS="true"),
        error(SUPERRES_API_KEYS=SETTING),
        error("--host", "::1"),
    ):
        assert isinstance(started, ModelMissing), started


def test_every_answer_is_for_this_site_alone(guarded):
    with httpx.Client(base_url=guarded.base_url) as client:
        answers = [
            client.get("/"),
            client.get("/docs"),
            client.get("/metrics"),
            client.get("/static/page.js"),
            client.get("/samples/coffee?thumbnail=true"),
            client.get("/nowhere"),
            client.post("/enhance"),
            client.post("/enhance", content=plain(), headers=bearer("alice")),
            client.options("/enhance", headers={"Origin": "https://example.org"}),
        ]
    for answer in answers:
        for name in HEADERS:
            assert name in answer.headers, answer.request.url
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
        assert "access-control-allow-origin" not in answer.headers


def test_origins_that_are_named_may_call(serve, srcnn_card: ModelCard):
    engines = {srcnn_card.name: BlurEngine(srcnn_card.geometry)}
    origins = "https://a.example, https://b.example"
    with serve(engines, api_keys=SETTING, cors_origins=origins) as service:
        for origin, allowed in (("https://b.example", True), ("https://c.example", False)):
            asked = {
                "Origin": origin,
                "Access-Control-Request-Method": "POST",
                "Access-Control-Request-Headers": "authorization",
            }
            with httpx.Client(base_url=service.base_url) as client:
                preflight = client.options("/enhance", headers=asked)
            assert ("access-control-allow-origin" in preflight.headers) == allowed
            answer = service.post(
                "/enhance", content=plain(), headers={"Origin": origin} | bearer("alice")
            )
            assert answer.headers.get("access-control-allow-origin") == (
                origin if allowed else None
            )
