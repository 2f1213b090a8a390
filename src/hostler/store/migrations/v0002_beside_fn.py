"""Tables with names of hostler's own, beside Fn's, and what is known of Fn's."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_NAMES = ("apps", "fns", "triggers")


def upgrade() -> None:
    connection = op.get_bind()
    if "hostler_apps" not in sa.inspect(connection).get_table_names():
        # Before the first release, revision 0001 made the tables under Fn's names.
        _rename(connection)
    op.create_table(
        "hostler_taken_over",
        sa.Column("fn_digest", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("fn_digest", name="pk_taken_over"),
        if_not_exists=True,
        mysql_engine="InnoDB",
        mysql_default_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
        mysql_row_format="DYNAMIC",
    )


def _rename(connection: sa.Connection) -> None:
    if connection.dialect.name == "mysql":  # which commits each statement: all of them, or none
        pairs = ", ".join(f"{name} TO hostler_{name}" for name in _NAMES)
        op.execute(f"RENAME TABLE {pairs}")
        return
    for name in _NAMES:
        op.rename_table(name, f"hostler_{name}")
