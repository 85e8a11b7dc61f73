"""The configuration: files, environment, and every mistake said at once."""

import json
import shutil
import subprocess
import sys
import tomllib
import typing
import zipfile
from pathlib import Path

import configuration_page
import msgspec
import pytest

from engine import config
from engine.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "config" / "matchd.toml"
SHIPPED = ("matchd.toml", "instruments.toml", "accounts.toml", "wireshark/matchd.lua")


def sections():
    return typing.get_type_hints(config.Config)


def problems_of(path, env=None):
    with pytest.raises(ConfigError) as caught:
        config.load_settings(path, env or {})
    assert caught.value.exit_code == 2
    return "\n".join(caught.value.problems)


def write(tmp_path, text, name="matchd.toml"):
    path = tmp_path / name
    path.write_text(text)
    return path


def test_the_file_and_the_types_agree_key_for_key_and_default_for_default():
    in_file = tomllib.loads(FILE.read_text())
    assert in_file == json.loads(msgspec.json.encode(config.Config()))
    assert list(in_file) == list(sections())
    for name, kind in sections().items():
        assert list(in_file[name]) == list(kind.__struct_fields__)


def test_every_key_has_a_comment():
    lines = FILE.read_text().splitlines()
    bare = [line for before, line in zip(lines, lines[1:], strict=False)
            if "=" in line and not line.startswith("#") and not before.startswith("#")]
    assert not bare


def test_the_page_about_the_configuration_is_made_from_it():
    assert configuration_page.PAGE.read_text() == configuration_page.page(), \
        "run: python -m tests.house.configuration_page"


def test_the_wheel_carries_the_same_files_as_defaults():
    for name in SHIPPED:
        assert (config.DEFAULTS_DIR / name).resolve() == ROOT / "config" / name


def test_the_keys_that_others_use_have_their_names_and_defaults():
    found, warnings = config.load(FILE, {})
    assert (found.order_entry.host, found.order_entry.tcp_port) == ("127.0.0.1", 9001)
    assert (found.journal.sync, found.journal.interval_ms) == ("commit", 10)
    assert found.journal.segment_bytes == 256 * 2**20
    assert found.journal.snapshot_events > 0
    assert (found.log.level, found.log.format) == ("info", "console")
    assert warnings == []


def sample(hint, key):
    kind = msgspec.inspect.type_info(hint)
    if isinstance(kind, msgspec.inspect.LiteralType):
        return kind.values[-1], kind.values[-1]
    if isinstance(kind, msgspec.inspect.IntType):
        value = max(kind.ge or 0, 2**16)
        value = min(value, kind.le)
        return str(value), value
    if isinstance(kind, msgspec.inspect.FloatType):
        return "0.25", 0.25
    if isinstance(kind, msgspec.inspect.BoolType):
        return "true", True
    if isinstance(kind, msgspec.inspect.VarTupleType):
        texts = {"depths": ("A=1", "B=2"), "urls": ("a=http://b", "c=https://d:1")}.get(
            key, ("one", "two"))
        return ", ".join(texts), texts
    text = {"session_roll_at": "10:30", "url": "redis://other"}.get(key, "other")
    return text, text


@pytest.mark.parametrize(("section", "key"), [
    (name, key) for name, kind in sections().items() for key in kind.__struct_fields__])
def test_the_environment_overrides_every_key(section, key):
    hint = typing.get_type_hints(sections()[section], include_extras=True)[key]
    text, value = sample(hint, key)
    env = {f"MATCHD_{section.upper()}__{key.upper()}": text}
    if key == "heartbeat_ms":
        env["MATCHD_ORDER_ENTRY__TIMEOUT_MS"] = "1000000"
    if key == "retry_min_ms":
        env[f"MATCHD_{section.upper()}__RETRY_MAX_MS"] = "100000"
    if key == "client_certificates":
        env["MATCHD_TLS__CLIENT_CA_FILE"] = "ca.pem"
    if key == "segment_bytes":
        env["MATCHD_JOURNAL__FIRST_SEGMENT_BYTES"] = "65536"
    found, warnings = config.load(FILE, env)
    assert getattr(getattr(found, section), key) == value
    assert warnings == []


@pytest.mark.parametrize("name", ["DATABASE_POOL_MAX_SIZE", "MATCHD_POSTGRES__POOL_MAX_SIZE"])
def test_a_small_pool_needs_no_other_key(name):
    found, _ = config.load(FILE, {name: "2"})
    assert found.postgres.pool_max_size == 2


