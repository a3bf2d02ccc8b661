"""The algebra of terms: sums, factors, descriptions, and what each term owns."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tljax.objectives import Owned, Phase, Scene, Term, cross_entropy, objective, separate, stateless


def scene(step=0, seed=0, **given):
    return Scene({}, {}, {}, lambda params, x: None, jnp.int32(step), jax.random.key(seed))._replace(**given)


def constant(value, name="term", *streams):
    return stateless(lambda s: (jnp.float32(value), {name: jnp.float32(value)}), name, *streams)


def counter(name, start):
    """Adds its parameter to its count, and counts on."""

    def init(key, s):
        return Owned(params=jnp.float32(start), state=jnp.int32(start))

    def apply(owned, s):
        return owned.params + owned.state.astype(jnp.float32), owned.state + 1, {name: owned.state}

    return Term(apply, init, name)


def noise(name):
    def init(key, s):
        return Owned(state=jax.random.normal(key))

    def apply(owned, s):
        return owned.state, owned.state, {name: jax.random.normal(s.key)}

    return Term(apply, init, name)


def value(term, **given):
    s = scene(**given)
    return float(term.apply(term.init(s.key, s), s)[0])


@pytest.mark.parametrize(
    ("term", "expected", "text"),
    [
        (constant(2, "a") + constant(3, "b"), 5.0, "a + b"),
        (0.5 * constant(2, "a"), 1.0, "0.5 * a"),
        (constant(2, "a") * 3, 6.0, "3 * a"),
        (2 * (constant(2, "a") + constant(3, "b")), 10.0, "2 * (a + b)"),
        (2 * constant(2, "a") + constant(3, "b"), 7.0, "2 * a + b"),
        (0.5 * (4 * constant(2, "a")), 4.0, "0.5 * 4 * a"),
        (sum([constant(1, "a"), constant(2, "b"), constant(3, "c")]), 6.0, "a + b + c"),
        (constant(1, "a") + 0, 1.0, "a"),
        (constant(1, "a") + (constant(2, "b") + constant(3, "c")), 6.0, "a + b + c"),
        (objective(constant(1, "a"), 2 * constant(2, "b")), 5.0, "a + 2 * b"),
        (objective(constant(1, "a")), 1.0, "a"),
        (np.float64(0.1) * constant(2, "a"), 0.2, "0.1 * a"),
        (jnp.float32(0.1) * constant(2, "a"), 0.2, "0.1 * a"),
        (constant(2, "a") * np.array(0.1), 0.2, "0.1 * a"),
        (constant(2, "a") - 0.5 * constant(3, "b"), 0.5, "a + -1 * 0.5 * b"),
        (-(constant(2, "a") + constant(3, "b")), -5.0, "-1 * (a + b)"),
        (constant(2, "a") / 4, 0.5, "0.25 * a"),
    ],
)
def test_values_and_descriptions(term, expected, text):
    assert value(term) == pytest.approx(expected)
    assert str(term) == text


def test_schedule_follows_the_step():
    term = optax.linear_schedule(0.0, 1.0, 10) * constant(4, "a")
    assert [value(term, step=t) for t in (0, 5, 10, 99)] == [0.0, 2.0, 4.0, 4.0]
    assert str(term) == "schedule * a"

    def warm_up(step):
        return jnp.minimum(step, 2)  # an integer: the factor takes the value's type

    assert value(warm_up * constant(4, "a"), step=1) == 4.0
    assert str(warm_up * constant(4, "a")) == "warm_up * a"
    assert str(partial(warm_up) * constant(4, "a")) == "partial * a"


def test_factor_may_be_traced():
    doubled = jax.vmap(lambda factor: (factor * constant(4, "a")).apply(Owned(), scene())[0])
    np.testing.assert_array_equal(doubled(jnp.array([1.0, 2.0])), [4.0, 8.0])


def test_metrics_are_not_scaled():
    _, _, metrics = (0.5 * constant(2, "a")).apply(Owned(), scene())
    assert metrics == {"a": 2.0}


def test_no_metric_hides_another():
    s = scene()
    term = constant(1, "a") + constant(2, "a") + constant(3, "a") + constant(4, "b")
    _, _, metrics = term.apply(term.init(s.key, s), s)
    assert {k: float(v) for k, v in metrics.items()} == {"a": 1, "a_2": 2, "a_3": 3, "b": 4}


def test_states_and_params_are_kept_apart():
    s = scene()
    term = counter("a", 1) + 10.0 * (counter("b", 5) + counter("c", 7))
    owned = term.init(s.key, s)
    assert jax.tree.leaves(owned.params) == [1.0, 5.0, 7.0]
    for turn in range(3):
        total, state, metrics = term.apply(owned, s)
        assert float(total) == (2 + turn) + 10 * (10 + turn) + 10 * (14 + turn)
        assert [int(metrics[name]) for name in "abc"] == [1 + turn, 5 + turn, 7 + turn]
        owned = owned._replace(state=state)


def test_gradients_reach_each_terms_own_params():
    s = scene()
    term = counter("a", 1) + 10.0 * counter("b", 5)
    owned = term.init(s.key, s)
    grads = jax.grad(lambda p: term.apply(owned._replace(params=p), s)[0])(owned.params)
    assert jax.tree.leaves(grads) == [1.0, 10.0]


def test_keys_are_independent():
    s = scene(seed=3)
    term = noise("a") + (noise("b") + noise("c")) + noise("d")
    owned = term.init(jax.random.key(3), s)
    _, _, metrics = term.apply(owned, s)
    draws = [float(m) for m in metrics.values()]
    assert len(set(draws)) == 4
    assert len({float(x) for x in jax.tree.leaves(owned.state)}) == 4
    again = [float(m) for m in term.apply(owned, s)[2].values()]
    assert again == draws
    other = [float(m) for m in term.apply(owned, scene(seed=4))[2].values()]
    assert not set(other) & set(draws)


def test_a_term_may_stand_in_two_objectives():
    shared = constant(1, "a")
    first, second = shared + constant(2, "b"), 3 * shared
    assert (value(first), value(second), str(shared)) == (3.0, 3.0, "a")


def test_streams_are_joined_in_order():
    term = constant(1, "a", "weak") + constant(1, "b", "target", "weak") + constant(1, "c")
    assert term.streams == ("weak", "target", "train")


def test_the_labelled_stream_is_the_source_where_there_are_domains():
    term = cross_entropy() + constant(1, "b", "source", "target")
    assert term.streams == ("source", "target")
    assert (constant(1, "b", "target") + cross_entropy()).streams == ("target", "train")


def test_joined_streams_and_layers_are_those_of_all_terms():
    both = ("source", "target")
    first = stateless(lambda s: (jnp.float32(0), {}), "a", *both, joint=both)
    second = dataclasses.replace(constant(1, "b", *both), layers=("backbone",))
    term = 0.5 * (cross_entropy() + first) + second
    assert (term.joint, term.layers) == (both, ("backbone",))
    assert separate(term).joint == ()
    assert (2 * term).streams == term.streams


@pytest.mark.parametrize(
    "wrong",
    [
        lambda t: t + 1,
        lambda t: 1.0 + t,
        lambda t: t + None,
        lambda t: [t] + t,  # noqa: RUF005
        lambda t: objective(),
        lambda t: objective(t, "cross_entropy"),
        lambda t: objective([t]),
        lambda t: t * t,
        lambda t: "a" * t,
        lambda t: None * t,
        lambda t: t * [1.0],
        lambda t: t * jnp.ones(2),
        lambda t: np.ones(2) * t,
        lambda t: float("nan") * t,
        lambda t: np.float32("inf") * t,
        lambda t: t - 1,
    ],
)
def test_what_is_no_term_or_factor_raises(wrong):
    with pytest.raises(TypeError):
        wrong(constant(1, "a"))


def test_the_error_names_what_was_found():
    with pytest.raises(TypeError, match=r"number or a schedule.*found str: 0.1"):
        "0.1" * cross_entropy()


def test_under_jit():
    s = scene()
    term = counter("a", 1) + optax.linear_schedule(0.0, 1.0, 10) * counter("b", 5)
    owned = term.init(s.key, s)

    @jax.jit
    def run(owned, step):
        return term.apply(owned, scene()._replace(step=step))

    total, state, _ = run(owned, jnp.int32(5))
    assert float(total) == 2 + 0.5 * 10
    assert jax.tree.leaves(state) == [2, 6]


def test_a_term_counts_in_the_phases_that_want_it():
    phased = dataclasses.replace(constant(2, "game"), phases=(Phase("all"), Phase("own", others=False)))
    term = counter("count", 2) + 0.5 * phased
    owned = term.init(jax.random.key(0), scene())
    found = {name: term.apply(owned, scene(phase=name)) for name in ("all", "own")}
    assert [float(f[0]) for f in found.values()] == [5.0, 1.0]
    assert [int(f[1][0]) for f in found.values()] == [3, 2]  # a term that does not count stays as it is
    assert [sorted(f[2]) for f in found.values()] == [["count", "game"], ["game"]]
    assert term.learns(term.phases[1], owned.params) == (False, ())


def test_two_terms_with_phases_do_not_add_up():
    phased = dataclasses.replace(constant(2, "game"), phases=(Phase("all"),))
    with pytest.raises(TypeError, match="game has the phases all, and 2 \\* game has all"):
        phased + 2 * phased
