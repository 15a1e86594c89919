"""The home API: what the user's own clients may do with their home, apart from how a request comes here."""
