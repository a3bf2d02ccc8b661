"""The one error of this part."""

from tljax.types import TljaxError


class DataError(TljaxError):
    """Data that cannot be used: the message names the data set or file, what is wrong with it, and where."""
