"""What a lab's nodes tell of the machine below them, in the words of a Node's ``nodeInfo``."""

import platform
from collections.abc import Mapping

from netns.process import boot_id

_GO = {"x86_64": "amd64", "aarch64": "arm64"}


def facts() -> Mapping[str, str]:
    """Return them; names of architectures are Go's, as everywhere in Kubernetes."""
    machine = platform.machine()
    return {
        "architecture": _GO.get(machine, machine),
        "bootID": boot_id(),
        "kernelVersion": platform.release(),
        "osImage": _os_image(),
        "containerRuntimeVersion": "netns://1",
    }


def _os_image() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return "Linux"
