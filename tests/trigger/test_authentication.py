"""Where the webhook's secrets come from, and that they stay there."""

import pytest

from coda.errors import ConfigError
from coda.trigger import authentication
from coda.trigger.authentication import Authenticator, RepeatedError, Secrets, UnauthorisedError, read_secrets, sign
from coda.trigger.events import Message

KEY = b"key-0123456789abcdef"


def test_secrets_come_from_variables_or_files_and_leave_the_environment(tmp_path):
    (tmp_path / "tokens").write_text("first-token-0123456\n\n  second-token-012345  \n")
    environment = {
        "CODA_WEBHOOK_TOKEN_FILE": str(tmp_path / "tokens"), "CODA_WEBHOOK_KEY": KEY.decode(), "HOME": "/h",
    }  # fmt: skip
    secrets = read_secrets(environment)
    assert secrets == Secrets((b"first-token-0123456", b"second-token-012345"), (KEY,))
    assert environment == {"HOME": "/h"}
    assert repr(secrets) == "Secrets(2 tokens, 1 keys)"


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({}, "Without a secret the webhook does not start"),
        ({"CODA_WEBHOOK_TOKEN": "  \n"}, "neither"),
        ({"CODA_WEBHOOK_TOKEN": "short-secret"}, "12 characters in line 1; expected at least 16"),
        ({"CODA_WEBHOOK_KEY_FILE": "/nowhere/key"}, "/nowhere/key: No such file or directory"),
    ],
)
def test_secrets_that_cannot_be_are_a_clear_error_that_does_not_show_them(environment, said):
    with pytest.raises(ConfigError) as caught:
        read_secrets(environment)
    assert said in str(caught.value)
    assert "short-secret" not in str(caught.value)


def signed(at, body=b"x"):
    return {"x-coda-timestamp": str(at), "x-coda-signature": f"sha256={sign(KEY, at, body)}"}


def test_signature_is_remembered_longer_than_it_is_good_and_then_forgotten(monkeypatch):
    clock = 1_000_000.0
    monkeypatch.setattr(authentication.time, "time", lambda: clock)
    monkeypatch.setattr(authentication.time, "monotonic", lambda: clock)
    authenticator = Authenticator(Secrets((), (KEY,)))
    headers = signed(int(clock) + authentication.WINDOW_S)
    with authenticator.admitted(headers, b"x", Message(())):
        pass
    clock += 2 * authentication.WINDOW_S
    with pytest.raises(RepeatedError), authenticator.admitted(headers, b"x", Message(())):
        pass
    clock += 1
    with pytest.raises(UnauthorisedError, match="older"), authenticator.admitted(headers, b"x", Message(())):
        pass
    with authenticator.admitted(signed(int(clock)), b"x", Message(())):
        pass
    assert len(authenticator._used) == 1


def test_memory_of_signatures_is_bounded(monkeypatch):
    monkeypatch.setattr(authentication, "MOST_REMEMBERED", 2)
    authenticator = Authenticator(Secrets((), (KEY,)))
    now = int(authentication.time.time())
    for seconds in range(2):
        with authenticator.admitted(signed(now - seconds), b"x", Message(())):
            pass
    with pytest.raises(UnauthorisedError, match="too many"), authenticator.admitted(signed(now - 2), b"x", Message(())):
        pass


def test_signature_is_the_one_that_openssl_makes():
    # printf '%s' '1700000000.{"a":1}' | openssl dgst -sha256 -hmac key-0123456789abcdef
    expected = "8a091117e0b1ccf5034d0d8c06ab42b29a4451a72f95b56f22afaf6bfb7af0d3"
    assert sign(KEY, 1_700_000_000, b'{"a":1}') == expected
