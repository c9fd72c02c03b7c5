"""Every exception that kproxy raises on purpose.

::

    KproxyError                what all of them are: a message for the user, and a remedy
    ├── UsageError             the command line asks for what cannot be (exit code 2)
    ├── InvalidObject          a Kubernetes object or configuration is wrong: skip it, report it
    │   └── InvalidItem        the API server handed out an object that cannot be decoded
    ├── Unsupported            this kernel or machine cannot do it
    ├── KernelError            a kernel call failed
    │   ├── NotFound           what should be changed or removed is not there
    │   └── AlreadyExists      what should be added is there already
    ├── ApiError               the API server answered with an error status
    │   ├── Gone               410: the resource version is too old, list again
    │   └── Conflict           409: somebody else has written in between
    └── MeasurementError       a measurement is not valid

Deleting what is absent is not an error for callers of backends; the kernel libraries report it
as :class:`NotFound`, so that a caller may tell.
"""


class KproxyError(Exception):
    """Something went wrong in a way that a user can understand.

    ``remedy`` says what the user can do about it; it may be empty.
    """

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message} ({self.remedy})" if self.remedy else self.message


class UsageError(KproxyError):
    """The command line or a file named on it asks for something that cannot be done."""


class InvalidObject(KproxyError):
    """An object given by the user is wrong.

    ``obj`` names it (``Service demo/web``), ``field`` is the path in it (``spec.ports[0].port``).
    """

    def __init__(self, obj: str, field: str, problem: str, *, remedy: str = "") -> None:
        self.obj = obj
        self.field = field
        self.problem = problem
        where = f"{obj}: {field}" if field else obj
        super().__init__(f"{where}: {problem}", remedy=remedy)


class InvalidItem(InvalidObject):
    """An object from the API server cannot be decoded.

    ``namespace``, ``name`` and ``resource_version`` are what it claims to be (empty: unknown), so
    that who keeps a cache can tell which object's last good version is still in force.
    """

    def __init__(self, fault: InvalidObject, namespace: str, name: str, version: str) -> None:
        super().__init__(fault.obj, fault.field, fault.problem, remedy=fault.remedy)
        self.namespace = namespace
        self.name = name
        self.resource_version = version


class Unsupported(KproxyError):
    """Not possible on this machine or kernel; the message names the missing feature."""


class KernelError(KproxyError):
    """A kernel call failed. ``operation`` names it, ``errno`` is the kernel's answer (0: none)."""

    def __init__(self, operation: str, errno: int, detail: str, *, remedy: str = "") -> None:
        self.operation = operation
        self.errno = errno
        super().__init__(f"{operation}: {detail}", remedy=remedy)


class NotFound(KernelError):
    """What should be changed or removed is not there (ENOENT, ESRCH)."""


class AlreadyExists(KernelError):
    """What should be added is there already (EEXIST)."""


class ApiError(KproxyError):
    """The API server refused. ``code`` is the HTTP status, ``reason`` Kubernetes' word.

    ``retry_after``: for so many seconds it wants to be left in peace (0: it did not say).
    """

    def __init__(self, code: int, reason: str, message: str) -> None:
        self.code = code
        self.reason = reason
        self.retry_after = 0.0
        super().__init__(message)


class Gone(ApiError):
    """410 Expired: the resource version is too old to watch from; list again."""


class Conflict(ApiError):
    """409: the object exists already, or has changed since it was read."""


class MeasurementError(KproxyError):
    """A measurement could not be made or is not valid."""
