"""What the role of `postgres.url` could do with a stranger's statement beyond reading tables."""

from __future__ import annotations

from typing import Any

from engine.stores.store import QueryRefused

# Roles of PostgreSQL that reach the server's files, its programs, everybody's connections, or
# every table of the database with the passwords of its roles.
POWERS = ("pg_read_server_files", "pg_write_server_files", "pg_execute_server_program",
          "pg_signal_backend", "pg_read_all_data")
HINT = ("let postgres.url log in as a plain role, as docs/postgres.md makes one; "
        "postgres.query_role does not help: a statement can leave it")
# `session_user` is who logged in. Whatever role a statement runs as, it can go back to that one,
# and from there to every role that it is a member of.
_POWER = """
select m.rolname as name, m.oid = r.oid as own, r.rolsuper as super, r.rolname as power
from pg_catalog.pg_roles m
join pg_catalog.pg_roles r on pg_catalog.pg_has_role(m.oid, r.oid, 'MEMBER')
where m.rolname = session_user and (r.rolsuper or r.rolname = any($1::text[]))
order by r.oid = m.oid desc, r.rolsuper desc, r.rolname limit 1"""


async def too_mighty(connection: Any) -> str:
    """Why statements of others must not run for the role that logged in; "" when they may. Raises
    asyncpg's errors."""
    found = await connection.fetchrow(_POWER, list(POWERS))
    if found is None:
        return ""
    what = f"a member of {found['power']}"
    if found["super"]:
        what = "a superuser" if found["own"] else f"{what}, a superuser"
    return f"the role {found['name']} of postgres.url is {what}"


async def require_plain(connection: Any) -> None:
    """Raises QueryRefused for a role that could do more than read tables, asyncpg's errors."""
    why = await too_mighty(connection)
    if why:
        raise QueryRefused(f"{why}: statements could read the server's files or disturb others",
                           HINT)
