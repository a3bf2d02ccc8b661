"""`tljax adapt`: from a labelled domain to one without labels."""

from tljax.recipes.adapting.methods import METHODS as METHODS
from tljax.recipes.adapting.run import run_adapt as run_adapt
from tljax.recipes.adapting.settings import AdaptSettings as AdaptSettings
from tljax.recipes.adapting.settings import adapt_settings as adapt_settings
