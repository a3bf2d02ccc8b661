"""Small models and data whose every number can be computed by hand."""

import jax
import jax.numpy as jnp
import numpy as np

from tljax.evaluation import Metric
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


def normed(dropout=0.0):
    import flax.linen as nn  # the subprocesses of test_resume do without these two

    from tljax.models import from_flax

    class Normed(nn.Module):
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

    return from_flax(Normed(dropout), head="head", name="normed net")


HITS = Metric(
    lambda: (jnp.float32(0), jnp.float32(0)),
    lambda s, logits, y, w: (s[0] + jnp.sum(w * (jnp.argmax(logits, -1) == y).astype(w.dtype)), s[1] + jnp.sum(w)),
    lambda s: {"accuracy": s[0] / s[1]},
    lambda a, b: (a[0] + b[0], a[1] + b[1]),
)
"""The accuracy, in a fraction of the time that the real metrics take to compile."""


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
