"""The ETag of what POST /enhance would make: a retry that has the answer costs no work."""

import warnings
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest

from app.api import etag as etags
from app.api.routes.enhance import EnhanceQuery
from app.inference.enhance import EnhanceOptions
from app.settings import Settings
from superres.models.card import ModelCard
from tests.engines import HeldEngine
from tests.integration.test_access import SETTING, bearer
from tests.integration.test_callers import gauge
from tests.integration.test_errors import assert_problem
from tests.integration.test_jobs import ASYNC, Device, order, path, wait
from tests.pictures import plain
from tests.serving import serve_app, wait_until, wait_until_ready


@pytest.fixture(scope="module")
def device(srcnn_card: ModelCard) -> Device:
    return Device(srcnn_card)


@pytest.fixture(scope="module")
def counted(device: Device, srcnn_card: ModelCard) -> Iterator[httpx.Client]:
    """A service with keys, whose device counts its calls."""
    settings = Settings(device="cpu", api_keys=SETTING, rate_limit="1000/minute")
    with serve_app(settings, {srcnn_card.name: device}) as client:
        wait_until_ready(client)
        client.headers.update(bearer("alice"))
        yield client


def enhance(client: httpx.Client, known: str = "", content: bytes | None = None, **params):
    headers = {"If-None-Match": known} if known else {}
    return client.post("/enhance", content=content or plain(), params=params, headers=headers)


def test_a_retry_that_has_the_answer_costs_no_work(counted, device):
    made = enhance(counted)
    tag = made.headers["etag"]
    assert tag.startswith('W/"')
    assert enhance(counted).headers["etag"] == tag
    calls = device.calls
    for known in (tag, tag.removeprefix("W/"), f'"other", {tag}', f'W/"x",{tag}'):
        answer = enhance(counted, known)
        assert (answer.status_code, answer.content) == (304, b"")
        assert answer.headers["etag"] == tag
        assert answer.headers["vary"] == made.headers["vary"] == "Accept"
        assert "date" in answer.headers
        assert not {"content-type", "content-digest", "x-model"} & answer.headers.keys()
    form = counted.post("/enhance", files={"file": plain()}, headers={"If-None-Match": tag})
    assert form.status_code == 304
    assert device.calls == calls
    for known in ('"other"', "*", "", tag.strip('W/"')[:-1]):
        assert enhance(counted, known).status_code == 200
    assert device.calls > calls


OTHER_VALUES = {
    "scale": 2,
    "width": 200,
    "height": 210,
    "fit": "exact",
    "model": "bicubic",
    "format": "webp",
    "quality": 50,
    "icc": "srgb",
    "metadata": "strip",
    "ensemble": True,
    "proof": True,
    "fallback": "auto",
}


def test_whatever_changes_the_answer_changes_the_tag(counted):
    assert OTHER_VALUES.keys() == EnhanceQuery.model_fields.keys() - {"dry_run", "callback"}
    content = plain(80, 80)
    tags = [enhance(counted, content=content).headers["etag"]]
    box = {"width": 100, "height": 120}
    for name, value in OTHER_VALUES.items():
        others = box if name == "fit" else {}
        tags.append(enhance(counted, content=content, **others, **{name: value}).headers["etag"])
    tags.append(enhance(counted, content=content, **box).headers["etag"])
    tags.append(enhance(counted, content=content + b"\0").headers["etag"])
    jpeg = counted.post("/enhance", content=content, headers={"Accept": "image/jpeg"})
    tags.append(jpeg.headers["etag"])
    assert len(set(tags)) == len(tags)
    # By another way, the same answer has the same tag.
    assert enhance(counted, content=content, format="jpeg").headers["etag"] == tags[-1]
    same = [enhance(counted, content=content, scale=s).headers["etag"] for s in ("3", "3.0")]
    assert len(set(same)) == 1


def tag_of(settings: Settings | None = None, **of) -> str:
    request = SimpleNamespace(
        options=EnhanceOptions(),
        output_format="png",
        cards=(
            SimpleNamespace(name="a", short_hash="1"),
            SimpleNamespace(name="b", short_hash="2"),
        ),
    )
    vars(request).update(of)
    return etags.enhanced_etag("0", request, settings or Settings())


