"""The ``hostler`` command, from options and variables: it runs nodes (`hostler.nodes`), or asks
them.

* ``api``: `hostler api`, and its database: `hostler migrate`, `export` and `import`
* ``client``: client commands
* ``command``: command groups, loaded lazily; Fn's node types
* ``errors``: errors as one line and an exit code
* ``lb``: `hostler lb`
* ``options``: options that several nodes have, and their number types
* ``process``: the process of a node: signals, exit code, file limits, standard streams, pid 1,
  collector
* ``reference``: the settings' reference page
* ``runner``: `hostler runner`
* ``serve``: `hostler serve`
"""

from .command import app, main

__all__ = ["app", "main"]
