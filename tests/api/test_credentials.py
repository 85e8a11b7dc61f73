"""Who may call: signatures, tokens, the demo account, keys that end."""

from __future__ import annotations

import json
import stat
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.api.conftest import make_key
from tests.support.daemon import Daemon
from tests.support.http import Caller, signed

Keys = dict[str, dict[str, Any]]


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def test_a_signed_request_acts_as_the_keys_account(call: Callable[..., Caller],
                                                   keys: Keys) -> None:
    got = call("MAKER2")("GET", "/v1/account")
    assert got.status == 200
    assert (got.json["username"], got.json["account_id"], got.json["role"], got.json["key"]) == (
        "MAKER2", 2, "trader", keys["MAKER2"]["key"])


def test_a_token_does_the_same(call: Callable[..., Caller], keys: Keys) -> None:
    bearer = {"Authorization": f"Bearer {keys['TAKER1']['token']}"}
    assert call()("GET", "/v1/account", headers=bearer).json["username"] == "TAKER1"


def test_without_credentials_the_demo_account_acts_on_loopback(
        venue: Daemon, call: Callable[..., Caller]) -> None:
    assert call()("GET", "/v1/account").json["username"] == "MAKER1"
    venue.wait_for_line("requests without credentials act as the demo account", account="MAKER1")


@pytest.mark.parametrize(("change", "code"), [
    ({"X-MATCHD-SIGNATURE": "0" * 64}, "bad_signature"),
    ({"X-MATCHD-SIGNATURE": ""}, "bad_signature"),
    ({"X-MATCHD-KEY": "0123456789abcdef"}, "unknown_key"),
    ({"X-MATCHD-TIMESTAMP": "soon"}, "bad_timestamp"),
    ({"X-MATCHD-TIMESTAMP": "1" * 40}, "bad_timestamp"),
    ({"X-MATCHD-TIMESTAMP": "1700000000000"}, "bad_signature"),
])
def test_wrong_headers_are_refused(call: Callable[..., Caller], keys: Keys,
                                   change: dict[str, str], code: str) -> None:
    headers = signed(keys["MAKER1"], "GET", "/v1/account", b"") | change
    got = call()("GET", "/v1/account", headers=headers)
    assert (got.status, got.code) == (401, code)
    assert got.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize(("off_ms", "status"), [(-60_000, 401), (60_000, 401), (-3_000, 200),
                                                (3_000, 200)])
def test_a_signature_is_good_near_its_time(call: Callable[..., Caller], keys: Keys,
                                           off_ms: int, status: int) -> None:
    headers = signed(keys["MAKER1"], "GET", "/v1/account", b"", now_ms() + off_ms)
    got = call()("GET", "/v1/account", headers=headers)
    assert got.status == status
    assert got.code == ("" if status == 200 else "timestamp_outside_window")


@pytest.mark.parametrize(("method", "target", "body"), [
    ("POST", "/v1/account", b""), ("GET", "/v1/orders", b""), ("GET", "/v1/account?limit=2", b""),
    ("GET", "/v1/account", b"{}"), ("get", "/v1/account", b""), ("GET", "v1/account", b""),
])
def test_a_signature_covers_method_path_query_and_body(
        call: Callable[..., Caller], keys: Keys, method: str, target: str, body: bytes) -> None:
    other = signed(keys["MAKER1"], method, target, body)
    assert call()("GET", "/v1/account", headers=other).code == "bad_signature"


@pytest.mark.parametrize("header", ["Bearer", "Bearer x", "Basic TUFLRVIxOmRlbW8=",
                                    "Bearer \xff\xfe.0", "Bearer {key}.{wrong}"])
def test_wrong_tokens_are_refused(call: Callable[..., Caller], keys: Keys, header: str) -> None:
    text = header.format(key=keys["MAKER1"]["key"], wrong="0" * 64)
    got = call()("GET", "/v1/account", headers={"Authorization": text})
    assert (got.status, got.code) == (401, "bad_token")


def test_a_page_of_another_site_cannot_act_as_the_demo_account(
        venue: Daemon, call: Callable[..., Caller]) -> None:
    own = f"127.0.0.1:{venue.api_port}"
    for headers in ({"Origin": "http://elsewhere.example"}, {"Host": "elsewhere.example"},
                    {"Origin": "null"}):
        got = call()("GET", "/v1/account", headers=headers)
        assert (got.status, got.code) == (403, "not_local"), headers
    for headers in ({"Origin": f"http://{own}"}, {"Host": f"localhost:{venue.api_port}"},
                    {"Host": "[::1]:80"}):
        assert call()("GET", "/v1/account", headers=headers).status == 200, headers


