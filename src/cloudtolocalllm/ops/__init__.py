"""What an operator does to a platform that runs. The standard library only: it runs where nothing is installed."""
