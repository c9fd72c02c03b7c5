"""Asks servers whether they are well, each in its rhythm: tasks of one event loop."""

import asyncio
import contextlib
import ssl
import time
from collections.abc import Callable, Collection, Mapping

from .health import Health, Probe, Terms, Verdict

MOST_READ = 1024
Contexts = Callable[[], ssl.SSLContext]


class Prober:
    """Keeps asking those who matter. ``changed`` is called when anything is believed otherwise.

    ``tls`` gives the context for ``https``. Servers in ``remembered`` were well when an earlier
    process asked last, and count as such until they say otherwise.
    """

    def __init__(
        self,
        changed: Callable[[], None],
        tls: Contexts | None = None,
        remembered: Collection[Probe] = (),
    ) -> None:
        self._changed = changed
        self._tls = tls
        self._remembered = frozenset(remembered)
        self._health: dict[Probe, Health] = {}
        self._tasks: dict[Probe, asyncio.Task[None]] = {}

    def follow(self, wanted: Mapping[Probe, Terms]) -> None:
        """Ask these from now on, and nobody else."""
        for probe in self._tasks.keys() - wanted.keys():
            self._tasks.pop(probe).cancel()
            del self._health[probe]
        loop = asyncio.get_running_loop()
        for probe, terms in wanted.items():
            if probe not in self._tasks:
                known = probe in self._remembered
                self._health[probe] = Health.remembered(terms) if known else Health(terms)
                self._tasks[probe] = loop.create_task(self._run(probe, terms))
        if wanted:
            self._remembered -= wanted.keys()

    def is_well(self, probe: Probe) -> bool:
        """Return whether a server is believed to be well."""
        health = self._health.get(probe)
        return health is not None and health.well

    def is_dead(self, probe: Probe) -> bool:
        """Return whether a server is believed not to be there at all."""
        health = self._health.get(probe)
        return health is not None and health.dead

    def well(self) -> list[Probe]:
        """Return all that are well, in order."""
        return sorted(probe for probe, health in self._health.items() if health.well)

    async def close(self) -> None:
        """Ask nobody any more."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def _run(self, probe: Probe, terms: Terms) -> None:
        health = self._health[probe]
        while True:
            begun = time.monotonic()
            if health.told(await self._ask(probe, terms.timeout)):
                self._changed()
            await asyncio.sleep(max(0.0, begun + terms.period - time.monotonic()))

    async def _ask(self, probe: Probe, timeout_s: float) -> Verdict:
        try:
            tls = self._tls() if self._tls is not None and probe.scheme == "https" else None
            async with asyncio.timeout(timeout_s):
                return await _get(probe, tls)
        except TimeoutError:
            return Verdict.SILENT
        except ConnectionError:
            return Verdict.REFUSED
        except ssl.SSLError:
            return Verdict.UNWELL
        except OSError:  # no way to it
            return Verdict.SILENT


async def _get(probe: Probe, tls: ssl.SSLContext | None) -> Verdict:
    name = probe.address if tls is not None else None
    reader, writer = await asyncio.open_connection(
        probe.address, probe.port, ssl=tls, server_hostname=name
    )
    try:
        host = str(probe).split("/")[2]
        request = f"GET {probe.path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: kproxy-balancer\r\n"
        writer.write(f"{request}Connection: close\r\n\r\n".encode())
        status = (await reader.readline())[:MOST_READ].split(b" ")
        return Verdict.WELL if status[1:2] == [b"200"] else Verdict.UNWELL
    finally:
        with contextlib.suppress(OSError):
            # Without ado: a server that hangs must not hold the next question up.
            writer.transport.abort()
