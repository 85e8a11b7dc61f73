"""Stage 4c: durable events go into Redis, PostgreSQL and SQLite, each at its own pace."""
