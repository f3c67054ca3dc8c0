"""What is said of a Bento beside its bytes: what is in it, and how, from what and by whom it was built."""
