"""No secret is ever shown: distinctive ones everywhere, each made to fail, and all that the venue
says looked through. And secrets are compared in constant time."""

from __future__ import annotations

import ast
import asyncio
import json
import os
import re
import signal
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from cython_core.soupbin import build_login
from engine import accounts, config, log
from engine.config import Config, PostgresConfig
from engine.errors import ConfigError
from engine.stores.postgres_link import Link
from engine.stores.store import StoreStopped
from tests.feed.raw import Raw, frame
from tests.support.certificates import Certificates
from tests.support.daemon import ROOT, Daemon
from tests.support.datagrams import Raw as Datagrams
from tests.support.http import Caller
from tests.support.redis import RedisServer
from tests.support.wire import Wire

# Each stands for one kind of secret; a slip of any of them is found by its name.
POSTGRES, REDIS, MASTER, TOKEN = "pgSecretAA", "rdSecretBB", "msSecretCC" * 4, "peSecretDD"
HEADER, OTLP, TYPED, GUESS = "otSecretEE", "uqSecretFF", "acSecretG", "guSecretH"
BEARER = "beSecretII"


def said(daemon: Daemon) -> str:
    return daemon.log_path.read_text("utf-8", "replace")


def files_of(folder: Path, made: Certificates) -> dict[str, object]:
    """Settings with a secret in every place that takes one."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "peer.token").write_text(TOKEN)
    (folder / "headers").write_text(f"authorization: Bearer {HEADER}\n")
    (folder / "master").write_text(MASTER)
    (folder / "master").chmod(0o600)
    (folder / "postgres.password").write_text(POSTGRES)
    # Nobody listens at these: every attempt fails and is told.
    return {"log__level": "debug",
            "postgres__url": f"postgresql://user:{POSTGRES}@127.0.0.1:9/db",
            "postgres__password_file": folder / "postgres.password",
            "api__master_secret_file": folder / "master",
            "peers__urls": "east=http://127.0.0.1:9", "peers__token_file": folder / "peer.token",
            "telemetry__otlp_url": f"http://me:{OTLP}@127.0.0.1:9/v1/metrics?key={OTLP}",
            "telemetry__headers_file": folder / "headers", "telemetry__interval_ms": 200,
            "telemetry__timeout_ms": 300,
            "order_entry__tls": True, "tls__certificate_file": made.server_cert,
            "tls__key_file": made.server_key}


async def provoke_feed(port: int) -> str:
    raw = await Raw.connect(port)
    await raw.send(b"GET /" + BEARER.encode() + b" HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer "
                   + BEARER.encode() + b"\r\n\r\n")
    text = (await raw.until(b"\r\n\r\n")).decode()
    other = await Raw.upgraded(port)
    for _ in range(5):
        await other.send(frame(b'{"op":"auth","token":"abc.%b"}' % BEARER.encode()))
    return text + str(await other.closed())


async def provoke_order_entry(daemon: Daemon, made: Certificates) -> None:
    """Wrong passwords over both doors, and no TLS at all."""
    import ssl

    context = ssl.create_default_context(cafile=str(made.authority))
    for _ in range(8):
        reader, writer = await asyncio.open_connection("127.0.0.1", daemon.port, ssl=context)
        writer.write(bytes(build_login("MAKER1", GUESS)))
        assert b"J" in await asyncio.wait_for(reader.read(), 30)
        writer.close()
    plain = await Wire.open(daemon.port)
    plain.send(build_login("MAKER1", GUESS))
    assert await plain.closed()
    with Datagrams(daemon.udp_port) as raw:
        for _ in range(8):
            raw.send(build_login("MAKER1", GUESS))
            await asyncio.to_thread(raw.receive)


def provoke_http(daemon: Daemon) -> list[str]:
    """Pages, with and without credentials that are wrong; returns what was answered."""
    ask, found = Caller(daemon.api_port), []
    wrong = ({}, {"Authorization": f"Bearer {BEARER}"},
             {"Authorization": f"Bearer abc.{BEARER}"}, {"Authorization": f"Basic {BEARER}"},
             {"X-MATCHD-KEY": BEARER, "X-MATCHD-TIMESTAMP": "1", "X-MATCHD-SIGNATURE": BEARER})
    for headers in wrong:
        for target in ("/health", "/metrics", "/stats", "/clients", "/v1/account", "/nothing",
                       "/v1/orders?x=1", "/api/v1/performance/recommendations",
                       "/api/v1/performance/engines/parallel-query?endpoint=/health"):
            got = ask("GET", target, headers=headers)
            found.append(f"{got.headers}{got.body.decode('utf-8', 'replace')}")
    return found


def command_lines(pid: int) -> str:
    """The command lines of a process and its children, as ps shows them."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return Path(f"/proc/{pid}/cmdline").read_text() + "".join(
        command_lines(int(child)) for child in children)


