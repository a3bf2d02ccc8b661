"""Named compositions of everything below."""

from tljax.recipes.options import SettingsError as SettingsError
from tljax.recipes.settings import Settings as Settings
from tljax.recipes.transfer import Outcome as Outcome
from tljax.recipes.transfer import run_transfer as run_transfer
