"""Accounts: the file, the hashes, the demo password."""

from pathlib import Path

import pytest

from engine import accounts
from engine.accounts import hash_password, verify_password
from engine.errors import ConfigError

FILE = Path(__file__).resolve().parents[2] / "config" / "accounts.toml"
CHEAP = 4


def row(number=1, name="ALICE", password_hash=None, more=""):
    return (f'[[account]]\nid = {number}\nusername = "{name}"\npassword_hash = '
            f'"{password_hash or hash_password("secret", CHEAP)}"\n{more}')


def load(tmp_path, text):
    path = tmp_path / "accounts.toml"
    path.write_text(text)
    return accounts.load(path)


def test_the_shipped_accounts_have_the_demo_password_and_no_limits():
    shipped = accounts.load(FILE)
    assert [one.username for one in shipped] == ["MAKER1", "MAKER2", "TAKER1", "TAKER2",
                                                "ADMIN"]
    assert [one.id for one in shipped] == [1, 2, 3, 4, 5]
    assert accounts.demo_accounts(shipped) == shipped
    for one in shipped:
        assert (one.quantity_max_lots, one.notional_max, one.open_orders_max, one.collar_bps,
                one.messages_per_second, one.firm) == (0, 0, 0, 0, 0, "")
        assert one.role == ("admin" if one.username == "ADMIN" else "trader")


def test_a_hash_verifies_its_password_and_no_other():
    text = hash_password("Secret1", CHEAP)
    assert verify_password(text, "Secret1")
    assert not verify_password(text, "Secret2")
    assert not verify_password(text, "")


def test_passwords_have_no_case_and_no_padding():
    text = hash_password("SeCreT", CHEAP)
    for same in ("secret", "SECRET", "secret    ", "   secret", "secret\0\0"):
        assert verify_password(text, same)


def test_the_same_password_hashes_differently_each_time():
    assert hash_password("demo", CHEAP) != hash_password("demo", CHEAP)


@pytest.mark.parametrize("password", ["", "elevenchars", "two words", "ümlaut", "a\tb"])
def test_passwords_that_a_login_cannot_carry_are_refused(password):
    with pytest.raises(ValueError, match="a password has"):
        hash_password(password, CHEAP)


@pytest.mark.parametrize("password_hash", [
    "demo", "scrypt$15$8$1$AAAAAAAA$AAAAAAAA", "scrypt$16$8$1$AAAAAAA$AAAAAAAA",
    "scrypt$16$8$2$AAAAAAAA$AAAAAAAA", "scrypt$4194304$8$1$AAAAAAAA$AAAAAAAA",
    "md5$16$8$1$AAAAAAAA$AAAAAAAA"])
def test_a_text_that_is_no_hash_is_a_mistake_in_the_file(tmp_path, password_hash):
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, row(password_hash=password_hash))
    assert "password_hash: expected what `matchd hash-password` prints" in str(caught.value)
    with pytest.raises(ValueError, match="not a password hash"):
        verify_password(password_hash, "demo")


def test_limits_roles_and_firms_are_read(tmp_path):
    text = row(more='firm = "ABCD"\nrole = "admin"\nquantity_max_lots = 5\nnotional_max = 6\n'
                    "open_orders_max = 7\ncollar_bps = 8\nmessages_per_second = 9\n")
    one, = load(tmp_path, text)
    assert (one.firm, one.role_code, one.quantity_max_lots, one.notional_max,
            one.open_orders_max, one.collar_bps, one.messages_per_second) == \
        ("ABCD", 2, 5, 6, 7, 8, 9)


def test_mistakes_are_said_together(tmp_path):
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, row() + row() + row(2, "bob", more='firm = "abcde"\nlimit = 1\n'))
    text = "\n".join(caught.value.problems)
    assert "account[2].id: expected a value that account[1] has not, found 1" in text
    assert 'account[2].username: expected a value that account[1] has not, found "ALICE"' in text
    assert "account[3].username: expected 1 to 6 of" in text
    assert "account[3].firm: expected up to 4 of" in text
    assert "account[3].limit: expected one of id, username," in text


def test_only_the_accounts_with_the_demo_password_are_demo_accounts(tmp_path):
    every = load(tmp_path, row() + row(2, "BOB", hash_password("DEMO", CHEAP)))
    assert [one.username for one in accounts.demo_accounts(every)] == ["BOB"]


def test_user_names_are_folded_as_they_come_from_the_wire():
    assert accounts.fold_username("maker1") == accounts.fold_username("MAKER1 ") == "MAKER1"
