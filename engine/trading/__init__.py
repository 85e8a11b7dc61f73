"""Stage 2: command batches in, event batches out, in one synchronous call each."""
