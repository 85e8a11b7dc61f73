"""What the market looks like: books, trades and orders, made of committed events alone."""
