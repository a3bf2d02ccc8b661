"""How good a source is: transferability scores, and validators without labels; of each, more is better."""

from tljax.scores.dev import dev as dev
from tljax.scores.gbc import gbc as gbc
from tljax.scores.h_score import h_score as h_score
from tljax.scores.h_score import shrinkage_h_score as shrinkage_h_score
from tljax.scores.inputs import ScoreError as ScoreError
from tljax.scores.leep import leep as leep
from tljax.scores.leep import nce as nce
from tljax.scores.lfc import lfc as lfc
from tljax.scores.logme import logme as logme
from tljax.scores.neighbours import knn as knn
from tljax.scores.nleep import nleep as nleep
from tljax.scores.pactran import pactran as pactran
from tljax.scores.parc import parc as parc
from tljax.scores.ridge import ridge as ridge
from tljax.scores.sfda import sfda as sfda
from tljax.scores.transrate import transrate as transrate
from tljax.scores.validators import certainty as certainty
from tljax.scores.validators import information as information
from tljax.scores.validators import nuclear_norm as nuclear_norm
from tljax.scores.validators import soft_density as soft_density
from tljax.scores.validators import source_validation as source_validation
