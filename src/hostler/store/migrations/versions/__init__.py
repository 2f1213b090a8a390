"""Alembic's versions.

* ``v0001_apps_fns_triggers``: first tables
"""
