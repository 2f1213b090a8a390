"""``hostler`` as a client: commands that ask a node, and that bring functions to it."""
