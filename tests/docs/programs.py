"""Small stand-ins for programs that the pages call and that may not be installed: each does what
the pages ask of it, with the libraries that the tests have. `programs.py NAME ARGUMENT...`"""

import os
import sys


def redis_cli(*arguments: str) -> None:
    """Send one command, print the answer."""
    import redis

    with redis.Redis(port=int(os.environ["REDIS_PORT"]), decode_responses=True) as client:
        print(client.execute_command(*arguments))


def sqlite3(file: str, statement: str) -> None:
    """Run one statement, or `.backup FILE`."""
    import sqlite3

    with sqlite3.connect(f"file:{file}?mode=ro", uri=True) as connection:
        if statement.startswith(".backup "):
            with sqlite3.connect(statement.removeprefix(".backup ")) as copy:
                connection.backup(copy)
            return
        for row in connection.execute(statement):
            print("|".join(map(str, row)))


def duckdb(option: str, statement: str) -> None:
    """Run one statement: `-c STATEMENT`."""
    import duckdb

    assert option == "-c"
    print(duckdb.sql(statement))


if __name__ == "__main__":
    {"redis-cli": redis_cli, "sqlite3": sqlite3, "duckdb": duckdb}[sys.argv[1]](*sys.argv[2:])
