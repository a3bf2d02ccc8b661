"""Named compositions of everything below."""

from tljax.recipes.closed_form import HeadError as HeadError
from tljax.recipes.closed_form import closed_form_head as closed_form_head
from tljax.recipes.closed_form import lp_ft as lp_ft
from tljax.recipes.options import SettingsError as SettingsError
from tljax.recipes.outcome import Outcome as Outcome
from tljax.recipes.probing import ProbeTable as ProbeTable
from tljax.recipes.probing import probe as probe
from tljax.recipes.ranking import Tuning as Tuning
from tljax.recipes.ranking import rank_models as rank_models
from tljax.recipes.relationship import category_relationship as category_relationship
from tljax.recipes.settings import Settings as Settings
from tljax.recipes.transfer import run_transfer as run_transfer
