"""Compares keep-alive policies on virtual time: the real policies over one simulated runner.

_load      hours of a synthetic load like that of a public cloud
_world     a runner: memory, hot containers, cold starts, evictions
_rivals    policies to compare with, and what who knows the future could do
_run       one simulation
_report    the table, in a document too
_plot      the picture
"""
