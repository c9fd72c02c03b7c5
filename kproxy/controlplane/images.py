"""Images: what runs in a container whose manifest names no command. Pure.

There are no image files here: programs run on the host's file system. An image is a name for a
command. A container that has a ``command`` runs that, whatever its image is called; the image's
other properties hold for it all the same.

A lab may map names to commands::

    images:
      nginx: {image: web}
      example.org/shop/cart: {command: [python3, cart.py], env: {PORT: "8080"}}
      redis: {image: echo, instead: true}

``instead``: a stand-in for whatever the manifest says, whose command, probes and hooks are those
of a program that is not here.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from kproxy import errors
from kproxy.api.pods import Container


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """What a name stands for. ``command`` and ``args`` are an image's ENTRYPOINT and CMD."""

    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    echo: bool = False
    """Whether it is the runtime's own echo server, which needs no command."""
    own_log: bool = False
    listens: bool = False
    """Whether a container without readiness probe is ready only when it listens on its ports."""
    instead: bool = False
    """Whether command, args, probes and hooks of a container do not count: they are another's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What a container runs; an empty command is the runtime's echo server."""

    command: tuple[str, ...]
    env: Mapping[str, str]
    own_log: bool
    listens: bool


class UnknownImage(errors.KproxyError):
    """Nobody knows what to run for this image."""


_PYTHON = (sys.executable, "-m")
_SHELL = Image(args=("sh",))
BUILT_IN: Mapping[str, Image] = {
    "echo": Image(echo=True, own_log=True, listens=True),
    "kproxy": Image(command=(*_PYTHON, "kproxy"), own_log=True, listens=True),
    "kproxy-dns": Image(command=(*_PYTHON, "kproxy.controlplane.dns"), own_log=True),
    "kproxy-prober": Image(command=(*_PYTHON, "kproxy.monitoring.prober"), own_log=True),
    "kube-state-metrics": Image(command=(*_PYTHON, "kproxy.monitoring.state"), own_log=True),
    "web": Image(command=(*_PYTHON, "kproxy.traffic.webserver")),
    "pause": Image(command=("sleep", "infinity")),
    "sleep": Image(command=("sleep",), args=("infinity",)),
    "busybox": _SHELL,
    "alpine": _SHELL,
    "debian": _SHELL,
    "ubuntu": _SHELL,
    "bash": Image(args=("bash",)),
    "python": Image(args=("python3",)),
}
"""By the last part of the name, without tag: ``registry.k8s.io/pause:3.9`` is ``pause``."""


class _Mapping(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One entry of a lab's ``images``."""

    image: str = ""
    command: list[str] = []
    args: list[str] = []
    env: dict[str, str] = {}
    instead: bool = False


class Images:
    """The images that are known: built-in ones and those of a lab.

    ``otherwise``: what an unknown one stands for; None: nothing, it cannot be run.
    """

    def __init__(
        self, mapped: Mapping[str, Image] | None = None, otherwise: Image | None = None
    ) -> None:
        self._mapped = dict(mapped or {})
        self._otherwise = otherwise

    @classmethod
    def parse(cls, mapping: object, otherwise: Image | None = None) -> "Images":
        """Return the images of a lab's ``images``. Raises UsageError naming entry and remedy."""
        try:
            entries = msgspec.convert(mapping or {}, dict[str, _Mapping])
        except msgspec.ValidationError as error:
            raise errors.UsageError(
                f"images: {error}", remedy="write NAME: {command: [...]} or NAME: {image: KNOWN}"
            ) from None
        return cls({name: _mapped(name, entry) for name, entry in entries.items()}, otherwise)

    def find(self, name: str) -> Image | None:
        """Return what an image name stands for: as written, without tag, or its last part."""
        bare = _untagged(name)
        for candidate in (name, bare, bare.rpartition("/")[2]):
            if candidate in self._mapped:
                return self._mapped[candidate]
        return BUILT_IN.get(bare.rpartition("/")[2] or "echo", self._otherwise)

    def container(self, wanted: Container) -> Container:
        """Return what there is to be run of a container: all, unless its image is a stand-in."""
        image = self.find(wanted.image)
        if image is None or not image.instead:
            return wanted
        return msgspec.structs.replace(
            wanted,
            command=None,
            args=None,
            readiness_probe=None,
            liveness_probe=None,
            startup_probe=None,
            lifecycle=None,
        )

    def program(self, container: Container) -> Program:
        """Return what a container runs. Raises UnknownImage."""
        image = self.find(container.image)
        if image is None and not container.command:
            known = ", ".join(sorted({*BUILT_IN, *self._mapped}))
            raise UnknownImage(
                f'image "{container.image}" is not known here; known are: {known}',
                remedy="give the container a command, or map the image in the lab's file: "
                f"images: {{{_untagged(container.image)}: {{command: [...]}}}}",
            )
        image = image or Image()
        if container.command:
            command = (*container.command, *(container.args or ()))
        elif image.echo:
            command = ()
        else:
            command = (*image.command, *(image.args if container.args is None else container.args))
        listens = image.listens and (bool(container.image) or not container.command)
        return Program(command=command, env=image.env, own_log=image.own_log, listens=listens)


def _untagged(name: str) -> str:
    """Return an image's name without digest and tag."""
    name = name.partition("@")[0]
    head, colon, tag = name.rpartition(":")
    return head if colon and "/" not in tag else name


def _mapped(name: str, entry: _Mapping) -> Image:
    where = f"images: {name}"
    if bool(entry.image) is bool(entry.command):
        raise errors.UsageError(
            f"{where}: must have either image or command", remedy=f"known: {', '.join(BUILT_IN)}"
        )
    base = Image(command=tuple(entry.command))
    if entry.image:
        if entry.image not in BUILT_IN:
            raise errors.UsageError(
                f"{where}.image: {entry.image!r} is not built in",
                remedy=f"use one of {', '.join(BUILT_IN)}",
            )
        base = BUILT_IN[entry.image]
    return Image(
        command=base.command,
        args=tuple(entry.args) or base.args,
        env={**base.env, **entry.env},
        echo=base.echo,
        own_log=base.own_log,
        listens=base.listens,
        instead=entry.instead,
    )
