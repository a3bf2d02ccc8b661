"""Heads on frozen features."""

from tljax.probes.ridge import ProbeError as ProbeError
from tljax.probes.ridge import Ridge as Ridge
from tljax.probes.ridge import ridge as ridge
from tljax.probes.scale import likeliest_scale as likeliest_scale
