"""Stage 4a: durable events in, each owner's private answers out."""
