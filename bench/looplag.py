"""How late a loop runs while something else shares its process.

A second process, on the last core, writes the time into a pipe every millisecond; the loop reads
it. What lies between is the lag: everything that kept the loop from looking at its sockets, waiting
for the interpreter's lock included. `python -m bench.looplag DESCRIPTOR` is the second process.
"""

import asyncio
import os
import statistics
import struct
import subprocess
import sys
import time

from bench.servers import ROOT, load_core

INTERVAL_S = 0.001
# What the loop does for each look, like a venue that has a little to do.
WORK_S = 0.00005
_TIME = struct.Struct("d")


class LoopLag:
    """Measures from `start` to `stop`, in the running loop."""

    def __init__(self) -> None:
        self.lags_s: list[float] = []
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)

    async def start(self) -> None:
        """Begin to look; returns when the other process is there."""
        asyncio.get_running_loop().add_reader(self._read, self._look)
        self._process = subprocess.Popen([sys.executable, "-m", "bench.looplag", str(self._write)],
                                         pass_fds=[self._write], cwd=ROOT)
        os.close(self._write)
        while not self.lags_s:
            await asyncio.sleep(0.01)
        self.lags_s.clear()

    def _look(self) -> None:
        now = time.perf_counter()
        for (sent,) in _TIME.iter_unpack(os.read(self._read, 64 * _TIME.size)):
            self.lags_s.append(now - sent)
        while time.perf_counter() < now + WORK_S:
            pass

    def stop(self) -> dict[str, float]:
        """Microseconds at p50, p99 and at worst."""
        asyncio.get_running_loop().remove_reader(self._read)
        self._process.kill()
        self._process.wait()
        os.close(self._read)
        if len(self.lags_s) < 2:
            raise RuntimeError("the loop was never looked at")
        cuts = statistics.quantiles(self.lags_s, n=100)
        return {"p50_us": cuts[49] * 1e6, "p99_us": cuts[98] * 1e6,
                "max_us": max(self.lags_s) * 1e6, "looks": len(self.lags_s)}


def ping(descriptor: int) -> None:
    """Write the time at every interval, until nobody reads."""
    os.sched_setaffinity(0, {load_core()})
    due = time.perf_counter()
    try:
        while True:
            due += INTERVAL_S
            time.sleep(max(0.0, due - time.perf_counter()))
            os.write(descriptor, _TIME.pack(time.perf_counter()))
    except BrokenPipeError:
        pass


if __name__ == "__main__":
    ping(int(sys.argv[1]))
