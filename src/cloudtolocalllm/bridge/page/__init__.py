"""The page and the home API, served by the bridge itself to this machine's person."""
