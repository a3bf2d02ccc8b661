"""Which pretrained model to start from: candidates ranked by their features, with probabilities."""

from tljax.selection.answer import Ranking as Ranking
from tljax.selection.answer import Standing as Standing
from tljax.selection.candidates import Candidate as Candidate
from tljax.selection.candidates import SelectionError as SelectionError
from tljax.selection.rank import rank_features as rank_features
