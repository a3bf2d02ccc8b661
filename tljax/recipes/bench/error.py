"""What goes wrong with a measurement."""

from tljax.types import TljaxError


class BenchError(TljaxError):
    """A measurement that cannot be made, or that could not be trusted."""
