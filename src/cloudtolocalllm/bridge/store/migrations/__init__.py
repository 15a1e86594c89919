"""The steps by which a home store comes to its present form; the library caribou runs those that are missing.

A step begins a transaction and leaves it open: the library notes its version and commits both together, so that a
step is there whole or not at all.
"""

from cloudtolocalllm.bridge.store.migrations import v20261123000000_first

ALL = (v20261123000000_first,)
"""In order."""
NEWEST = "20261123000000"
"""Version of the last one."""
