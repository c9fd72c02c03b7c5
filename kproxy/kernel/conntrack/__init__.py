"""Connection tracking: ``types`` is pure, ``client`` asks the kernel, ``fake`` stands in."""
