"""The step, and the loop around it. Knows no method by name."""

from tljax.training.failure import NonFiniteError as NonFiniteError
from tljax.training.fit import Result as Result
from tljax.training.fit import fit as fit
from tljax.training.fit import fit_many as fit_many
from tljax.training.inputs import FitError as FitError
from tljax.training.layout import Layout as Layout
from tljax.training.layout import LayoutError as LayoutError
from tljax.training.layout import layout as layout
from tljax.training.layout import shard as shard
from tljax.training.log import read_rows as read_rows
from tljax.training.mesh import MeshError as MeshError
from tljax.training.mesh import mesh as mesh
from tljax.training.options import Options as Options
from tljax.training.pmap import pmap_step as pmap_step
from tljax.training.signals import Terminated as Terminated
from tljax.training.state import Run as Run
from tljax.training.state import State as State
from tljax.training.step import Step as Step
from tljax.training.step import StepError as StepError
from tljax.training.step import make_step as make_step
from tljax.training.together import compile_all as compile_all
from tljax.training.traffic import Collective as Collective
from tljax.training.traffic import Traffic as Traffic
from tljax.training.traffic import collectives as collectives
from tljax.training.traffic import step_traffic as step_traffic
