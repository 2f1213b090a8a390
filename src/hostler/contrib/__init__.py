"""What is off by default and nothing else needs.

* ``predictive_keep_alive``: predictive keep-alive: gaps, price of memory, starts ahead
"""
