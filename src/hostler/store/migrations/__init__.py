"""The way of a database to the tables of `hostler.store`, for Alembic.

A revision is never changed once it was released, and says types itself instead of importing
today's. MySQL commits after each statement: a revision that stopped half way must be able to run
again.

* ``env``: Alembic's environment
* ``versions``: Alembic's versions
"""
