"""Fields between the cloud and the bridge.

Who a request is from, the user's proxy tells the bridge by fields that it sets and takes from nobody.
"""

VIA = b"c2l-via"
"""SESSION or KEY: by what the user showed who it is."""
VIA_SESSION = b"session"
VIA_KEY = b"key"
KEY_ID = b"c2l-key"
"""With KEY: the API key's id."""
KEY_SCOPE = b"c2l-scope"
"""With KEY: what the key may do and when it was made and expires, base64url of a JSON object, without padding."""
READABLE = (b"c2l-readable", b"in-passing")
"""In answers of the plain routes: the cloud could read request and answer as they passed."""