def test_nothing_that_the_venue_says_has_a_secret_in_it(
        make_daemon: Callable[..., Daemon], make_redis: Callable[..., RedisServer],
        tmp_path: Path) -> None:
    made = Certificates(tmp_path / "certificates")
    server = make_redis()
    server.use_password("right")
    server.start()
    settings = files_of(tmp_path / "files", made)
    settings["redis__url"] = server.url.replace("redis://", f"redis://someone:{REDIS}@")
    daemon = make_daemon(**settings).start()
    spoken = provoke_http(daemon)
    spoken.append(asyncio.run(provoke_feed(daemon.feed_port)))
    asyncio.run(provoke_order_entry(daemon, made))
    daemon.wait_for_line("store down", store="redis")
    daemon.wait_for_line("store down", store="postgres")
    daemon.wait_for_line("OpenTelemetry export failed")
    assert daemon.process is not None
    spoken.append(command_lines(daemon.process.pid))
    for words in (("check-config", "--json"), ("check-config",), ("session", "status", "--json"),
                  ("store", "status", "--json"), ("store", "verify", "postgres"),
                  ("store", "verify", "redis"), ("peers", "status", "--json"), ("reload",)):
        done = daemon.run(*words)
        spoken.append(done.stdout + done.stderr)
    daemon.process.send_signal(signal.SIGUSR1)
    daemon.wait_for_line("thread")
    time.sleep(0.5)
    assert daemon.stop() == 0
    spoken.append(said(daemon))
    key = made.server_key.read_text().splitlines()[1]
    hashes = re.findall(r'password_hash = "([^"]+)"', (ROOT / "config/accounts.toml").read_text())
    everything = "\n".join(spoken)
    assert "credentials refused" in everything and "too many failures" in everything
    for secret in (POSTGRES, REDIS, MASTER, MASTER[:16], TOKEN, HEADER, OTLP, GUESS, BEARER, key,
                   *hashes):
        # The page that does not exist is named by who asked for it, and nobody else.
        at = everything.find(secret)
        assert at < 0, everything[max(0, at - 300):at + 100]


@pytest.mark.parametrize(("files", "words"), [
    ({"accounts.toml": '[[account]]\nid = 1\nusername = "A"\npassword_hash = "%s"\n'},
     "password_hash"),
    ({"accounts.toml": '[[account]]\nid = 1\nusername = "A"\npassword = "%s"\n'}, "unknown key"),
    ({"accounts.toml": '[[account]]\nid = 1\nusername = "A"\npassword_hash = ["%s"]\n'},
     "password_hash"),
    ({"matchd.toml": '[peers]\nurls = ["east=http://me:%s@host"]\n'}, "peers.urls"),
    ({"matchd.toml": '[redis]\nurl = "http://me:%s@host"\n'}, "redis.url"),
    ({"matchd.toml": '[redis]\nurl = ["%s"]\n'}, "redis.url"),
    ({"matchd.toml": '[redis]\npassword = "%s"\n'}, "unknown key"),
    ({"matchd.toml": '[redis]\nurl = "%s\n'}, "TOML"),
])
def test_mistakes_in_files_do_not_show_it(tmp_path: Path, files: dict[str, str],
                                          words: str) -> None:
    (tmp_path / "matchd.toml").write_text("")
    for name, text in files.items():
        (tmp_path / name).write_text(text % TYPED)
    with pytest.raises(ConfigError) as wrong:
        config.load_settings(tmp_path / "matchd.toml", {})
    text = "\n".join([str(wrong.value), *wrong.value.problems])
    assert words in text and TYPED not in text


@pytest.mark.parametrize("url", [
    f"postgresql://user:{POSTGRES}/x@127.0.0.1:9/db",
    f"postgresql://user:{POSTGRES}?x@127.0.0.1/db",
    f"postgresql://user:{POSTGRES}#x@127.0.0.1/db", f"postgresql://user:12/{POSTGRES}@127.0.0.1/db",
    f"postgresql://user:[{POSTGRES}@127.0.0.1/db", f"mysql://user:{POSTGRES}@127.0.0.1/db"])
