"""TLS on every door, certificates of clients, and accounts that are bound to places."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import http.client
import json
import socket
import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import websockets
from websockets.asyncio.client import connect

from cython_core.soupbin import build_login
from engine import listen
from engine.accounts import Account, Certificate, load
from engine.clients import FeedClient, HttpClient, LoginRejectedError, OrderEntryClient
from engine.clients.errors import ConnectionLostError
from engine.config import TlsConfig
from engine.errors import ConfigError
from engine.tls import Tls
from tests.sessions.conftest import StartVenue
from tests.support.certificates import Certificates
from tests.support.daemon import Daemon
from tests.support.http import Caller
from tests.support.venue import Venue

DOORS = {"order_entry__tls": True, "feed__tls": True, "api__tls": True}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


def settings_of(made: Certificates, **more: Any) -> dict[str, Any]:
    """Every door with TLS."""
    return DOORS | {"tls__certificate_file": made.server_cert,
                    "tls__key_file": made.server_key} | more


def trusting(authority: Path, client: tuple[Path, Path] | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(authority))
    if client is not None:
        context.load_cert_chain(*map(str, client))
    return context


def client_of(venue: Venue, user: str = "MAKER1", **more: Any) -> OrderEntryClient:
    return OrderEntryClient("127.0.0.1", venue.port, user, "demo", reconnect_for_s=0,
                            instruments=venue.app.settings.instruments, **more)


async def test_every_door_speaks_tls_and_nothing_else(start_venue: StartVenue,
                                                      made: Certificates) -> None:
    venue = await start_venue(**settings_of(made))
    tls = trusting(made.authority)
    async with client_of(venue, tls=tls) as client:
        answers = [client.enter("AAPL", "B", 100, "10.00") for _ in range(2_000)]
        assert {type(await answer).__name__ for answer in answers} == {"Accepted"}
    # From the past too, in slices.
    async with client_of(venue, tls=tls, session=client.session, sequence=1) as again:
        seen = 0
        async for message in again.executions():
            seen += type(message).__name__ == "Accepted"
            if seen == 2_000:
                break
    ports = venue.app.ports
    async with FeedClient("127.0.0.1", ports["feed"], tls=tls,
                          instruments=venue.app.settings.instruments) as feed, \
            HttpClient(f"https://127.0.0.1:{ports['api']}", tls=tls) as http_client:
        await feed.subscribe("book", "AAPL")
        await http_client.submit("AAPL", "buy", "100", "9.00")
        async for message in feed:
            if "9.0000" in json.dumps(msgspec.to_builtins(message)):
                break
    # Plain bytes are no handshake: the connection ends without a word of the protocol.
    for port in (venue.port, ports["feed"], ports["api"]):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(bytes(build_login("MAKER1", "demo")))
        data = await asyncio.wait_for(reader.read(), 20)
        # At most an alert of TLS (content type 21).
        assert data[:1] in (b"", b"\x15")
        writer.close()


async def test_a_client_that_trusts_somebody_else_hangs_up(start_venue: StartVenue,
                                                           made: Certificates) -> None:
    venue = await start_venue(**settings_of(made))
    other = trusting(made.other_authority)
    with pytest.raises(ConnectionLostError):
        await client_of(venue, tls=other).connect()
    with pytest.raises(ConnectionLostError):
        await FeedClient("127.0.0.1", venue.app.ports["feed"], tls=other, instruments=[],
                         reconnect_for_s=0).connect()


@pytest.mark.parametrize(("version", "ciphers", "works"), [
    (ssl.TLSVersion.TLSv1_3, "", True),
    (ssl.TLSVersion.TLSv1_2, "ECDHE+AESGCM", True),
    (ssl.TLSVersion.TLSv1_2, "AES128-SHA", False),
    (ssl.TLSVersion.TLSv1_1, "ALL:@SECLEVEL=0", False),
])
async def test_old_versions_and_weak_ciphers_are_refused(
        start_venue: StartVenue, made: Certificates, version: ssl.TLSVersion, ciphers: str,
        works: bool) -> None:
    venue = await start_venue(**settings_of(made))
    context = trusting(made.authority)
    if ciphers:
        context.set_ciphers(ciphers)
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    context.maximum_version = version

    def shake() -> str | None:
        with socket.create_connection(("127.0.0.1", venue.port), timeout=20) as plain, \
                context.wrap_socket(plain, server_hostname="127.0.0.1") as secure:
            return secure.version()

    if works:
        assert await asyncio.to_thread(shake) == version.name.replace("_", ".")
    else:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await asyncio.to_thread(shake)


async def test_certificates_of_clients(tmp_path: Path, made: Certificates) -> None:
    raw = ssl.PEM_cert_to_DER_cert(made.client_cert.read_text())
    mark = hashlib.sha256(raw).hexdigest()
    marks = ":".join(mark[at:at + 2] for at in range(0, 64, 2)).upper()
    venue = await Venue(
        tmp_path, limits={"MAKER1": {"certificates": ["CN=client"]},
                          "MAKER2": {"certificates": ["CN=somebody", marks]},
                          "TAKER1": {"certificates": ["CN=somebody"]}},
        **settings_of(made, tls__client_ca_file=made.authority,
                      tls__client_certificates="optional")).start()
    try:
        shown = trusting(made.authority, (made.client_cert, made.client_key))
        hidden = trusting(made.authority)
        for user in ("MAKER1", "MAKER2"):
            async with client_of(venue, user, tls=shown):
                pass
            with pytest.raises(LoginRejectedError) as refused:
                await client_of(venue, user, tls=hidden).connect()
            assert refused.value.reason == "A"
        with pytest.raises(LoginRejectedError):
            await client_of(venue, "TAKER1", tls=shown).connect()
        async with client_of(venue, "TAKER2", tls=hidden):
            pass
        # Nobody shows a certificate in datagrams.
        with pytest.raises(LoginRejectedError):
            await OrderEntryClient(
                "127.0.0.1", venue.udp_port, "MAKER1", "demo", transport="udp",
                reconnect_for_s=0, instruments=venue.app.settings.instruments).connect()
    finally:
        await venue.stop()


async def test_certificates_may_be_required(start_venue: StartVenue, made: Certificates) -> None:
    venue = await start_venue(**settings_of(made, tls__client_ca_file=made.authority,
                                            tls__client_certificates="required"))
    shown = trusting(made.authority, (made.client_cert, made.client_key))
    async with client_of(venue, tls=shown):
        pass
    url = f"wss://127.0.0.1:{venue.app.ports['feed']}/"
    async with connect(url, ssl=shown):
        pass
    hidden = trusting(made.authority)
    with pytest.raises(ConnectionLostError):
        await client_of(venue, tls=hidden).connect()
    with pytest.raises((OSError, websockets.exceptions.WebSocketException)):
        async with connect(url, ssl=hidden) as peer:
            await peer.recv()

    def ask() -> int:
        caller = http.client.HTTPSConnection("127.0.0.1", venue.app.ports["api"], context=hidden,
                                             timeout=20)
        caller.request("GET", "/health")
        return caller.getresponse().status

    with pytest.raises((OSError, http.client.HTTPException)):
        await asyncio.to_thread(ask)


async def test_a_renewed_certificate_is_taken_and_a_bad_one_is_not(
        start_venue: StartVenue, made: Certificates, tmp_path: Path) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    cert.write_bytes(made.server_cert.read_bytes())
    key.write_bytes(made.server_key.read_bytes())
    venue = await start_venue(**DOORS, tls__certificate_file=cert, tls__key_file=key)
    tls = trusting(made.authority)

    async def shown() -> bytes:
        _, writer = await asyncio.open_connection("127.0.0.1", venue.port, ssl=tls)
        raw: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        writer.close()
        return raw

    first = await shown()
    async with client_of(venue, tls=tls) as client:
        other = Certificates(tmp_path / "other")
        cert.write_bytes(other.server_cert.read_bytes())
        with pytest.raises(ConfigError, match=r"tls\.certificate_file"):
            venue.app.tls.reload()
        assert await shown() == first
        key.write_bytes(other.server_key.read_bytes())
        venue.app.tls.reload()
        tls = trusting(other.authority)
        assert await shown() != first
        # Who was there before stays.
        await client.enter("AAPL", "B", 100, "10.00")


def test_commands_speak_tls_where_their_door_does(make_daemon: Callable[..., Daemon],
                                                  made: Certificates) -> None:
    trusted = {"tls__trust_file": made.authority}
    daemon = make_daemon(**settings_of(made), **trusted).start()
    port = str(daemon.port)
    done = daemon.run("submit", "MAKER1", "buy", "BTC-USDT", "0.5", "60000", "--password", "demo",
                      "--port", port, "--json")
    assert (done.returncode, json.loads(done.stdout)["type"]) == (0, "accepted"), done.stderr
    done = daemon.run("top", "--json")
    assert done.returncode == 0, done.stderr
    done = daemon.run("watch", "book", "BTC-USDT", "--once", "--json")
    assert done.returncode == 0 and "60000" in done.stdout, done.stderr
    # Whoever trusts somebody else says so in one line.
    other = make_daemon(**settings_of(made), tls__trust_file=made.other_authority)
    done = other.run("submit", "MAKER1", "buy", "BTC-USDT", "0.5", "60000", "--password", "demo",
                     "--port", port)
    assert done.returncode == 1 and "certificate" in done.stderr.lower()


def test_commands_and_peers_show_a_certificate_where_one_is_asked_for(
        make_daemon: Callable[..., Daemon], made: Certificates) -> None:
    asking = settings_of(made, tls__trust_file=made.authority,
                         tls__client_ca_file=made.authority, tls__client_certificates="required")
    identity = {"tls__identity_file": made.client_cert, "tls__identity_key_file": made.client_key}
    daemon = make_daemon("east", **asking, **identity).start()
    order = ("submit", "MAKER1", "buy", "BTC-USDT", "0.5", "60000", "--password", "demo",
             "--port", str(daemon.port), "--json")
    done = daemon.run(*order)
    assert (done.returncode, json.loads(done.stdout)["type"]) == (0, "accepted"), done.stderr
    for command in (("top", "--json"), ("watch", "book", "BTC-USDT", "--once", "--json")):
        done = daemon.run(*command)
        assert done.returncode == 0, done.stderr
    peers = {"peers__urls": f"east=https://127.0.0.1:{daemon.api_port}"}
    shown = make_daemon("west", tls__trust_file=made.authority, **identity, **peers).start()
    path = "/api/v1/performance/engines/parallel-query"
    part = Caller(shown.api_port)("POST", path, {"endpoint": "/health"}).json["results"][0]
    assert (part["ok"], part["error"]) == (True, "")
    done = shown.run("peers", "status", "--json")
    assert json.loads(done.stdout)["peers"][0]["state"] in ("healthy", "degraded"), done.stderr
    # Without a certificate nobody comes in.
    bare = make_daemon("bare", tls__trust_file=made.authority, order_entry__tls=True, **peers)
    assert bare.run(*order).returncode == 1
    done = bare.run("peers", "status", "--json")
    assert (done.returncode, json.loads(done.stdout)["peers"][0]["state"]) == (1, "down")


def test_what_we_show_elsewhere_is_read_again(made: Certificates, tmp_path: Path) -> None:
    identity = tmp_path / "identity.pem"
    identity.write_text(made.client_cert.read_text() + made.client_key.read_text())
    tls = Tls(TlsConfig(trust_file=str(made.authority), identity_file=str(identity)))
    tls.outgoing()
    renew = tls.renewal(None)
    identity.write_text("nothing")
    with pytest.raises(ConfigError, match="identity_file"):
        tls.renewal(None)
    with pytest.raises(ConfigError, match="identity_file"):
        renew()


def test_mistakes_in_the_files_are_said_at_the_start(made: Certificates, tmp_path: Path) -> None:
    for config, words in (
            (TlsConfig(str(tmp_path / "none"), ""), "No such file"),
            (TlsConfig(str(made.server_cert), str(made.client_key)), "certificate_file"),
            (TlsConfig(str(made.server_cert), str(made.server_key), str(made.server_key)),
             "client_ca_file")):
        with pytest.raises(ConfigError, match=words):
            Tls(config)
    locked = tmp_path / "locked.key"
    subprocess.run(["openssl", "ec", "-in", made.server_key, "-aes256", "-passout", "pass:word",
                    "-out", locked], check=True, capture_output=True)
    with pytest.raises(ConfigError, match="pass phrase"):
        Tls(TlsConfig(str(made.server_cert), str(locked)))


async def test_accounts_that_are_bound_to_addresses(tmp_path: Path) -> None:
    venue = await Venue(tmp_path, limits={
        "MAKER1": {"addresses": ["127.0.0.2", "10.0.0.0/8"]},
        "MAKER2": {"addresses": ["127.0.0.0/30"]}}).start()
    try:
        with pytest.raises(LoginRejectedError):
            await client_of(venue).connect()
        async with client_of(venue, "MAKER2"):
            pass
        async with client_of(venue, "TAKER1"):
            pass
        reader, writer = await asyncio.open_connection("127.0.0.1", venue.port,
                                                       local_addr=("127.0.0.2", 0))
        writer.write(bytes(build_login("MAKER1", "demo")))
        assert (await asyncio.wait_for(reader.readexactly(3), 10))[2:] == b"A"
        writer.close()
        instruments = venue.app.settings.instruments
        with pytest.raises(LoginRejectedError):
            await OrderEntryClient("127.0.0.1", venue.udp_port, "MAKER1", "demo", transport="udp",
                                   reconnect_for_s=0, instruments=instruments).connect()
    finally:
        await venue.stop()


def test_what_an_account_is_bound_to(tmp_path: Path) -> None:
    account = Account(1, "A", "", addresses=("192.0.2.7", "10.0.0.0/8", "2001:db8::/32"))
    for host, admitted in (("192.0.2.7", True), ("192.0.2.8", False), ("10.255.0.1", True),
                           ("::ffff:10.0.0.1", True), ("2001:db8::1", True), ("::1", False),
                           ("", False), ("localhost", False)):
        assert account.admits(host) is admitted, host
    named = Account(1, "A", "", certificates=("CN=bot", "AB:" * 31 + "AB"))
    assert not named.admits("10.0.0.1")
    assert named.admits("10.0.0.1", Certificate("bot", "0" * 64))
    assert named.admits("10.0.0.1", Certificate("", "ab" * 32))
    assert not named.admits("10.0.0.1", Certificate("", "0" * 64))
    assert not named.admits("10.0.0.1", Certificate("CN=bot", "0" * 64))
    path = tmp_path / "accounts.toml"
    path.write_text('[[account]]\nid = 1\nusername = "A"\npassword_hash = "x"\n'
                    'addresses = ["10.0.0.1/8", "here"]\ncertificates = ["bot", "CN="]\n')
    with pytest.raises(ConfigError) as wrong:
        load(path)
    text = "\n".join(wrong.value.problems)
    assert text.count("account[1].addresses") == 2
    assert text.count("account[1].certificates") == 2


async def test_handshakes_that_never_end_are_bounded(
        start_venue: StartVenue, made: Certificates, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listen, "HANDSHAKES_MAX", 5)
    # So it is not the time-out that ends them.
    monkeypatch.setattr(listen, "HANDSHAKE_S", 600.0)
    venue = await start_venue(**settings_of(made))
    tls = trusting(made.authority)
    for port in (venue.port, venue.app.ports["feed"], venue.app.ports["api"]):
        silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(40)]
        # A newcomer gets in all the same, at once.
        _, writer = await asyncio.wait_for(
            asyncio.open_connection("127.0.0.1", port, ssl=tls), 30)
        for reader, _ in silent[:36]:
            with contextlib.suppress(ConnectionError):
                assert await asyncio.wait_for(reader.read(), 30) == b""
        for reader, _ in silent[36:]:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(reader.read(), 0.05)
        writer.close()
        for _, stranger in silent:
            stranger.close()
    async with client_of(venue, tls=tls) as client:
        await client.enter("AAPL", "B", 100, "10.00")
