"""Small models and data whose every number can be computed by hand."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from tljax.models import from_flax
from tljax.types import Batch, Model, Output

CLASSES = 3
WIDTH = 4


def _apply(params, x, *, train=False, key=None, frozen=frozenset()):
    del train, key, frozen
    features = jnp.tanh(x @ params["backbone"]["w"] + params["backbone"]["b"][None])
    return Output(features @ params["head"]["w"] + params["head"]["b"][None], features)


def _init(key, x):
    a, b = jax.random.split(key)
    return {
        "backbone": {"w": jax.random.normal(a, (x.shape[-1], WIDTH)) / 2, "b": jnp.zeros(WIDTH)},
        "head": {"w": jax.random.normal(b, (WIDTH, CLASSES)) / 2, "b": jnp.zeros(CLASSES)},
    }


TANH = Model(_init, _apply, name="tanh net")
"""One hidden layer, in plain JAX: cheap to compile."""


class _Normed(nn.Module):
    """Dense, BatchNorm, Dense, BatchNorm, Dropout, head."""

    dropout: float = 0.0

    @nn.compact
    def __call__(self, x, train: bool = False):
        for i in range(2):
            x = nn.Dense(WIDTH, name=f"dense_{i}")(x)
            x = nn.BatchNorm(use_running_average=not train, momentum=0.5, name=f"norm_{i}")(x)
            x = nn.relu(x)
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return nn.Dense(CLASSES, name="head")(x)


def normed(dropout=0.0):
    return from_flax(_Normed(dropout), head="head", name="normed net")


def examples(n=24, features=5, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, features)).astype(np.float32)
    y = (x @ rng.normal(size=(features, CLASSES))).argmax(1).astype(np.int32)
    return x, y


def batch(n=24, seed=0):
    return {"train": Batch(*map(jnp.asarray, examples(n, seed=seed)))}


def same(a, b):
    """Whether two trees are equal bit for bit, structure included."""
    if jax.tree.structure(a) != jax.tree.structure(b):
        return False
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b))
    return all(np.asarray(x).tobytes() == np.asarray(y).tobytes() and x.dtype == y.dtype for x, y in pairs)


def close(a, b, rtol=1e-5, atol=1e-6):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=rtol, atol=atol), a, b)
