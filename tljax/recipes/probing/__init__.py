"""What a few labels are worth on frozen features: `tl.probe`, and `tljax probe`."""

from tljax.recipes.probing.run import run_probe as run_probe
from tljax.recipes.probing.settings import ProbeSettings as ProbeSettings
from tljax.recipes.probing.settings import probe_settings as probe_settings
from tljax.recipes.probing.table import ProbeTable as ProbeTable
from tljax.recipes.probing.table import probe as probe
