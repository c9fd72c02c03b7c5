"""Actions of the users' own: executables with a manifest, run as nobody in particular."""
