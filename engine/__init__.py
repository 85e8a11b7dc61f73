"""The venue: stages from the socket to the market, in the order of an order's path."""

__version__ = "0.1.0"