def test_many_failures_are_told_to_wait(venue: Daemon, call: Callable[..., Caller],
                                        keys: Keys) -> None:
    wrong = {"Authorization": "Bearer x"}
    caller = call()
    answers = [caller("GET", "/v1/account", headers=wrong) for _ in range(200)]
    late = [got for got in answers if got.status == 429]
    assert {got.status for got in answers} == {401, 429}
    assert late[0].code == "rate_limited"
    assert late[0].headers["retry-after"] == "1"
    # Who has a good key is not shut out by a neighbour.
    good = {"Authorization": f"Bearer {keys['MAKER1']['token']}"}
    assert caller("GET", "/v1/account", headers=good).status == 200


def test_a_revoked_key_is_refused_at_once_and_its_neighbour_is_not(
        make_daemon: Callable[..., Daemon]) -> None:
    # A venue of its own: what other tests failed with counts against our address.
    venue = make_daemon().start()
    made = make_key(venue, "MAKER2", "--note", "to be revoked")
    other = make_key(venue, "MAKER2")
    caller = Caller(venue.api_port, made)
    assert caller("GET", "/v1/account").status == 200
    assert venue.run("key", "revoke", made["key"]).returncode == 0
    assert caller("GET", "/v1/account").code == "key_revoked"
    bearer = {"Authorization": f"Bearer {made['token']}"}
    assert Caller(venue.api_port, None)("GET", "/v1/account", headers=bearer).code == "key_revoked"
    assert Caller(venue.api_port, other)("GET", "/v1/account").status == 200
    listed = json.loads(venue.run("key", "list", "--json").stdout)
    row = next(one for one in listed if one["key"] == made["key"])
    assert (row["state"], row["account"], row["note"]) == ("revoked", "MAKER2", "to be revoked")
    assert "secret" not in row


def test_a_file_that_changes_by_itself_is_read_again(venue: Daemon) -> None:
    made = make_key(venue, "MAKER2")
    path = venue.data_dir / "keys.json"
    kept = path.read_bytes()
    rows = [one for one in json.loads(kept) if one["id"] != made["key"]]
    path.write_text(json.dumps(rows))
    deadline = time.monotonic() + 10
    while (code := Caller(venue.api_port, made)("GET", "/v1/account").code) != "unknown_key":
        assert time.monotonic() < deadline, code
        time.sleep(0.05)
    path.write_bytes(kept)
    while Caller(venue.api_port, made)("GET", "/v1/account").status != 200:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_key_ends_on_its_day(venue: Daemon) -> None:
    made = make_key(venue, "MAKER2", "--days", "1")
    assert Caller(venue.api_port, made)("GET", "/v1/account").status == 200
    path = venue.data_dir / "keys.json"
    rows = json.loads(path.read_bytes())
    for row in rows:
        if row["id"] == made["key"]:
            row["expires"] = time.time_ns() - 1
    path.write_text(json.dumps(rows))
    deadline = time.monotonic() + 10
    while (code := Caller(venue.api_port, made)("GET", "/v1/account").code) != "key_expired":
        assert time.monotonic() < deadline, code
        time.sleep(0.05)


def test_nothing_secret_is_kept_per_key_and_the_files_are_the_owners(
        venue: Daemon, keys: Keys) -> None:
    text = (venue.data_dir / "keys.json").read_text()
    for key in keys.values():
        assert key["key"] in text
        assert key["secret"] not in text
        assert key["token"].split(".")[1] not in text
    for name in ("keys.json", "master.secret"):
        assert stat.S_IMODE((venue.data_dir / name).stat().st_mode) & 0o077 == 0, name


def test_roles_bound_what_a_key_may_do(venue: Daemon, call: Callable[..., Caller]) -> None:
    reader = Caller(venue.api_port, make_key(venue, "MAKER1", "--role", "read-only"))
    assert reader("GET", "/v1/account").json["role"] == "read-only"
    got = venue.run("key", "make", "MAKER1", "--role", "admin")
    assert got.returncode == 2
    assert "MAKER1 is trader" in got.stderr
    assert venue.run("key", "make", "NOBODY").returncode == 2


def test_a_master_secret_that_others_can_read_is_refused(
        make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon()
    made = make_key(daemon, "MAKER1")
    master = daemon.data_dir / "master.secret"
    master.chmod(0o644)
    daemon.start()
    assert daemon.wait_for_line("keys not read")["error"].startswith(str(master))
    assert Caller(daemon.api_port, made)("GET", "/v1/account").code == "unknown_key"
    assert daemon.run("key", "make", "MAKER1").returncode == 1
    master.chmod(0o600)
    daemon.run("key", "make", "MAKER1")
    assert Caller(daemon.api_port, made)("GET", "/v1/account").status == 200


def test_keys_outlive_the_daemon(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon().start()
    made = make_key(daemon, "TAKER1")
    daemon.kill()
    daemon.start()
    assert Caller(daemon.api_port, made)("GET", "/v1/account").json["username"] == "TAKER1"
