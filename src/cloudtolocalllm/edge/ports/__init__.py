"""Holds the platform's listening sockets and hands them to each nginx that asks; see `holder`."""
