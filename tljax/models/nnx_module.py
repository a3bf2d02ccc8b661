"""Any Flax NNX module as a `Model`."""

from typing import Any

from tljax.models.wrapping import ModelError, jit_init, wrapped
from tljax.types import Key, Model, Output, Params


def from_nnx(
    module: Any, *, head: str | None = None, groups: tuple[str, ...] | None = None, name: str | None = None
) -> Model:
    """An NNX module, anybody's, as a `Model`.

    Args:
      module: a factory, ``lambda rngs: MyNet(rngs=rngs)`` or the class itself if `rngs` is all it needs: `init`
        then makes new parameters from its key. Or a module: `init` then returns copies of its own, whatever the
        key. ``__call__`` takes and returns what `from_flax` allows.
      head: the path of the submodule that is the head, as ``"decoder/classifier"`` or ``"layers/4"``. By default
        as in `from_flax`, with `nnx.Linear` for `nn.Dense`.
      groups: selectors from stem to head, which together match every leaf once; by default backbone, head.
      name: what to call the model; by default the class of the module.

    `nnx.Param` are parameters. `nnx.BatchStat` stand beside their layer, ``backbone/norm/batch_stats/mean``, and
    so do other variables, under the name of their type, and bare arrays, under "constants". Random streams are no
    parameters: `apply` makes them anew from its key. The module given is never changed.

    `apply(train=...)` is the module's ``train()`` or ``eval()`` and sets the switches that ``__call__`` takes.

    Raises `ModelError` for a head that was not called, a result or a frozen name it does not know, a missing key.

    >>> import jax
    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> from tljax.tree import leaf_names
    >>> class Net(nnx.Module):
    ...     def __init__(self, rngs):
    ...         self.hidden, self.out = nnx.Linear(8, 20, rngs=rngs), nnx.Linear(20, 10, rngs=rngs)
    ...     def __call__(self, x):
    ...         return self.out(nnx.relu(self.hidden(x)))
    >>> model = from_nnx(Net)
    >>> params = model.init(jax.random.key(0), jnp.ones((1, 8)))
    >>> leaf_names(params)
    ['backbone/hidden/bias', 'backbone/hidden/kernel', 'head/bias', 'head/kernel']
    >>> model.apply(params, jnp.ones((3, 8))).features.shape
    (3, 20)
    """
    from tljax.models import nnx_graph  # NNX takes time to import, and few need it

    if not callable(module):
        raise ModelError(
            f"from_nnx takes an nnx.Module or a factory, `lambda rngs: MyNet(rngs=rngs)`; found {module!r}"
        )
    known: list[nnx_graph.Graph] = []

    def graph(x: Any) -> nnx_graph.Graph:
        if not known:  # an NNX module has its shapes before any input, so one look is enough
            known.append(nnx_graph.look(module, head, x))
        return known[0]

    jitted = jit_init(lambda key, _: nnx_graph.made(known[0], module, key))

    def init(key: Key, x: Any) -> Params:
        if nnx_graph.is_module(module):  # not jitted: a module may have changed since the last call
            return nnx_graph.own(graph(x), module)
        graph(x)
        return jitted(key)

    def run(params: Params, x: Any, train: bool, key: Key | None, frozen: frozenset[str]) -> Output:
        return nnx_graph.run(graph(x), params, x, train, key, frozen)

    return wrapped(init, run, name or nnx_graph.class_name(module), groups)
