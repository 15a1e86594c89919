"""Signing in with an OpenID provider: authorisation code and PKCE in the backend, for browsers that hold no token."""
