"""Who learns, and how fast."""

from tljax.plans.freezing import adapters_only as adapters_only
from tljax.plans.freezing import bitfit as bitfit
from tljax.plans.freezing import freeze as freeze
from tljax.plans.freezing import linear_probe as linear_probe
from tljax.plans.freezing import norm_only as norm_only
from tljax.plans.freezing import surgical as surgical
from tljax.plans.freezing import unfreeze as unfreeze
from tljax.plans.plan import Plan as Plan
from tljax.plans.plan import Resolved as Resolved
from tljax.plans.plan import Rule as Rule
from tljax.plans.plan import plan as plan
from tljax.plans.rates import decay as decay
from tljax.plans.rates import discriminative as discriminative
from tljax.plans.rates import layerwise_decay as layerwise_decay
from tljax.plans.rates import lora_plus as lora_plus
from tljax.plans.rates import rate as rate
from tljax.plans.relative import auto_rgn as auto_rgn
from tljax.plans.setting import PlanError as PlanError
from tljax.plans.setting import Setting as Setting
from tljax.plans.unfreezing import gradual_unfreeze as gradual_unfreeze
