"""Terms whose functions give something other than a term's: the error names the term, what was found and expected."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tljax.objectives import Owned, Scene, Term, TermError, cross_entropy, stateless
from tljax.objectives.term import asked, begun
from tljax.types import Batch, Output

X, Y = jnp.ones((3, 2)), jnp.array([0, 1, 1])
OUTPUTS = {name: Output(X, X) for name in ("source", "target")}
SCENE = Scene(OUTPUTS, {"source": Batch(X, Y), "target": Batch(X)}, {}, None, jnp.int32(0), jax.random.key(0))
ONE = jnp.float32(1)


def gives(found, state=()):
    """A term whose `apply` gives `found`, after `state`."""
    return Term(lambda owned, scene: found, lambda key, scene: Owned((), state), "mine(2)")


@pytest.mark.parametrize(
    ("found", "state", "message"),
    [
        ((ONE, ()), (), r"mine\(2\): apply returns \(value, state, metrics\); found tuple"),
        (ONE, (), r"apply returns \(value, state, metrics\); found float32\[\]"),
        ((jnp.ones(3), (), {}), (), r"the value that apply returns is one float; found float32\[3\]"),
        ((jnp.int32(1), (), {}), (), r"the value that apply returns is one float; found int32\[\]"),
        ((None, (), {}), (), r"the value that apply returns is one float; found NoneType None"),
        ((ONE, (), ONE), (), r"the metrics that apply returns are a dict by name; found float32\[\]"),
        ((ONE, (), {"v": jnp.ones(2)}), (), r"the metric 'v' is one number; found float32\[2\]"),
        ((ONE, (), {"loss": ONE}), (), r"none of those that the trainer logs, loss, grad_norm.*; found 'loss'"),
        ((ONE, (), {3: ONE}), (), "metrics have names.*; found 3"),
        ((ONE, (), {}), {"t": ONE}, r"is like the one that it got, which init made; found PyTreeDef\(\(\)\) after"),
        ((ONE, {"t": jnp.ones(2)}, {}), {"t": ONE}, r"'t' is float32\[2\] after float32\[\]"),
        ((ONE, {"t": jnp.int32(1)}, {}), {"t": ONE}, r"'t' is int32\[\] after float32\[\]"),
    ],
)
@pytest.mark.parametrize("within", [lambda t: t, lambda t: cross_entropy() + 0.5 * t], ids=["alone", "in a sum"])
def test_what_apply_gives(found, state, message, within):
    term = within(gives(found, state))
    owned = begun(term, jax.random.key(0), SCENE)
    with pytest.raises(TermError, match=message) as error:
        asked(term, owned, SCENE)
    assert str(error.value).startswith("mine(2)")


def test_what_init_gives():
    with pytest.raises(TermError, match=r"mine\(\): init returns Owned\(params, state\); found dict \{'w': 1\}"):
        begun(Term(lambda owned, scene: None, lambda key, scene: {"w": 1}, "mine()"), jax.random.key(0), SCENE)
    counts = Term(lambda owned, scene: None, lambda key, scene: Owned({"n": jnp.zeros(3, int)}), "mine()")
    with pytest.raises(TermError, match=r"parameters are floats.*'n' is int32\[3\]"):
        begun(cross_entropy() + counts, jax.random.key(0), SCENE)


def test_numbers_of_python_do():
    plain = stateless(lambda scene: (0.5, {"half": 0.5, "all": True, "n": np.int64(3)}), "plain()", "source")
    value, _, metrics = asked(0.1 * plain + plain, Owned(((), ()), ((), ())), SCENE)
    assert float(value) == pytest.approx(0.55)
    assert {name: float(number) for name, number in metrics.items()} == {
        "half": 0.5, "all": 1, "n": 3, "half_2": 0.5, "all_2": 1, "n_2": 3,
    }  # fmt: skip


def test_an_error_of_the_terms_own_says_which_term_it_was():
    wrong = stateless(lambda scene: (scene.outputs["weak"].logits.sum(), {}), "wrong()", "source", "target")
    with pytest.raises(KeyError) as error:
        asked(cross_entropy() + wrong, Owned(((), ()), ((), ())), SCENE)
    assert error.value.__notes__ == ["in apply, which reads 'source', 'target', of the term wrong()"]
    shapes = stateless(
        lambda scene: (jnp.sum(X @ jnp.ones((5, 5))), {}), "shapes()", "source"
    )  # JAX adds a note itself
    with pytest.raises(TypeError) as error:
        asked(cross_entropy() + shapes, Owned(((), ()), ((), ())), SCENE)
    assert [note for note in error.value.__notes__ if "term" in note] == [
        "in apply, which reads 'source', of the term shapes()"
    ]
