"""How good a source is: transferability scores from features and labels alone; of each, more is better."""

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
from tljax.scores.sfda import sfda as sfda
from tljax.scores.transrate import transrate as transrate
