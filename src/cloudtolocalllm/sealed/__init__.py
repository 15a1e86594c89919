"""The end-to-end envelope, without any I/O: Binary HTTP, chunked OHTTP, keys, devices, padding, pairing."""
