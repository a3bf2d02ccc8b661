"""The reference values, which a NumPy program computes from the definitions."""

import json
import pathlib
import runpy

import jax.numpy as jnp
import numpy as np
import pytest

from tljax.merging import Gram, fisher_merge, regmean, slerp, task_arithmetic, ties

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
VALUES = {name: np.array(value) for name, value in json.loads((GOLDEN / "merging.json").read_text()).items()}


def tree(vector: np.ndarray) -> dict:
    """A vector as a tree of two leaves, so that what is model-wide is seen to be."""
    return {
        "layer": {"kernel": jnp.asarray(vector[:6].reshape(2, 3), jnp.float32)},
        "bias": jnp.asarray(vector[6:], "f4"),
    }


def flat(params: dict) -> np.ndarray:
    return np.concatenate([np.ravel(params["layer"]["kernel"]), params["bias"]])


def close(found: np.ndarray, name: str) -> None:
    np.testing.assert_allclose(found, VALUES[name], rtol=2e-6, atol=1e-6)


def test_the_values_are_what_their_script_makes() -> None:
    made = runpy.run_path(str(GOLDEN / "make_merging.py"))["values"]()
    assert made.keys() == VALUES.keys()
    for name, value in made.items():
        np.testing.assert_allclose(value, VALUES[name], rtol=1e-12, atol=1e-15)


@pytest.mark.one_in(2)
@pytest.mark.parametrize("density", [0.2, 0.5])
def test_ties(density: float) -> None:
    zero, models = tree(np.zeros(10)), [tree(v) for v in VALUES["task_vectors"]]
    close(flat(ties(zero, models, density=density)), f"ties_density0_{density * 10:.0f}_lambda1")


def test_task_arithmetic() -> None:
    models = [tree(v) for v in VALUES["task_vectors"]]
    close(flat(task_arithmetic(tree(np.zeros(10)), models, 0.4)), "task_arithmetic_sum_lambda0_4")


def test_slerp() -> None:
    a, b = ({"w": jnp.asarray(VALUES[name], jnp.float32)} for name in ("va", "vb"))
    close(slerp(a, b, 0.3)["w"], "slerp_t0_3")


def test_fisher() -> None:
    a, b, fa, fb = ({"w": jnp.asarray(VALUES[n], jnp.float32)} for n in ("va", "vb", "fisher_a", "fisher_b"))
    close(fisher_merge([a, b], [fa, fb], normalize=False)["w"], "fisher_merge_equal")


@pytest.mark.parametrize("scale", [1.0, 0.9])
def test_regmean(scale: float) -> None:
    models = [{"w": jnp.asarray(w, jnp.float32)} for w in VALUES["regmean_w"]]
    moments = [{"w": Gram(x.T @ x / len(x), (0,))} for x in VALUES["regmean_x"]]
    close(regmean(models, moments, scale=scale)["w"], f"regmean_reduce{scale:.1f}".replace(".", "_"))
