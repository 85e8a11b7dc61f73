"""What `matchd top` shows: a venue in figures, over its public interfaces alone.

`source` asks, `scrape` reads `/metrics`, `view` makes figures of two looks, `markets` follows the
feed, `tables` writes, and `screen` shows it in a terminal.
"""
