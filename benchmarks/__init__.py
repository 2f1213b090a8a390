"""Benchmarks of whole nodes, in real processes.

``scripts/bench`` runs them. A scenario is one small module in ``scenarios/``; see
``_scenario.py`` for what it has to offer.

* ``load.py``: the load generator, a process of its own, without any HTTP library
* ``_plan.py``: what it is told to do, and what it tells
* ``_target.py``: what the load goes to: hostler's processes, a bare function, or any URL
* ``_usage.py``: CPU time and memory of processes
* ``_measure.py``: one run = load + usage -> metrics
* ``_report.py``: medians and spread, the file, the table, the comparison with an older file
"""
