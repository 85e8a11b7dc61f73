"""What schemathesis sends, changed a little: its command line loads this."""

from __future__ import annotations

import time
from typing import Any

import schemathesis

from engine.api.limits import FAILURES_PER_SECOND

# What one wrong login may take, so that none is told to wait in place of being refused.
REFUSAL_S = 1.2 / FAILURES_PER_SECOND
# Behind an operation's first good answer schemathesis tries it with each wrong credential.
PROBES = 4
_answered: set[str] = set()


@schemathesis.hook
def after_call(context: Any, case: Any, response: Any) -> None:
    """No more wrong credentials in a second than the venue looks at."""
    if response.status_code == 401:
        time.sleep(REFUSAL_S)
    elif response.status_code < 300 and case.operation.label not in _answered:
        _answered.add(case.operation.label)
        time.sleep(PROBES * REFUSAL_S)


@schemathesis.hook
def map_body(context: Any, body: Any) -> Any:
    """Whole numbers without a fraction: a schema takes 8.0 for an integer, and we refuse every
    float, as a float is not a price."""
    return whole(body)


def whole(value: Any) -> Any:
    """The value with 8 in the place of 8.0."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {key: whole(one) for key, one in value.items()}
    return [whole(one) for one in value] if isinstance(value, list) else value
