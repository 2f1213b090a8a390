"""The drivers that come with hostler: ``docker``, ``process`` and ``sim``.

Each is a package of its own with an ``open_..._driver`` and is imported only when it is used, so
that a program without Docker needs no Docker library.

* ``docker``: the Docker driver: the only Docker SDK
* ``process``: functions as local processes
* ``sim``: simulated containers on virtual time
"""
