"""Two network namespaces joined by a cable, for tests that want the kernel itself to lose packets.

No root is needed where users may have namespaces of their own; `Namespaces.missing()` says what the
machine lacks. A namespace lives as long as the process that holds it.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence

VENUE_ADDRESS, CLIENT_ADDRESS = "10.77.0.1", "10.77.0.2"
_TOOLS = ("unshare", "nsenter", "ip", "tc", "sleep")
TIMEOUT_S = 20.0


class Namespaces:
    """`venue` and `client` are the beginnings of command lines that run there."""

    def __init__(self) -> None:
        self._holders: list[subprocess.Popen[bytes]] = []
        first = self._hold("unshare", "-rn")
        self.venue = ("nsenter", "-t", str(first), "-U", "--preserve-credentials", "-n")
        second = self._hold(*self.venue, "unshare", "-n")
        self.client = (*self.venue[:-1], f"--net=/proc/{second}/ns/net")
        self._in(self.venue, "ip", "link", "add", "v0", "type", "veth", "peer", "name", "v1",
                 "netns", str(second))
        for where, device, address in ((self.venue, "v0", VENUE_ADDRESS),
                                       (self.client, "v1", CLIENT_ADDRESS)):
            self._in(where, "ip", "link", "set", "lo", "up")
            self._in(where, "ip", "address", "add", f"{address}/24", "dev", device)
            self._in(where, "ip", "link", "set", device, "up")

    @staticmethod
    def missing(netem: bool = False) -> str:
        """Why they can't be had here, or why `netem` can't; "" when they can."""
        tools = [tool for tool in _TOOLS if shutil.which(tool) is None]
        if tools:
            return f"{', '.join(tools)} not installed"
        try:
            made = Namespaces()
        except (OSError, RuntimeError, subprocess.SubprocessError) as error:
            return f"no network namespaces: {error}"
        try:
            if netem:
                made.impair("loss", "1%")
        except RuntimeError as error:
            return f"no tc netem: {error}"
        finally:
            made.close()
        return ""

    def impair(self, *netem: str) -> None:
        """Let both ends of the cable send so badly, in the words of tc-netem(8)."""
        for where, device in ((self.venue, "v0"), (self.client, "v1")):
            self._in(where, "tc", "qdisc", "replace", "dev", device, "root", "netem", *netem)

    def sent(self) -> str:
        """What `tc` counted at both ends."""
        return "".join(self._in(where, "tc", "-s", "qdisc", "show", "dev", device)
                       for where, device in ((self.venue, "v0"), (self.client, "v1")))

    def close(self) -> None:
        """Let them go, and with them all that is in them."""
        for holder in reversed(self._holders):
            holder.kill()
            holder.wait()

    def _hold(self, *command: str) -> int:
        """A namespace of its own and the process in it that keeps it."""
        holder = subprocess.Popen([*command, "sh", "-c", "echo ready; exec sleep infinity"],
                                  stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self._holders.append(holder)
        assert holder.stdout is not None and holder.stderr is not None
        if holder.stdout.readline().strip() != b"ready":
            error = holder.stderr.read().decode(errors="replace").strip()
            self.close()
            raise RuntimeError(error)
        return holder.pid

    def _in(self, where: Sequence[str], *command: str) -> str:
        done = subprocess.run([*where, *command], capture_output=True, text=True,
                              timeout=TIMEOUT_S, check=False)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
        return done.stdout
