"""The one exception of the core."""


class CoreError(ValueError):
    """Data given to the core is not what the core made: a damaged state, a log out of step."""
