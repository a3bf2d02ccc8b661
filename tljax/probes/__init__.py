"""Heads on frozen features."""

from tljax.probes.centroid import centroid as centroid
from tljax.probes.inputs import Names as Names
from tljax.probes.inputs import ProbeError as ProbeError
from tljax.probes.knn import Neighbours as Neighbours
from tljax.probes.knn import knn as knn
from tljax.probes.lda import lda as lda
from tljax.probes.linear import Linear as Linear
from tljax.probes.logistic import Logistic as Logistic
from tljax.probes.logistic import logistic as logistic
from tljax.probes.paths import RidgePaths as RidgePaths
from tljax.probes.paths import ridge_paths as ridge_paths
from tljax.probes.ridge import Ridge as Ridge
from tljax.probes.ridge import ridge as ridge
from tljax.probes.temperature import temperature as temperature
