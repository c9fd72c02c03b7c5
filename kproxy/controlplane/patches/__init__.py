"""The four ways in which a client says what to change of an object. Pure."""
