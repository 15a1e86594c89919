"""manager/drivers."""
