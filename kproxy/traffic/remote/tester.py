"""Which rate this host can send at all: found on its loopback device, before a run.

What is found is the sender's limit, with the frames of the run: they end on loopback, where nobody
has the MAC that they are sent to. The way to the receiver is what is measured, so it is not part.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from kproxy.traffic import calibration, profile
from kproxy.traffic.calibration import Attempt, Calibration
from kproxy.traffic.remote.generator import Generator

LOOPBACK = "lo"
SECONDS = 0.3
_NOBODY = bytes.fromhex("02000000ffff")
_LEAST_SHARE = 0.99


def calibrate(flows: Sequence[profile.UdpFlow], rate_pps: float) -> Calibration:
    """Return whether the rate is held, or else which one is. MeasurementError, UsageError."""
    silent = tuple(dataclasses.replace(one, frame=_NOBODY + one.frame[6:]) for one in flows)

    with Generator() as generator:

        def attempt(rate: float) -> Attempt:
            generator.start(
                profile.UdpProfile(
                    interface=LOOPBACK,
                    rate_pps=rate,
                    flows=silent,
                    record=Path(generator.record),
                    duration_s=SECONDS,
                    capacity=round(rate * SECONDS) + 1,
                )
            )
            report = generator.answer("stopped")["report"]
            missing = int(report["planned"]) - int(report["sent"])
            slow = float(report["achieved_pps"]) < _LEAST_SHARE * rate
            return Attempt(
                offered_pps=rate,
                achieved_pps=float(report["achieved_pps"]),
                lost=missing,
                why="the sender falls behind" if missing or slow else "",
            )

        return calibration.check(attempt, rate_pps)
