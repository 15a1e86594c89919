"""Runs: answers that the bridge itself asks an engine for, stores, and shows to whoever watches."""
