"""The venue: stages from the socket to the market, in the order of an order's path."""
