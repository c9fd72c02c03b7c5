"""What threads may decode without having made a decoder: all kinds, in a process of its own."""

import subprocess
import sys

PROGRAM = """
import sys, types
from kproxy.api import catalog, codec, kinds
from kproxy.errors import InvalidItem

asked = []

def profile(frame: types.FrameType, event: str, argument: object) -> None:
    if event == "call" and "msgspec" in frame.f_code.co_filename:
        asked.append(frame.f_code.co_name)

sys.setprofile(profile)
for kind in kinds.known():
    try:
        codec.from_dict({"metadata": {"name": "a"}, "spec": {}, "status": {}}, kind.type)
    except InvalidItem:
        pass  # it lacks what such an object must have
sys.setprofile(None)
assert asked == [], asked
"""


def test_nothing_is_left_to_learn_of_a_type_when_threads_decode_it() -> None:
    """Two that learn types with common parts at once crash in msgspec (0.22), or get SystemError.

    An API server answered so with 500.
    """
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
