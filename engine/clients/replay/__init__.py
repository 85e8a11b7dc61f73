"""A recorded day, sent through the daemon's TCP port and checked against what comes back.

In reading order: `commands` (the lines of a day), `lobster` (a recording as such lines), `book`
(what the reports say the book is), `checker` (is every answer the right one?), `driver` (sends,
at most a window ahead of the answers), `report` (what came of it).
"""