def test_so_do_options_models_and_settings_that_are_added():
    tags = {tag_of(), tag_of(output_format="webp"), tag_of(cards=())}
    options = EnhanceOptions.model_fields.keys() - {"format"}  # that is output_format
    for option in options:
        changed = EnhanceOptions.model_construct(**{option: "another"})
        with warnings.catch_warnings(action="ignore"):  # not every option is text
            tags.add(tag_of(options=changed))
    for hashes in ("34", "14", "32"):
        cards = (SimpleNamespace(name=n, short_hash=h) for n, h in zip("ab", hashes, strict=True))
        tags.add(tag_of(cards=tuple(cards)))
    assert len(tags) == 3 + len(options) + 3
    for name in Settings.model_fields.keys() - {"api_keys", "callback_secret", "jobs_database"}:
        changed = Settings().model_copy(update={name: "another"})
        with warnings.catch_warnings(action="ignore"):  # not every setting is text
            tags.add(tag_of(changed))
    assert len(tags) == 3 + len(options) + 3 + len(Settings.model_fields) - 3


def test_so_does_the_code(monkeypatch, tmp_path: Path):
    tag = tag_of()
    with monkeypatch.context() as patch:
        patch.setattr(etags, "code_version", lambda: "another")
        assert tag_of() != tag
    monkeypatch.setattr(etags, "PROJECT", tmp_path)
    for folder in ("app", "superres/models"):
        (tmp_path / folder).mkdir(parents=True)
    versions = [etags.code_version.__wrapped__()]
    for file in ("app/a.py", "superres/b.py", "superres/models/selection.toml"):
        for text in ("1", "2"):
            (tmp_path / file).write_text(text)
            versions.append(etags.code_version.__wrapped__())
    (tmp_path / "app/a.py").rename(tmp_path / "app/c.py")
    versions.append(etags.code_version.__wrapped__())
    monkeypatch.setattr(etags, "version", lambda name: "99")
    versions.append(etags.code_version.__wrapped__())
    assert len(set(versions)) == len(versions)
    (tmp_path / "superres/models/weights.bin").write_bytes(b"1")  # the cards have their hashes
    assert etags.code_version.__wrapped__() == versions[-1]


@pytest.mark.slow
def test_a_full_service_still_knows_what_a_caller_has(serve, srcnn_card: ModelCard):
    held = HeldEngine(srcnn_card)
    with serve({srcnn_card.name: held}, max_requests=1) as client:
        held.go.set()
        tag = enhance(client).headers["etag"]
        held.go.clear()
        job = order(client, plain(50, 40))
        wait_until(lambda: gauge(client, "superres_pictures_in_progress") == 1)
        assert enhance(client).status_code == 503
        assert enhance(client, tag).status_code == 304
        held.go.set()
        wait(client, job)


def test_keys_limits_and_checks_come_first(counted):
    tag = enhance(counted).headers["etag"]
    known = {"If-None-Match": tag}
    stranger = httpx.post(counted.base_url.join("/enhance"), content=plain(), headers=known)
    assert stranger.status_code == 401
    for _ in range(3):
        brief = counted.post("/enhance", content=plain(), headers=known | bearer("brief"))
        assert brief.status_code == 304
    brief = counted.post("/enhance", content=plain(), headers=known | bearer("brief"))
    assert_problem(brief, 429, "too-many-requests", "")
    assert_problem(enhance(counted, tag, scale=9), 422, "bad-parameter", "scale")
    assert_problem(enhance(counted, tag, content=b"no picture"), 415, "unsupported-format", "")


def test_a_job_for_what_a_caller_has_is_not_made_and_a_result_is_not_sent_again(counted):
    tag = enhance(counted).headers["etag"]
    headers = ASYNC | {"If-None-Match": tag}
    before = counted.get("/jobs").json()["jobs"]
    assert counted.post("/enhance", content=plain(), headers=headers).status_code == 304
    assert counted.get("/jobs").json()["jobs"] == before
    job = order(counted, plain())
    wait(counted, job)
    url = path(job, "/result")
    own = counted.get(url).headers["etag"]
    assert not own.startswith("W/")
    for asked in ({}, {"Range": "bytes=0-9"}, {"Range": "bytes=99999999-"}):
        again = counted.get(url, headers={"If-None-Match": f'"x", {own}'} | asked)
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["etag"] == own
    assert counted.get(url, headers={"If-None-Match": tag}).status_code == 200
    counted.delete(path(job))


def test_a_dry_run_has_no_tag_as_it_says_how_busy_the_service_is(counted):
    tag = enhance(counted).headers["etag"]
    dry = enhance(counted, tag, dry_run=True)
    assert dry.status_code == 200
    assert "etag" not in dry.headers
