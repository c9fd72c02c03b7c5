"""Every exception that the lab raises on purpose: a message for the user, and a remedy.

::

    NetnsError
    ├── TopologyError          the topology asks for what cannot be
    ├── AddressesExhausted     a network has no address left
    ├── LabBusy                another live lab has this state directory
    ├── LabGone                there is no (longer a) live lab to attach to
    ├── KernelUnusable         the wanted kernel is not there, or lacks what a lab needs
    ├── GuestFailed            an embedded kernel died, hung or exceeded a limit
    ├── SourceUnusable         what a kernel is to be built from is not there, or is none
    ├── BuildFailed            a kernel could not be built
    ├── CommandFailed          a command in a host ended badly, or not in time
    └── WaitTimeout            what was waited for did not come in time
"""


class NetnsError(Exception):
    """Something went wrong in a way that a user can understand.

    ``remedy`` says what the user can do about it; it may be empty.
    """

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message} ({self.remedy})" if self.remedy else self.message


class TopologyError(NetnsError):
    """The topology is wrong. ``obj`` names the host or link, ``field`` what is wrong in it."""

    def __init__(self, obj: str, field: str, problem: str, *, remedy: str = "") -> None:
        self.obj = obj
        self.field = field
        self.problem = problem
        super().__init__(f"{obj}: {field}: {problem}", remedy=remedy)


class AddressesExhausted(NetnsError):
    """A network has no address left that was never used."""


class LabBusy(NetnsError):
    """Another live lab holds this state directory."""


class LabGone(NetnsError):
    """There is no live lab in this state directory, or it is being torn down."""


class CommandFailed(NetnsError):
    """A command in a host ended with an error, or not in time (``returncode`` is None then)."""

    def __init__(self, message: str, *, returncode: int | None, output: str = "") -> None:
        self.returncode = returncode
        self.output = output
        super().__init__(message)


class WaitTimeout(NetnsError):
    """What was waited for did not come before its deadline."""


class KernelUnusable(NetnsError):
    """The kernel that is asked for is not there, or lacks what a lab needs."""


class GuestFailed(NetnsError):
    """An embedded kernel did not live to tell how its command ended.

    ``console`` are the last lines it printed, ``exit_code`` is the one that tells of it.
    """

    def __init__(
        self,
        message: str,
        *,
        remedy: str = "",
        console: tuple[str, ...] = (),
        exit_code: int = 125,
    ) -> None:
        self.console = console
        self.exit_code = exit_code
        super().__init__(message, remedy=remedy)

    def lines(self, program: str) -> list[str]:
        """Return what to tell the user: one line, then the last of the console, if any."""
        return [f"{program}: {self}", *(f"  console: {line}" for line in self.console[-8:])]


class SourceUnusable(NetnsError):
    """What a kernel is to be built from is not there, or is no source of a kernel."""


class BuildFailed(NetnsError):
    """A kernel could not be built. ``output`` are the lines of the log that tell why."""

    def __init__(self, message: str, *, remedy: str = "", output: tuple[str, ...] = ()) -> None:
        self.output = output
        super().__init__(message, remedy=remedy)

    def lines(self, program: str) -> list[str]:
        """Return what to tell the user: one line, then those of the log."""
        return [f"{program}: {self}", *(f"  log: {line}" for line in self.output)]
