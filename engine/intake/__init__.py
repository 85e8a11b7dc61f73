"""Stage 1: sockets in, command batches out."""
