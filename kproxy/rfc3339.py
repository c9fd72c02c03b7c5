"""Times of day as Kubernetes, leases and log lines write them: RFC 3339, always in UTC.

Below everything else, so it knows nobody; whoever wants a time says which.
"""

import time

_FORMAT = "%Y-%m-%dT%H:%M:%S"


def timestamp(seconds: float) -> str:
    """Return a time since the epoch in whole seconds, as most of Kubernetes does (Time)."""
    return time.strftime(f"{_FORMAT}Z", time.gmtime(seconds))


def microtime(seconds: float) -> str:
    """Return a time since the epoch with microseconds, as those of Leases are (MicroTime)."""
    return f"{timestamp(seconds)[:-1]}.{int(seconds % 1 * 1e6):06d}Z"


def nanotime(nanoseconds: int) -> str:
    """Return nanoseconds since the epoch with all of them, as lines of container logs begin."""
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    return f"{timestamp(seconds)[:-1]}.{rest:09d}Z"


def seconds_of(text: str | None) -> float | None:
    """Return a time in UTC as seconds since the epoch, fractions dropped; None if it is none."""
    import calendar  # loads locale: nothing for the start of a proxy, which only writes times

    try:
        return float(calendar.timegm(time.strptime((text or "")[:19], _FORMAT)))
    except ValueError:
        return None
