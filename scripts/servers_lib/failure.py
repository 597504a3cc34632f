"""The one error of these programs."""


class Failed(Exception):
    """What was tried, and what to do; printed as it is, without a traceback."""
