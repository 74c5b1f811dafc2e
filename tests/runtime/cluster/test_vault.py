"""What the vault keeps of sessions, and for whom; without a cluster."""

from __future__ import annotations

import pytest

from pflx.runtime.cluster import vault as vault_module
from pflx.runtime.cluster.vault import KEPT_S, Vault
from pflx.runtime.serve.keeping import Claim, Kept


class Hands:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_it_knows_the_site_that_was_begun_last() -> None:
    vault = Vault()
    assert vault.site() is None
    for name in ("one", "two"):
        vault.begin(name)
    assert vault.site() == "two"


def test_of_a_session_that_nobody_has_kept_nothing_is_known() -> None:
    vault = Vault()
    assert vault.claim("a") == Claim(0, None)
    assert len(vault) == 0


def test_who_claims_a_session_gets_what_was_kept_and_a_later_epoch_each_time() -> None:
    vault = Vault()
    assert vault.keep("a", 1, {"bundle": "one", "portrait": 2})
    assert vault.claim("a") == Claim(2, Kept(bundle="one", portrait=2))
    assert vault.claim("a").epoch == 3


def test_what_is_not_kept_again_stays() -> None:
    vault = Vault()
    vault.keep("a", 1, {"bundle": "one", "portrait": b"a picture"})
    vault.keep("a", 1, {"wish": {"samples": 2}})
    assert vault.claim("a").kept == Kept(wish={"samples": 2}, bundle="one", portrait=b"a picture")


def test_a_server_that_lost_a_session_to_another_cannot_keep_or_forget_it_any_more() -> None:
    vault = Vault()
    vault.keep("a", 1, {"bundle": "one"})
    epoch = vault.claim("a").epoch
    assert not vault.keep("a", 1, {"bundle": "of the old server"})
    vault.forget("a", 1)
    assert vault.keep("a", epoch, {"portrait": 1})
    assert vault.claim("a").kept == Kept(bundle="one", portrait=1)


def test_a_session_that_was_ended_is_not_gone_on_with() -> None:
    vault = Vault()
    vault.keep("a", 1, {"bundle": "one"})
    vault.forget("a", 1)
    assert vault.claim("a") == Claim(0, None)


def test_a_vault_that_was_lost_learns_again_who_has_which_session() -> None:
    vault = Vault()
    assert vault.keep("a", 5, {"bundle": "one"})
    assert not vault.keep("a", 4, {})
    assert vault.claim("a").epoch == 6


def test_a_session_is_kept_for_a_while_after_it_was_kept_last() -> None:
    clock = Hands()
    vault = Vault(clock)
    vault.keep("a", 1, {})
    clock.now = KEPT_S
    assert vault.claim("a").kept == Kept()
    clock.now += 1
    assert vault.claim("a") == Claim(0, None)
    vault.keep("b", 1, {})
    clock.now += KEPT_S + 1
    vault.keep("c", 1, {})
    assert len(vault) == 1


def test_of_more_sessions_than_there_is_room_for_those_go_that_were_not_kept_for_the_longest_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(vault_module, "_MOST", 2)
    vault = Vault(Hands())
    for id in ("a", "b", "a", "c"):
        vault.keep(id, 1, {})
    assert [vault.claim(id).kept is not None for id in ("a", "b", "c")] == [True, False, True]
