"""The way of a database to the tables of `hostler.store`: Alembic's revisions, one a module.

A revision is never changed once it was released, and says types itself instead of importing
today's. MySQL commits after each statement: a revision that stopped half way must be able to run
again.

* ``v0001_apps_fns_triggers``: apps, functions and triggers
* ``v0002_beside_fn``: tables with names of hostler's own, beside Fn's, and what is known of Fn's
"""
