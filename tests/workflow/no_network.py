"""As `sitecustomize` in a project's folder: no process of a study reaches beyond this machine.

Beside it, `network.txt` names every process that started under it and every host that one tried to reach.
"""

import socket
import sys
from pathlib import Path

RECORD = Path(__file__).with_name("network.txt")
OWN = {"", "0.0.0.0", "::", "::1", "localhost", socket.gethostname()}
# Which of an event's arguments is, or begins with, the host.
EVENTS = {"socket.connect": 1, "socket.sendto": 1, "socket.sendmsg": 1, "socket.getaddrinfo": 0}


def note(what: str) -> None:
    with RECORD.open("a") as file:
        file.write(f"{what}: {' '.join(sys.orig_argv[1:2])}\n")


def refuse(event: str, given: tuple) -> None:
    if event in EVENTS:
        place = given[EVENTS[event]]
        host = place[0] if isinstance(place, tuple) and place else place
        # Neither a host: a path (a socket of this machine, where it is no look-up) and a number (netlink).
        named = isinstance(place, tuple) or event == "socket.getaddrinfo"
        if named and isinstance(host, str) and host not in OWN and not host.startswith("127."):
            note(f"tried {host}")
            raise PermissionError(f"a job tried to reach {host}")


note("watched")
sys.addaudithook(refuse)
