"""`tljax finetune --regularizer`: what it adds, to which methods, and what it refuses; and co-tuning's relationship."""

from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

import tljax as tl
from tljax.cli import main
from tljax.models import export, lenet
from tljax.objectives import RelationshipError, cross_entropy
from tljax.recipes import SettingsError, category_relationship
from tljax.recipes.finetune import FinetuneSettings, finetune_settings, regularizers, run_finetune

ALL = ("l2-sp", "delta", "bss", "lwf:2", "co-tuning")
FEW = (0.1, 10.0)


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """A LeNet of five classes, and images of two others."""
    import jax

    folder, rng = tmp_path_factory.mktemp("regularizers"), np.random.default_rng(0)
    model = lenet(5)
    export(
        model,
        model.init(jax.random.key(0), jnp.zeros((1, 28, 28, 1))),
        folder / "lenet.safetensors",
        format="safetensors",
        convention="torch",
    )
    y = np.arange(60) % 2
    x = rng.integers(0, 120, (60, 28, 28)).astype("uint8")
    x[y == 1] += 120
    np.savez(folder / "two.npz", x=x, y=y)
    return str(folder / "lenet.safetensors"), str(folder / "two.npz")


def settings(places, folder, **more):
    return FinetuneSettings(*places, steps=4, batch_size=8, learning_rates=("1e-3",), run_dir=str(folder), **more)


@pytest.mark.slow
def test_all_of_them_in_a_run(places, tmp_path):
    results = run_finetune(settings(places, tmp_path, regularizer=ALL), show=False).results
    assert results["methods"] == ["full", "linear-probe"]
    assert (
        "added to the loss of all but the probe: 0.01 times l2-sp, 0.01 times delta, 0.001 times bss"
        in results["notes"][-1]
    )
    history = {cell["method"]: cell for cell in results["curves"]}
    assert set(history) == {"full", "linear-probe"}
    page = (tmp_path / "report.md").read_text()
    assert "2 times lwf" in page


def test_each_is_the_term_of_its_name(monkeypatch):
    head, pretrained = {"kernel": jnp.ones((3, 4)), "bias": jnp.zeros(4)}, SimpleNamespace(params={})
    monkeypatch.setattr(regularizers, "_source", lambda setup, path: (None, {"head": head}))
    wanted = {"bss": 0.001, "lwf": 1.5, "l2-sp": 0.01}
    found = regularizers.regularised(cross_entropy(), wanted, SimpleNamespace(pretrained=pretrained), "", None)
    assert [part.split("(")[0] for part in str(found).split(" + ")] == [
        "cross_entropy", "0.001 * bss", "1.5 * lwf", "0.01 * l2_sp",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"regularizer": ("l2_sp",)}, "did you mean 'l2-sp'"),
        ({"regularizer": ("l2-sp:x",)}, "weight above 0 as l2-sp:0.01"),
        ({"regularizer": ("l2-sp:-1",)}, "weight above 0"),
        ({"regularizer": ("bss", "bss:2")}, "bss once"),
        ({"regularizer": ("bss",), "methods": ("full", "lora")}, "left out with lora"),
    ],
)
def test_what_makes_no_sense_is_told(more, message):
    with pytest.raises(SettingsError, match=message):
        FinetuneSettings("a", "b", **more)


def test_co_tuning_needs_labels_that_all_seeds_share(places, tmp_path):
    wanted = settings(places, tmp_path, regularizer=("co-tuning",), seeds=2, labels_per_class=3)
    with pytest.raises(SettingsError, match="all seeds have in common"):
        run_finetune(wanted, show=False)


def test_the_option_on_the_command_line(places, tmp_path, capsys):
    assert finetune_settings({"model": "a", "data": "b", "regularizer": ["bss", "lwf"]}).regularizers == {
        "bss": 1e-3,
        "lwf": 4.0,
    }
    arguments = ["finetune", "--model", places[0], "--data", places[1], "--regularizer", "deltta:0.1"]
    assert main(arguments) == 2
    assert "did you mean 'delta'" in capsys.readouterr().err


def sources(n=60, seed=0):
    """Logits over six categories; class c is mostly the categories 2c and 2c + 1."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 3
    z = rng.normal(size=(n, 6))
    z[np.arange(n), 2 * y + rng.integers(0, 2, n)] += 4
    return z.astype("float32"), y


@pytest.mark.slow
@pytest.mark.parametrize("form", ["direct", "reverse"])
def test_a_relationship_finds_the_categories_of_each_class(form):
    z, y = sources()
    table = np.asarray(category_relationship(z, y, form=form, strengths=FEW))
    assert table.shape == (3, 6)
    np.testing.assert_allclose(table.sum(1), 1, rtol=1e-5)
    for c in range(3):
        assert table[c, 2 * c : 2 * c + 2].sum() > 0.6
    shuffled = np.random.default_rng(1).permutation(6)
    again = np.asarray(category_relationship(z[:, shuffled], y, form=form, strengths=FEW))
    np.testing.assert_allclose(again, table[:, shuffled], atol=2e-3)


@pytest.mark.slow
def test_the_reverse_form_against_scikit_learn():
    linear = pytest.importorskip("sklearn.linear_model")
    z, y = sources()
    p = np.exp(z - z.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    found = category_relationship(z, y, strengths=1.0)
    fitted = linear.LogisticRegression(C=1.0, tol=1e-8, max_iter=10_000).fit(p, y)

    def turned(heat):
        answers = fitted.decision_function(np.eye(6)) / heat
        likelihood = np.exp(answers) / np.exp(answers).sum(1, keepdims=True)
        joint = likelihood.T * p.mean(0)[None]
        return joint / joint.sum(1, keepdims=True)

    best = min(np.geomspace(0.02, 5, 4000), key=lambda heat: np.abs(turned(heat) - found).max())
    np.testing.assert_allclose(found, turned(best), atol=2e-3)  # some temperature of the same regression


@pytest.mark.slow
def test_relationships_that_cannot_be_made():
    z, y = sources(6)
    with pytest.raises(RelationshipError, match=r"class 0 has 1\. Use form='direct'"):
        category_relationship(z[1:4], np.array([1, 1, 0]))
    with pytest.raises(RelationshipError, match="found 'inverse'"):
        category_relationship(z, y, form="inverse")
    with pytest.raises(RelationshipError, match="no examples of"):
        category_relationship(z, y, num_classes=4)
    assert tl.recipes.category_relationship is category_relationship
