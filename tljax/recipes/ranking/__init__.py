"""`rank_models` and `tljax rank`: which pretrained model to start from."""

from tljax.recipes.ranking.models import rank_models as rank_models
from tljax.recipes.ranking.run import run_rank as run_rank
from tljax.recipes.ranking.settings import RankSettings as RankSettings
from tljax.recipes.ranking.settings import rank_settings as rank_settings
from tljax.recipes.ranking.tuning import Tuning as Tuning