@pytest.mark.parametrize(("text", "origins"), [
    ("https://a, https://b", ("https://a", "https://b")), ("", ()), (" , ", ()),
    ('["https://a", "https://b,c"]', ("https://a", "https://b,c")), (" [ ] ", ()),
])
def test_lists_in_the_environment(text, origins):
    found, _ = config.load(FILE, {"MATCHD_FEED__ORIGINS": text})
    assert found.feed.origins == origins


def test_a_list_that_is_none_is_said_and_what_may_be_secret_is_not():
    text = problems_of(FILE, {"MATCHD_FEED__ORIGINS": '["https://a"',
                              "MATCHD_PEERS__URLS": '["east=http://me:pw'})
    assert "environment: MATCHD_FEED__ORIGINS: expected" in text
    assert '["https://a"' in text
    assert "environment: MATCHD_PEERS__URLS: expected" in text
    assert "pw" not in text


def test_a_door_with_tls_needs_a_certificate_and_who_goes_there_does_not():
    settings = config.load_settings(FILE, {"MATCHD_ORDER_ENTRY__TLS": "true"})
    with pytest.raises(ConfigError, match="order_entry.tls: expected false without"):
        config.require_safe(settings)


def test_an_unknown_variable_is_one_warning_line():
    _, warnings = config.load(FILE, {
        "MATCHD_JOURNAL__SINK": "x", "MATCHD_NOWHERE__KEY": "1", "MATCHD_TEST_DATA": "/x",
        "PATH": "/bin", "MATCHD_TEST_PROFILE": "long"})
    assert warnings == [
        "MATCHD_JOURNAL__SINK in the environment names no configuration key",
        "MATCHD_NOWHERE__KEY in the environment names no configuration key"]


def test_the_data_directory_of_the_command_line_wins():
    found, _ = config.load(FILE, {"MATCHD_VENUE__DATA_DIR": "/a"}, Path("/b"))
    assert found.data_dir == Path("/b")


def test_all_mistakes_of_all_files_are_said_at_once(tmp_path):
    path = write(tmp_path, '[journal]\nsync = "often"\nsyncs = 1\n[order_entry]\ntcp_port = "x"\n'
                           "host = 1\n[nowhere]\nx = 1\n")
    write(tmp_path, '[[instrument]]\nid = 0\nsymbol = "A"\n', "instruments.toml")
    write(tmp_path, '[[account]]\nid = 1\nusername = "TOOLONG"\npassword_hash = "x"\n',
          "accounts.toml")
    text = problems_of(path, {"MATCHD_JOURNAL__INTERVAL_MS": "soon"})
    for line in (
            f'{path}: journal.sync: expected one of "commit", "interval", "off", found "often"',
            f"{path}: journal.syncs: expected one of sync,",
            f'{path}: order_entry.tcp_port: expected an integer from 0 to 65535, found "x"',
            f"{path}: order_entry.host: expected a text of 1 to 255 characters, found 1",
            f"{path}: nowhere: expected one of the sections venue,",
            "environment: MATCHD_JOURNAL__INTERVAL_MS: expected an integer from 1",
            "instruments.toml: instrument[1].id: expected an integer from 1 to 65535, found 0",
            "instruments.toml: instrument[1].tick: expected a decimal in quotes",
            'accounts.toml: account[1].username: expected 1 to 6 of A-Z'):
        assert line in text


def test_a_file_that_is_missing_or_no_toml_is_said_with_its_name(tmp_path):
    assert "nothing.toml: expected a readable file" in problems_of(tmp_path / "nothing.toml")
    assert "valid TOML" in problems_of(write(tmp_path, "a b"))
    path = tmp_path / "bytes.toml"
    path.write_bytes(b"\xff\xfe")
    assert "UTF-8" in problems_of(path)


def test_a_section_that_is_no_table_is_a_mistake(tmp_path):
    assert "journal: expected a table, found 1" in problems_of(write(tmp_path, "journal = 1\n"))


@pytest.mark.parametrize("size", [65_536, 1_048_576])
def test_small_segments_need_no_other_key(tmp_path, size):
    by_name, _ = config.load(FILE, {"MATCHD_JOURNAL__SEGMENT_BYTES": str(size)})
    in_file, _ = config.load(write(tmp_path, f"[journal]\nsegment_bytes = {size}\n"), {})
    assert by_name.journal.segment_bytes == in_file.journal.segment_bytes == size


def test_keys_that_depend_on_each_other_are_checked_together(tmp_path):
    path = write(tmp_path, "[journal]\nsegment_bytes = 70000\n[order_entry]\ntimeout_ms = 1500\n"
                           "[stores]\nretry_min_ms = 60000\n")
    text = problems_of(path)
    assert "journal.segment_bytes: expected a multiple of 4096, found 70000" in text
    assert "stores.retry_min_ms: expected at most stores.retry_max_ms (10000)" in text
    assert "order_entry.timeout_ms: expected at least twice order_entry.heartbeat_ms" in text


