"""A laptop's local endpoint to its homes, sealed end to end."""
