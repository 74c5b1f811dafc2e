"""What a site is told, and what it refuses to be told; without a cluster."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from support.persons.tiny_bundle import made_up_person
from support.places import MEDIA

from pflx.runtime.cluster.site import Site, SiteSettings
from pflx.runtime.rendering.portrait import load_whole
from pflx.runtime.serve import ServeError, ServeSettings
from pflx.runtime.serve.settings import ServedListener

PORTRAIT = load_whole(MEDIA / "portrait_astronaut_256.png")


def site(device: str = "cpu", gpus: float = 0.0, **settings: Any) -> Site:
    listeners = {"one": ServedListener(None, PORTRAIT, device=device)}
    return Site(listeners, {"one": PORTRAIT}, ServeSettings(**settings), SiteSettings(gpus=gpus))


@pytest.mark.parametrize(("text", "read"), [("1:8", (1, 8)), ("2", (2, 2)), ("0:1", (0, 1))])
def test_servers_are_told_by_the_fewest_and_the_most(text: str, read: tuple[int, int]) -> None:
    assert SiteSettings.read_replicas(text) == read


@pytest.mark.parametrize("text", ["", "many", "1:", ":8", "1:2:3", "-1:2", "1.5"])
def test_what_is_no_number_of_servers_is_refused(text: str) -> None:
    with pytest.raises(ServeError, match=rf"^--replicas is '{text}'; give the fewest and the most"):
        SiteSettings.read_replicas(text)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"replicas": (0, 1)}, "--replicas is 0:1"),
        ({"replicas": (3, 2)}, "--replicas is 3:2"),
        ({"gpus": -1.0}, "--gpus-per-replica is -1"),
        ({"gpus": 1.5}, "--gpus-per-replica is 1.5"),
        ({"gpus": float("nan")}, "--gpus-per-replica is nan"),
        ({"busy_s": 0.0}, "busy_s is 0 and idle_s 600"),
        ({"idle_s": -1.0}, "busy_s is 30 and idle_s -1"),
        ({"drain_s": -1.0}, "--drain is -1"),
        ({"drain_s": float("inf")}, "--drain is inf"),
    ],
)
def test_what_cannot_be_meant_is_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ServeError, match=f"^{said}"):
        SiteSettings(**given)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"secure": True}, "no --certificate"),
        ({"port": 0}, "give --port"),
        ({"device": "cuda"}, "Servers with 0 GPUs cannot run on cuda"),
        ({"gpus": 1.0}, "Servers with 1 GPUs cannot run on cpu"),
        ({"device": "cuda:1", "gpus": 1.0}, "--device is cuda:1"),
    ],
)
def test_what_other_processes_cannot_do_is_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ServeError, match=said):
        site(**given)


def test_a_site_on_gpus_has_a_share_for_each_server() -> None:
    assert site(device="cuda", gpus=0.5).site.gpus == 0.5


def test_a_server_elsewhere_is_begun_with_all_that_the_command_was_given() -> None:
    persons = [made_up_person(1, "Ada")]
    listeners = {"one": ServedListener(None, PORTRAIT, badge=True)}
    sent = Site(listeners, {"one": PORTRAIT}, ServeSettings(replica="blue"), SiteSettings(in_json=True), persons)
    got = pickle.loads(pickle.dumps(sent))
    assert (got.settings, got.site) == (sent.settings, sent.site)
    assert [(each.name, each.sha256) for each in got.persons] == [("Ada", persons[0].sha256)]
    with got.listeners["one"].open() as listener:
        assert listener.chain.badge
