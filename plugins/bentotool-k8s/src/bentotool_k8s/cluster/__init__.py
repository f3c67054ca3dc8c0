"""What talks to a cluster: knows no manifest of ours, only objects that it is given."""
