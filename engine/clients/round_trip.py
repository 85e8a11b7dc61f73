"""How long to wait before asking again, from what round trips took so far.

The smoothing is the usual one of transports over IP: a moving mean, and a moving deviation around
it, whose fourfold is the margin. Here the margin is no more than the mean: a request that is sent
again too early costs little, one that is lost holds up others.
"""

import random

# Of each new measurement this share counts, in the mean and in the deviation.
MEAN_SHARE = 1 / 8
DEVIATION_SHARE = 1 / 4
MARGIN = 4
# Nobody who asks again does so at the same moments as others.
JITTER = 0.2


class RoundTrip:
    """Measures round trips. All times in seconds."""

    def __init__(self, first_s: float, least_s: float, most_s: float,
                 chance: random.Random | None = None) -> None:
        """`first_s` is the wait before anything was measured, the others are its bounds; the upper
        one is raised to two round trips."""
        self._first_s, self._least_s, self._most_s = first_s, least_s, most_s
        self._chance = chance or random.Random()
        self._deviation_s = 0.0
        self.mean_s = 0.0

    def measured(self, took_s: float) -> None:
        """One round trip took so long. Never that of a question that was asked twice: its
        answer may belong to either."""
        if not self.mean_s:
            self.mean_s, self._deviation_s = took_s, took_s / 2
            return
        self._deviation_s += DEVIATION_SHARE * (abs(took_s - self.mean_s) - self._deviation_s)
        self.mean_s += MEAN_SHARE * (took_s - self.mean_s)

    def wait_s(self, tries: int) -> float:
        """How long to wait for an answer that was asked for `tries` times: twice as long every
        second time, and never quite the same."""
        margin_s = min(MARGIN * self._deviation_s, self.mean_s)
        wait_s = self.mean_s + margin_s if self.mean_s else self._first_s
        wait_s = max(wait_s, self._least_s) * 2.0 ** min((tries - 1) // 2, 16)
        wait_s = min(wait_s, max(self._most_s, 2 * self.mean_s))
        return wait_s * (1 + JITTER * (2 * self._chance.random() - 1))
