"""The gateway (RFC 9458): opens what devices have sealed, proves whose it is, and seals the answers."""