async def test_an_address_that_cannot_be_read_is_not_shown(url: str) -> None:
    link = Link(PostgresConfig(url=url))
    assert POSTGRES not in link.where
    with pytest.raises(StoreStopped) as wrong:
        await link.connect()
    assert POSTGRES not in repr(wrong.value) + str(wrong.value)


async def test_addresses_that_can_be_read_are(tmp_path: Path) -> None:
    for url, where in (("postgresql://a:b%40c@host/db", "host:5432/db"),
                       ("postgresql://a:b@host:1/db?application_name=x@y", "host:1/db"),
                       ("postgresql:///db?host=/tmp/x&user=a@b", "/tmp/x:5432/db"),
                       ("postgresql://a:b@one:1,two:2/db", "postgres.url")):
        assert Link(PostgresConfig(url=url)).where == where


def test_what_is_shown_of_the_configuration_has_no_password() -> None:
    base = Config()
    shown = config.without_secrets(msgspec.structs.replace(
        base, postgres=msgspec.structs.replace(base.postgres, url=f"pg://u:{POSTGRES}/@x@h/db?p=x"),
        redis=msgspec.structs.replace(base.redis, url="redis://h:1/2")))
    assert (shown.postgres.url, shown.redis.url) == ("pg://***@h/db?***", "redis://h:1/2")
    assert config.without_secrets(base) == base


@pytest.mark.parametrize("style", ["json", "console"])
def test_an_error_shows_no_values_of_variables(style: str,
                                               capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("debug", style)
    password = "".join(reversed(GUESS))
    try:
        accounts.verify_password("no hash", password)
    except ValueError:
        log.get("test").exception("it failed")
    told = capsys.readouterr().err
    assert "not a password hash" in told and password not in told


def test_every_secret_can_come_from_a_file_or_the_environment(tmp_path: Path) -> None:
    secret = re.compile(r"secret|password|token|header|key_file|url")
    keys = [(section, key) for section in Config.__struct_fields__
            for key in getattr(Config(), section).__struct_fields__ if secret.search(key)]
    assert len(keys) >= 10
    for section, key in keys:
        assert key.endswith("_file") or "url" in key, (section, key)
        found, _ = config.load(ROOT / "config/matchd.toml", {
            f"MATCHD_{section.upper()}__{key.upper()}": "redis://x" if section == "redis"
            else "east=http://x"})
        assert getattr(getattr(found, section), key) != getattr(getattr(Config(), section), key)


# -- comparing -------------------------------------------------------------------------------------

# What may hold a secret, by its name; a hash of scrypt is none.
NAMES = re.compile(r"(?i)(secret|token|signature|passw|digest|hmac|cookie|\bmac\b|credential)")
# Comparisons of names like these that are no secrets: changes of the table of accounts, a missing
# value, a word of a protocol.
ALLOWED = {"engine/directory.py", "engine/reload.py", "engine/intake/registry.py"}


def compared(text: str) -> list[str]:
    """Comparisons by == and != of what is called like a secret, but for constants."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Compare) and any(
                isinstance(op, ast.Eq | ast.NotEq) for op in node.ops):
            sides = [node.left, *node.comparators]
            if any(isinstance(side, ast.Constant) for side in sides):
                continue
            if any(NAMES.search(ast.unparse(side)) for side in sides):
                found.append(ast.unparse(node))
    return found


def test_secrets_are_compared_in_constant_time() -> None:
    for path in sorted((ROOT / "engine").rglob("*.py")):
        name = path.relative_to(ROOT).as_posix()
        if name not in ALLOWED:
            assert not compared(path.read_text("utf-8")), name
    assert compared("if token == known.token: pass") == ["token == known.token"]
    assert compared("a.signature.lower() != wanted") and not compared("token == ''")
    for name in ("engine/api/auth.py", "engine/accounts.py"):
        assert "hmac.compare_digest" in (ROOT / name).read_text()


def test_nothing_secret_is_readable_by_others(daemon: Daemon) -> None:
    made = daemon.run("key", "make", "MAKER1", "--json")
    assert made.returncode == 0, made.stderr
    for name in ("master.secret", "keys.json", "control.sock"):
        assert os.stat(daemon.data_dir / name).st_mode & 0o077 == 0, name
    shown = daemon.run("key", "list", "--json")
    answer = json.loads(made.stdout)
    assert answer["secret"] not in shown.stdout and answer["token"] not in shown.stdout
    with urllib.request.urlopen(f"http://127.0.0.1:{daemon.api_port}/metrics") as page:
        assert answer["key"] not in page.read().decode()
