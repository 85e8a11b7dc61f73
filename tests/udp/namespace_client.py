"""The clients of `test_namespaces.py`, run inside a namespace: `HOST PORT TCP_PORT ORDERS FILE`.

Sends a flow over UDP until everything is answered, replays every stream over TCP, and writes both
to FILE.
"""

from __future__ import annotations

import json
import random
import socket
import sys
from pathlib import Path

from tests.udp.flows import ACCOUNTS, Commutative
from tests.udp.reference import Driver, Patience, Reference, login

PASSWORD = "sesame"
# The link may be slow as well as bad.
PATIENCE = Patience(login_s=1.0, resend_s=0.25, gap_s=0.05, gap_again_s=0.15, silence_s=4.0)
TIMEOUT_S = 240.0


def over_udp(address: tuple[str, int], orders: int) -> dict[str, Reference]:
    """Run the flow; returns the clients."""
    chance = random.Random(1)
    clients = {name: Reference(name, PASSWORD, patience=PATIENCE,
                               packets_max=lambda: chance.randint(1, 27)) for name in ACCOUNTS}
    driver = Driver(list(clients.values()), address)
    for phase in Commutative(1, orders).phases():
        for name, steps in phase.items():
            for step in steps:
                step.give(clients[name])
        driver.until(lambda: all(client.idle for client in clients.values()), TIMEOUT_S)
    driver.until(lambda: all(client.quiet >= 3 for client in clients.values()), TIMEOUT_S)
    driver.close()
    return clients


def replayed(address: tuple[str, int], name: str, count: int) -> list[bytes]:
    """The first `count` messages of an account's stream, by a login over TCP."""
    found: list[bytes] = []
    with socket.create_connection(address, timeout=60) as connection:
        connection.sendall(login(name, PASSWORD))
        reader = connection.makefile("rb")
        while len(found) < count:
            packet = reader.read(int.from_bytes(reader.read(2), "big"))
            assert packet[:1] in (b"A", b"H", b"S"), packet
            if packet[:1] == b"S":
                found.append(packet[1:])
    return found


def main(host: str, port: str, tcp_port: str, orders: str, file: str) -> None:
    """Run, and write what came."""
    clients = over_udp((host, int(port)), int(orders))
    found = {name: {
        "udp": [message.hex() for message in client.messages],
        "tcp": [message.hex() for message in replayed((host, int(tcp_port)), name,
                                                      len(client.messages))],
        "counts": client.counts} for name, client in clients.items()}
    Path(file).write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