def test_peers_have_a_name_and_an_address_each(tmp_path):
    text = problems_of(write(
        tmp_path, '[peers]\nretry_min_ms = 60000\nurls = ["a=http://b:1/", "b", "c=ftp://d", '
                  '"e=http://f/path", "=http://g", "h=http://user:word@i"]\n'))
    assert text.count("peers.urls: expected a name and an address") == 5
    assert "peers.retry_min_ms: expected at most peers.retry_max_ms (30000)" in text
    text = problems_of(write(tmp_path, '[peers]\nurls = ["a=http://b", "a=http://c"]\n'))
    assert "peers.urls: expected a name for each" in text


def test_addresses_and_depths_of_redis_are_checked_without_showing_a_password(tmp_path):
    text = problems_of(write(
        tmp_path, '[redis]\nurl = "http://:secret@host"\ndepths = ["BTC-*", "X=0", "A=5"]\n'))
    assert text.count("redis.depths: expected a pattern and levels") == 2
    assert "redis.url: expected an address of redis, rediss" in text and "secret" not in text


def test_a_lone_matchd_toml_takes_the_tables_of_the_package(tmp_path):
    settings = config.load_settings(write(tmp_path, ""), {})
    assert [one.symbol for one in settings.instruments][:1] == ["BTC-USDT"]
    assert settings.paths[1] == config.DEFAULTS_DIR / "instruments.toml"


def test_tables_named_in_the_file_are_found_beside_it(tmp_path):
    write(tmp_path, "", "mine.toml")
    path = write(tmp_path, '[venue]\ninstruments = "mine.toml"\n')
    assert config.load_settings(path, {}).instruments == []
    path = write(tmp_path, '[venue]\ninstruments = "gone.toml"\n')
    assert "gone.toml: expected a readable file" in problems_of(path)


def test_without_a_file_the_local_one_is_read_else_the_package_has_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert config.default_path() == config.DEFAULTS_DIR / "matchd.toml"
    (tmp_path / "config").mkdir()
    write(tmp_path / "config", "")
    assert config.default_path() == Path("config/matchd.toml")


@pytest.mark.parametrize(("text", "second"), [
    ("21:30", 77_400), ("21:30:07", 77_407), ("00:00", 0), ("", None)])
def test_the_roll_time_is_a_second_of_the_day(text, second):
    assert config.Config().session_roll_second is None
    found, _ = config.load(FILE, {"MATCHD_ORDER_ENTRY__SESSION_ROLL_AT": text})
    assert found.session_roll_second == second


@pytest.mark.parametrize(("host", "expected"), [
    ("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("localhost", True),
    ("0.0.0.0", False), ("::", False), ("10.0.0.1", False), ("venue.example", False)])
def test_loopback_is_told_from_the_rest(host, expected):
    assert config.is_loopback(host) is expected


def test_demo_passwords_never_listen_beyond_loopback():
    env = {"MATCHD_ORDER_ENTRY__HOST": "0.0.0.0"}
    with pytest.raises(ConfigError, match="MAKER1"):
        config.require_safe(config.load_settings(FILE, env))
    config.require_safe(config.load_settings(FILE, {}))


def test_own_passwords_may_listen_anywhere(tmp_path):
    from engine.accounts import hash_password
    write(tmp_path, '[[account]]\nid = 1\nusername = "A"\npassword_hash = '
                    f'"{hash_password("secret", cost_log2=4)}"\n', "accounts.toml")
    path = write(tmp_path, '[order_entry]\nhost = "0.0.0.0"\n')
    config.require_safe(config.load_settings(path, {}))


def test_a_built_wheel_contains_the_defaults_and_no_tests(tmp_path):
    # Without what would be compiled, which takes minutes and changes nothing here.
    source = tmp_path / "source"
    shutil.copytree(ROOT, source, symlinks=True, ignore=shutil.ignore_patterns(
        ".git", ".venv", "build", "data", "*.so", "*.c", "*.pyx", ".*_cache", ".hypothesis"))
    subprocess.run([sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-index",
                    "--no-build-isolation", "-w", tmp_path, source],
                   check=True, timeout=240)
    names = zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist()
    for name in SHIPPED:
        assert f"engine/defaults/{name}" in names
    assert "cython_core/event.pxd" in names
    assert "cython_core/event.pyi" in names
    assert not [name for name in names if name.startswith(("tests", "bench", "config"))]
