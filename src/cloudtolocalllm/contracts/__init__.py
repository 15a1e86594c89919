"""Plain values that cross services."""
