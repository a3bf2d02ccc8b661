"""The features of any layer of any model, extracted once and kept on disk."""

from tljax.features.extract import Features as Features
from tljax.features.extract import extract as extract
from tljax.features.inputs import FeatureError as FeatureError
from tljax.features.layers import layers as layers
