"""`tljax finetune`: fine-tuning methods on one data set, compared."""

from tljax.recipes.finetune.run import run_finetune as run_finetune
from tljax.recipes.finetune.settings import FinetuneSettings as FinetuneSettings
from tljax.recipes.finetune.settings import finetune_settings as finetune_settings
