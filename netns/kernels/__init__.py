"""On which kernel a command runs: this machine's, or one that is booted for it.

``base`` says what a kernel provider is, ``native`` and ``uml`` are two, ``choice`` picks one.
The guest's side (``guest``, ``guest_setup``, ``guest_child``, ``frames``) is what an embedded
kernel runs first: it uses the standard library only, and this file is free of imports for it.
"""
