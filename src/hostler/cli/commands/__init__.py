"""The commands that run nodes, and their options. What a node is made of is imported when it is
made: help and completion must not wait for it."""
