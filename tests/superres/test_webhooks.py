"""Signatures of webhooks, against the specification's own example and against forgers."""

import base64
import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from superres.errors import AccessDenied, BadRequest
from superres.webhooks import sign, verify

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OTHER = "whsec_" + base64.b64encode(bytes(24)).decode()
NOW = 1_614_265_330
BODY = b'{"test": 2432232314}'


def test_the_specifications_example_has_its_signature():
    """https://www.standardwebhooks.com has it, as every library that follows it."""
    headers = sign(BODY, "msg_p5jXN8AQM9LWM0D4loKWxJek", NOW, [SECRET])
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    assert headers["webhook-timestamp"] == str(NOW)
    verify(headers, BODY, SECRET, now=NOW)


@given(st.binary(), st.uuids().map(str), st.integers(0, 2**33))
def test_a_signature_is_the_hmac_of_id_time_and_body_and_verifies(body, message_id, timestamp):
    headers = sign(body, message_id, timestamp, [OTHER, SECRET])
    key = base64.b64decode(SECRET.removeprefix("whsec_"))
    digest = hmac.new(key, f"{message_id}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    expected = f"v1,{base64.b64encode(digest).decode()}"
    assert headers["webhook-signature"].split(" ")[1] == expected
    for secret in (SECRET, OTHER):
        verify({name.title(): one for name, one in headers.items()}, body, secret, now=timestamp)


SIGNED = sign(BODY, "1", NOW, [SECRET])


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"webhook-id": "2"}, "no webhook-signature"),
        ({"webhook-timestamp": str(NOW + 1)}, "no webhook-signature"),
        ({"webhook-timestamp": str(NOW - 301)}, "may differ from this clock by 300 s"),
        ({"webhook-timestamp": str(NOW + 301)}, "may differ from this clock by 300 s"),
        ({"webhook-timestamp": "now"}, "seconds since 1970"),
        ({"webhook-timestamp": "\u0661"}, "seconds since 1970"),
        ({"webhook-timestamp": "9" * 5000}, "seconds since 1970"),
        ({"webhook-timestamp": f"-{NOW}"}, "seconds since 1970"),
        ({"webhook-signature": ""}, "no webhook-signature"),
        ({"webhook-signature": "v1,"}, "no webhook-signature"),
        ({"webhook-signature": SIGNED["webhook-signature"].replace("v1,", "v2,")}, "no webhook"),
        ({"webhook-signature": "v1,é"}, "no webhook-signature"),
    ],
)
def test_what_is_not_signed_so_is_refused(changed, says):
    with pytest.raises(AccessDenied, match=says):
        verify(SIGNED | changed, BODY, SECRET, now=NOW)
    for name in changed:
        without = {key: value for key, value in SIGNED.items() if key != name}
        with pytest.raises(AccessDenied, match=f"has the header {name}"):
            verify(without, BODY, SECRET, now=NOW)


def test_another_body_or_secret_is_refused():
    for body, secret in ((BODY + b" ", SECRET), (b"", SECRET), (BODY, OTHER)):
        with pytest.raises(AccessDenied):
            verify(SIGNED, body, secret, now=NOW)
    with pytest.raises(BadRequest, match="whsec_ and 24 to 64"):
        verify(SIGNED, BODY, "whsec_", now=NOW)
