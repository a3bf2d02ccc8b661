"""Who learns, and how fast."""

from tljax.plans.plan import Plan as Plan
from tljax.plans.plan import PlanError as PlanError
from tljax.plans.plan import Resolved as Resolved
from tljax.plans.plan import Rule as Rule
from tljax.plans.plan import Setting as Setting
from tljax.plans.plan import freeze as freeze
from tljax.plans.plan import linear_probe as linear_probe
from tljax.plans.plan import plan as plan
from tljax.plans.plan import rate as rate
from tljax.plans.plan import unfreeze as unfreeze
