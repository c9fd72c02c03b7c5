"""IP Virtual Server: ``types`` is pure, ``client`` asks the kernel, ``fake`` stands in."""
