"""Routes and neighbours: ``types`` is pure, ``client`` asks the kernel, ``fake`` stands in."""
