"""The streaming proxy manager: makes a proxy for each user who needs one, and ends it when nobody does."""
