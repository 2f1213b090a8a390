"""Compares placers on virtual time: the real placer code over simulated runners.

_workload     a synthetic load like that of a public cloud
_oracle       what could be reached by who knows the future
_run          one simulation
_report       the table, in a document too, and the numbers of a plot
_plot         the picture
"""
