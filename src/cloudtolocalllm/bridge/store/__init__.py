"""The home store: everything that is kept of the user's, in one SQLite file at home."""
