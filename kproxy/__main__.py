"""``python -m kproxy``, and the console script ``kproxy``.

The node proxy is looked for first and started without the command line library: importing that
would add to every restart of the proxy, which is what this project measures.
"""

import sys


def main() -> int:
    """Run the command line and return the exit code."""
    if sys.argv[1:2] == ["proxy"]:
        _end_on_signals(cleaning=any(word.startswith("--cleanup") for word in sys.argv))
        _import_msgspec()
        from kproxy.cli import nodeproxy

        return nodeproxy.main(sys.argv[2:])
    from kproxy.cli.main import main as run_group

    return run_group()


def _import_msgspec() -> None:
    """Import msgspec without typing_extensions, a tenth of all that a start imports.

    It looks for that first, and takes the same from ``typing`` where it is not installed.
    """
    name = "typing_extensions"
    if name in sys.modules:
        return
    sys.modules[name] = None  # type: ignore[assignment]  # "not to be found": importlib
    try:
        import msgspec  # noqa: F401  others find it imported
    finally:
        del sys.modules[name]


def _end_on_signals(*, cleaning: bool) -> None:
    """End well from now on: a proxy that is asked to stop while it starts has not failed.

    One that was to clean up has: it has not done what it was asked for.
    """
    import os
    import signal

    def end(number: int, _frame: object) -> None:
        if cleaning:
            os.write(2, b"kproxy proxy: interrupted: not everything was cleaned up\n")
        os._exit(128 + number if cleaning else 0)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)


if __name__ == "__main__":
    sys.exit(main())
