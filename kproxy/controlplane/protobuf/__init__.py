"""Protobuf, as far as clients insist on it: kubectl sends some objects in no other form. Pure."""
