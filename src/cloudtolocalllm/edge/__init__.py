"""The embedded edge: routes, authorises, streams; the same contract as the nginx of a larger set-up."""
