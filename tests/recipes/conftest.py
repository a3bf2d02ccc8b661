"""What several tests of the recipes share."""

import pytest


@pytest.fixture
def no_distance(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every A-distance is 1.5: the true one takes seconds to compile."""
    monkeypatch.setattr("tljax.recipes.adapting.measure.a_distance", lambda *features: 1.5)
