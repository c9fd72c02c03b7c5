"""All dashboards, and where their files are. Pure."""

from pathlib import Path

from . import chain, loss, proxy, service

TAG = "kproxy"
DIRECTORY = Path(__file__).resolve().parent.parent / "deploy" / "dashboards"
ALL = (chain.BOARD, proxy.BOARD, service.BOARD, loss.BOARD)
