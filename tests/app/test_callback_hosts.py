"""Which URLs the service may call: those that the operator allows, however they are written."""

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.jobs.callback_hosts import check_callback, read_hosts
from app.main import create_app
from app.settings import Settings
from superres.errors import BadRequest

SETTING = "hooks.example.org, hooks.example.org:8443, http://internal:8080, [::1]:9000, 127.0.0.1"
SECRET = "whsec_" + "c2VjcmV0" * 4


@pytest.mark.parametrize(
    "url",
    [
        "https://hooks.example.org/a?b=c",
        "https://HOOKS.example.org:443/",
        "https://hooks.example.org:8443",
        "http://internal:8080/x",
        "http://[::1]:9000/x",
        "https://[::1]:9000/x",
        "http://127.0.0.1/",
        "https://127.0.0.1/",
    ],
)
def test_a_url_of_an_allowed_host_may_be_called(url):
    check_callback(url, read_hosts(SETTING))


@pytest.mark.parametrize(
    "url",
    [
        "http://hooks.example.org/",  # not encrypted
        "https://hooks.example.org:444/",
        "https://hooks.example.org:0/",
        "https://example.org/",
        "https://a.hooks.example.org/",
        "https://hooks.example.org.evil.example/",
        "https://hooks.example.org./",
        "https://hooks.example.org@evil.example/",
        "https://hooks.example.org\\@evil.example/",
        "https://user:password@hooks.example.org/",
        "https://hooks.example.org/#fragment",
        "https://internal:8080/",
        "http://internal/",
        "http://[::1]/",
        "http://169.254.169.254/latest/meta-data",
        "http://127.0.0.1:8000/",
        "http://127.1/",
        "http://2130706433/",
        "http://0x7f.1/",
        "http://[::ffff:127.0.0.1]/",
        "ftp://hooks.example.org/",
        "file:///etc/passwd",
        "//hooks.example.org/",
        "https:hooks.example.org",
        "https:///hooks.example.org",
        "hooks.example.org",
        "",
        "https://hooks.example.org/\r\nX: y",
        "https://hooks.example.org/" + "x" * 2048,
        "https://[::1/",
    ],
)
def test_no_other_may(url):
    with pytest.raises(BadRequest, match="callback: ") as refused:
        check_callback(url, read_hosts(SETTING))
    assert "password" not in str(refused.value).replace("no user, password", "")
    with pytest.raises(BadRequest, match="SUPERRES_CALLBACK_HOSTS"):
        check_callback(url, ())


PARTS = (
    *("hooks.example.org", "evil.example", "127.0.0.1", "[::1]", "user", "8443", "9000", "0"),
    *("@", ":", "/", "//", "\\", "#", "?", ".", "%2e", "\u3002", "\t", " "),
)
AUTHORITIES = st.lists(st.sampled_from(PARTS), max_size=6).map("".join)


@given(st.sampled_from(["https://", "http://", "HTTPS://", "https:/", "//", "https:"]), AUTHORITIES)
def test_whatever_passes_is_connected_to_an_allowed_host(scheme, authority):
    """By what the client itself makes of the URL."""
    url = scheme + authority
    try:
        check_callback(url, read_hosts(SETTING))
    except BadRequest:
        return
    sent = httpx.Request("POST", url).url
    default = {"https": 443, "http": 80}[sent.scheme]
    assert (sent.scheme, sent.raw_host, sent.port or default) in {
        ("https", b"hooks.example.org", 443),
        ("https", b"hooks.example.org", 8443),
        ("http", b"::1", 9000),
        ("https", b"::1", 9000),
        ("http", b"127.0.0.1", 80),
        ("https", b"127.0.0.1", 443),
    }


@pytest.mark.parametrize(
    "setting",
    ["*", "*.example.org", "https://a/path", "user@a", "a b", "a:x", "ftp://a", "::1", "a?b"],
)
def test_a_setting_that_is_no_list_of_hosts_stops_the_start(setting):
    with pytest.raises(BadRequest, match=r"SUPERRES_CALLBACK_HOSTS is \[http://\]HOST"):
        create_app(Settings(callback_hosts=f"example.org,{setting}", callback_secret=SECRET))


def test_so_does_a_missing_or_mistyped_secret():
    with pytest.raises(BadRequest, match="needs SUPERRES_CALLBACK_SECRET"):
        create_app(Settings(callback_hosts="example.org"))
    for secret in ("password1", "whsec_short", "whsec_" + "!" * 40, SECRET.removeprefix("whsec_")):
        with pytest.raises(BadRequest, match="the secret of webhooks is whsec_") as refused:
            create_app(Settings(callback_hosts="example.org", callback_secret=secret))
        assert secret not in str(refused.value)
