"""Two guests that want the same port."""

import pytest

from tests.libvirt.hypervisor import Hypervisor

pytestmark = pytest.mark.libvirt

PORT = 8181


def test_a_port_is_free_again_once_its_guest_is_gone(host: Hypervisor) -> None:
    first, second = (host.guest(name, f"{PORT}:80", driver="lxc") for name in ("box1", "box2"))
    first.start()
    assert 'is published by guest "box1"' in second.refusal()
    first.destroy()
    second.start()
    assert host.asks_until_answered(PORT).startswith("box2 ")


def test_of_two_guests_started_at_once_one_has_the_port(host: Hypervisor) -> None:
    guests = [host.guest(name, f"{PORT}:80") for name in ("web1", "web2")]
    starts = [host.node.popen(["virsh", "start", guest.name]) for guest in guests]
    said = [start.communicate()[1] for start in starts]
    assert sorted(start.returncode for start in starts) == [0, 1]
    loser = starts.index(next(start for start in starts if start.returncode))
    winner = guests[1 - loser].name
    assert f'is published by guest "{winner}"' in said[loser]
    assert host.asks_until_answered(PORT).startswith(f"{winner} ")
