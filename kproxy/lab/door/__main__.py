"""``python -m kproxy.lab.door``: see :mod:`kproxy.lab.door.server`."""

import sys

from kproxy.lab.door.server import main

if __name__ == "__main__":
    sys.exit(main())
