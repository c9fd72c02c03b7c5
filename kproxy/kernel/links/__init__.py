"""Devices and addresses: ``types`` is pure, ``client`` asks the kernel, ``fake`` stands in."""
