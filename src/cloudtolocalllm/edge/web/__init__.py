"""Serves the built page alone, for nginx: the static part of the embedded edge in a process of its own."""
