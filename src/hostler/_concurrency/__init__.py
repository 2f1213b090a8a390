"""Small Trio primitives.

* ``alarm``: one wait, or one timer for many deadlines, whose time may change
* ``directory_watch``: directory changes by one inotify instance
* ``drain``: the seconds one drain has, shared by all parts of a node
* ``flight_cache``: single-flight cache that asks once for all and survives failures of its source
* ``gate``: counted admission with an orderly end
* ``nurseries``: background and sheltered nurseries, and telling cancellations from timeouts in
  groups
* ``signal``: waiting for the next change, and for quiet
"""
