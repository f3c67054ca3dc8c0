"""The target ``compose``: a graph of Services on one machine, one container for each, as a compose file."""
