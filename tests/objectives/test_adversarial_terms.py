"""Adversarial terms alone: what they own and log, against torch and by hand, and hard input."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from adaptation_inputs import fs, ft, golden, gs, gt, y

from tljax.models import from_flax, mlp
from tljax.objectives import (
    DeepHead,
    Discriminator,
    LabelError,
    MapError,
    MarginHead,
    NetworkError,
    Owned,
    Scene,
    StartError,
    StreamError,
    adda,
    adda_from,
    bsp,
    cdan,
    class_imbalance,
    classifier_discrepancy,
    cross_entropy_losses,
    dann,
    domain_adversarial,
    margin_disparity,
    mcd,
    mdd,
    regression_disparity,
    spectral_penalty,
)
from tljax.types import Batch, Output

SMALL = Discriminator(hidden=7)
SHARED = from_flax(SMALL)
"""One model, so that its initialisation is compiled once."""


class Cosines(nn.Module):
    """The discriminator of the golden file; it has no parameters."""

    @nn.compact
    def __call__(self, x):
        return x @ jnp.cos(jnp.arange(x.shape[1], dtype=x.dtype))[:, None]


class Line(nn.Module):
    """A second head that is easily written by hand."""

    outputs: int

    @nn.compact
    def __call__(self, x):
        return nn.Dense(self.outputs, param_dtype=x.dtype)(x)


def scene(dtype="float32", step=0, **given):
    cast = lambda a: jnp.asarray(a, dtype)  # noqa: E731
    outputs = {"source": Output(cast(gs), cast(fs)), "target": Output(cast(gt), cast(ft))}
    batches = {"source": Batch(cast(fs), jnp.asarray(y)), "target": Batch(cast(ft))}
    model = lambda params, x: Output(x, x)  # noqa: E731
    made = Scene(outputs, batches, {}, model, jnp.int32(step), jax.random.key(0))
    return made._replace(**{"evaluate": model} | given)


def begun(term, at=None):
    return term.init(jax.random.key(1), scene() if at is None else at)


def slopes(term, owned, at):
    """The gradients of a term's value for the features of both domains, as a function of the step."""

    def value(source, target, step):
        pair = {"source": source, "target": target}
        outputs = {name: out._replace(features=pair[name]) for name, out in at.outputs.items()}
        return term.apply(owned, at._replace(outputs=outputs, step=step))[0]

    slope = jax.jit(jax.grad(value, argnums=(0, 1)))
    return lambda step=0: slope(at.outputs["source"].features, at.outputs["target"].features, jnp.int32(step))


@pytest.mark.one_in(2)
@pytest.mark.parametrize(
    ("term", "name"),
    [
        (dann(discriminator=Cosines()), "dann(d=sigmoid(f.cos(j)))"),
        (cdan(discriminator=Cosines()), "cdan_multilinear"),
        (cdan(discriminator=Cosines(), entropy=True), "cdan_multilinear+E"),
        (bsp(), "bsp"),
    ],
    ids=["dann", "cdan", "cdan+e", "bsp"],
)
def test_terms_give_the_golden_values(term, name):
    with jax.enable_x64(True):
        at = scene("float64")
        assert float(term.apply(begun(term, at), at)[0]) == pytest.approx(golden(name), rel=1e-6)


@pytest.mark.slow
def test_dann_against_torch_through_batch_normalisation():
    torch = pytest.importorskip("torch")
    layers = []
    for width in (5, 7):
        layers += [torch.nn.Linear(width, 7), torch.nn.BatchNorm1d(7), torch.nn.ReLU()]
    net = torch.nn.Sequential(*layers, torch.nn.Linear(7, 1)).double()
    # Flax keeps running statistics in float32, which strict promotion does not let meet float64.
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        at, term = scene("float64"), dann(discriminator=SMALL, strength=0.3)
        owned = begun(term, at)
        tree = owned.params["backbone"] | {"logit": owned.params["head"]}
        with torch.no_grad():
            for i, name in ((0, "dense_0"), (3, "dense_1"), (6, "logit")):
                net[i].weight.copy_(torch.tensor(np.asarray(tree[name]["kernel"]).T))
                net[i].bias.copy_(torch.tensor(np.asarray(tree[name]["bias"])))
        both = torch.tensor(np.concatenate([fs, ft]), requires_grad=True)
        logits = net(both)[:, 0]
        bce = torch.nn.functional.binary_cross_entropy_with_logits
        loss = 0.5 * (bce(logits[:6], torch.ones(6).double()) + bce(logits[6:], torch.zeros(6).double()))
        loss.backward()

        def run(params, source, target):
            outputs = {
                name: at.outputs[name]._replace(features=f) for name, f in (("source", source), ("target", target))
            }
            value, state, metrics = term.apply(owned._replace(params=params), at._replace(outputs=outputs))
            return value, (state, metrics)

        found, (own, *back) = jax.jit(jax.value_and_grad(run, (0, 1, 2), has_aux=True))(owned.params, fs, ft)
        value, (state, metrics) = found
        assert float(value) == pytest.approx(loss.item(), rel=1e-9)
        right = 0.5 * ((logits[:6] > 0).double().mean() + (logits[6:] < 0).double().mean())
        assert float(metrics["domain_accuracy"]) == pytest.approx(right.item())
        np.testing.assert_allclose(own["backbone"]["dense_0"]["kernel"], net[0].weight.grad.numpy().T, atol=1e-9)
        np.testing.assert_allclose(own["backbone"]["norm_1"]["scale"], net[4].weight.grad.numpy(), atol=1e-9)
        np.testing.assert_allclose(own["head"]["kernel"], net[6].weight.grad.numpy().T, atol=1e-9)
        np.testing.assert_allclose(np.concatenate(back), -0.3 * both.grad.numpy(), atol=1e-9)
        mean = state["backbone"]["norm_0"]["batch_stats"]["mean"]
        np.testing.assert_allclose(mean, net[1].running_mean.numpy(), atol=1e-9)


@pytest.mark.slow
def test_layers_begin_as_torchs():
    owned = begun(dann(discriminator=Discriminator(hidden=400)))
    for layer, fan_in in ((owned.params["backbone"]["dense_0"], 5), (owned.params["backbone"]["dense_1"], 400)):
        for leaf in layer.values():
            bound = 1 / np.sqrt(fan_in)
            assert np.abs(leaf).max() <= bound
            assert np.abs(leaf).max() == pytest.approx(bound, rel=0.02)
            assert float(np.std(leaf)) == pytest.approx(bound / np.sqrt(3), rel=0.1)


@pytest.mark.one_in(3)
@pytest.mark.parametrize("make", [dann, cdan, mdd])
def test_the_gradient_for_the_features_is_turned_round_and_warmed_up(make):
    """What the owned network would send back, times 0 at first, later times minus the strength."""
    options = {"head": Line(4)} if make is mdd else {"discriminator": SHARED}
    term, at = make(**options), scene()
    owned, turned = begun(term), slopes(term, begun(term), at)
    straight = slopes(make(strength=lambda step: -1.0, **options), owned, at)()
    strength = 0.0462117 if make is mdd else 0.462117
    for i in range(2):
        assert np.abs(straight[i]).max() > 1e-4
        np.testing.assert_array_equal(turned(0)[i], np.zeros((6, 5)))
        np.testing.assert_allclose(turned(1000)[i], -strength * straight[i], rtol=1e-4, atol=1e-8)


@pytest.mark.slow
def test_no_gradient_goes_through_what_cdan_takes_for_predictions():
    term, at = cdan(discriminator=SHARED, strength=1.0, entropy=True), scene()
    owned = begun(term)

    def value(logits):
        outputs = at.outputs | {"source": at.outputs["source"]._replace(logits=logits)}
        return term.apply(owned, at._replace(outputs=outputs))[0]

    assert not np.any(jax.grad(value)(at.outputs["source"].logits))


@pytest.mark.slow
def test_cdans_random_maps_are_drawn_once_and_kept():
    term = cdan(randomized=9, discriminator=SMALL)
    owned = begun(term)
    assert [m.shape for m in owned.state["maps"]] == [(5, 9), (4, 9)]
    assert owned.params["backbone"]["dense_0"]["kernel"].shape == (9, 7)
    value, state, _ = term.apply(owned, scene())
    assert np.isfinite(value)
    for before, after in zip(owned.state["maps"], state["maps"]):
        np.testing.assert_array_equal(before, after)
    other = term.init(jax.random.key(2), scene())
    assert not np.array_equal(other.state["maps"][0], owned.state["maps"][0])


@pytest.mark.slow
def test_mdd_by_hand():
    term, at = mdd(head=Line(4), margin=2.0), scene()
    owned = begun(term)
    layer = owned.params["head"]
    second = [at.outputs[name].features @ layer["kernel"] + layer["bias"][None] for name in ("source", "target")]
    expected = -margin_disparity(gs, second[0], gt, second[1], margin=2.0)
    value, _, metrics = term.apply(owned, at)
    assert float(value) == pytest.approx(float(expected), rel=1e-5)
    assert set(metrics) == {"mdd"}
    numbers = -regression_disparity(gs, second[0], gt, second[1])
    value, _, _ = mdd(head=Line(4), margin=1.0, regression=True).apply(owned, at)
    assert float(value) == pytest.approx(float(numbers), rel=1e-5)


@pytest.mark.slow
def test_mcd_by_hand_in_each_phase():
    term, at = mcd(weight=0.5, balance=0.1), scene()
    owned = begun(term)
    layer = owned.params["head"]
    second = [at.outputs[name].features @ layer["kernel"] + layer["bias"][None] for name in ("source", "target")]
    entropy = cross_entropy_losses(second[0], jnp.asarray(y)).mean()
    supervised = entropy + 0.1 * (class_imbalance(gt) + class_imbalance(second[1]))
    apart = classifier_discrepancy(gt, second[1])
    expected = {"all": supervised, "heads": supervised - 0.5 * apart, "backbone": 0.5 * apart}
    assert [(p.name, p.repeat, p.owned, p.others) for p in term.phases] == [
        ("all", 1, True, True), ("heads", 1, True, True), ("backbone", 4, False, False),
    ]  # fmt: skip
    for phase, value in expected.items():
        found, _, metrics = term.apply(owned, at._replace(phase=phase))
        assert float(found) == pytest.approx(float(value), rel=1e-5)
        name = "mcd" if phase == "all" else f"mcd_{phase}"
        assert float(metrics[name]) == float(found)


def test_adda_by_hand_for_each_player():
    term, at = adda(weight=0.3, discriminator=SHARED), scene(step=1000)
    owned = begun(term)
    found, state, metrics = term.apply(owned, at)
    own = Discriminator(hidden=7)
    tree = owned.params["backbone"] | {"logit": owned.params["head"]}
    norms = {f"norm_{i}": owned.state["backbone"][f"norm_{i}"]["batch_stats"] for i in range(2)}
    params = {name: {key: leaf for key, leaf in layer.items() if key != "batch_stats"} for name, layer in tree.items()}

    def told(train):
        x = jnp.concatenate([out.features for out in at.outputs.values()])
        out = own.apply({"params": params, "batch_stats": norms}, x, train, mutable=["batch_stats"])
        return out[0][:6, 0], out[0][6:, 0]

    source, target = told(train=False)
    bce = lambda d, one: jnp.mean(jnp.logaddexp(0.0, -d if one else d))  # noqa: E731
    assert float(metrics["adda"]) == pytest.approx(0.3 * 0.5 * float(bce(source, False) + bce(target, True)), rel=1e-5)
    assert float(metrics["adda_discriminator"]) == pytest.approx(float(domain_adversarial(*told(train=True))), rel=1e-5)
    assert float(found) == pytest.approx(float(metrics["adda"] + metrics["adda_discriminator"]), rel=1e-6)
    right = np.mean([*(told(True)[0] > 0), *(told(True)[1] < 0)])
    assert float(metrics["domain_accuracy"]) == pytest.approx(right, rel=1e-6)
    assert all(not np.array_equal(a, b) for a, b in zip(jax.tree.leaves(owned.state), jax.tree.leaves(state)))
    straight = slopes(adda(weight=0.3, discriminator=SHARED, strength=1.0), owned, at)()
    warmed = slopes(term, owned, at)(1000)
    np.testing.assert_allclose(warmed[0], 0.462117 * straight[0], rtol=1e-4, atol=1e-9)


def test_adda_from_reads_the_source_by_the_parameters_it_began_with():
    model = lambda params, x: Output(x, params["w"] * x)  # noqa: E731
    start = {"w": jnp.float32(2)}
    at = scene(params={"w": jnp.float32(5)}, evaluate=model)
    term = adda_from(start, discriminator=Cosines(), strength=1.0)
    owned = begun(term, at)
    value, state, metrics = term.apply(owned, at)
    cosines = np.cos(np.arange(5))
    assert float(value) == pytest.approx(float(domain_adversarial(2 * fs @ cosines, ft @ cosines)), rel=1e-5)
    assert float(state["start"]["w"]) == 2
    assert set(metrics) == {"adda", "domain_accuracy"}
    source, target = slopes(term, owned, at)()
    assert not np.any(source)
    assert np.any(target)
    with pytest.raises(StartError, match=r"'w' is \[\] in the model and missing in start"):
        begun(adda_from({"v": jnp.float32(2)}), at)
    start["w"].delete()
    assert float(term.apply(owned, at)[0]) == float(value)  # it owns a copy


def test_bsp_reads_the_features_of_both_domains():
    value, _, metrics = bsp().apply(Owned(), scene())
    assert float(value) == float(metrics["bsp"]) == pytest.approx(float(spectral_penalty(fs, ft)), rel=1e-6)
    value = bsp(k=2).apply(Owned(), scene())[0]
    assert float(value) == pytest.approx(float(spectral_penalty(fs, ft, k=2)), rel=1e-6)
    with pytest.raises(LabelError, match=r"bsp\(k=0\): k=0; expected a number above 0"):
        bsp(k=0)


@pytest.mark.parametrize(
    ("term", "text"),
    [
        (dann(), "dann()"),
        (dann(discriminator=SMALL, strength=0.5), "dann(discriminator=Discriminator(hidden=7), strength=0.5)"),
        (cdan(entropy=True, target="web"), "cdan(entropy=True, target='web')"),
        (mdd(head=MarginHead(3)), "mdd(head=MarginHead(outputs=3))"),
        (mcd(head=DeepHead(3, hidden=5), repeat=2), "mcd(head=DeepHead(outputs=3, hidden=5), repeat=2)"),
        (adda(weight=0.3), "adda(weight=0.3)"),
        (adda_from({}), "adda_from(start)"),
        (bsp(source="a", target="b"), "bsp(source='a', target='b')"),
    ],
)
def test_descriptions_and_streams(term, text):
    assert str(term) == text
    assert term.joint == (() if text == "adda_from(start)" else term.streams)


@pytest.mark.one_in(2)
@pytest.mark.parametrize("make", [dann, cdan, mdd, mcd, adda, bsp])
def test_a_stream_that_is_missing_is_named(make):
    at = scene()
    at = at._replace(outputs={"source": at.outputs["source"]}, batches={"source": at.batches["source"]})
    term = make()
    with pytest.raises(StreamError, match=rf"{make.__name__}\(\) reads the stream 'target'"):
        term.apply(begun(term), at)


def test_mcd_needs_the_labels_of_the_source():
    at = scene()
    term = mcd()
    with pytest.raises(StreamError, match="needs labels"):
        term.apply(begun(term), at._replace(batches=at.batches | {"source": Batch(at.batches["source"].x)}))


@pytest.mark.parametrize(
    ("term", "message"),
    [
        (dann(discriminator=nn.Dense(2)), r"the discriminator of dann\(.*\) must give \[B, 1\].*found \[12, 2\]"),
        (mcd(head=nn.Dense(3)), r"the head of mcd\(.*\) must give \[B, 4\].*found \[12, 3\]"),
    ],
)
def test_networks_that_give_another_shape(term, message):
    owned = begun(term)
    with pytest.raises(NetworkError, match=message):
        term.apply(owned, scene())


def test_options_that_make_no_term():
    with pytest.raises(NetworkError, match=r"is a Flax module.*found 256"):
        dann(discriminator=256)
    for wrong in (0, 2.5):
        with pytest.raises(MapError, match="a whole number above 0"):
            cdan(randomized=wrong)


@pytest.mark.slow
def test_a_model_of_the_catalogue_may_be_the_discriminator():
    term = dann(discriminator=mlp((6,), num_classes=1, norm="batch", dropout=0.1))
    owned = begun(term)
    value, state, _ = term.apply(owned, scene())
    assert np.isfinite(value)
    assert not np.array_equal(
        *(tree["backbone"]["block_00"]["norm"]["batch_stats"]["mean"] for tree in (owned.state, state))
    )


HARD = {
    "dann": dann(discriminator=SHARED, strength=1.0),
    "dropout": dann(discriminator=Discriminator(hidden=7, batch_norm=False), strength=1.0),
    "cdan": cdan(discriminator=SHARED, strength=1.0, entropy=True),
    "mdd": mdd(head=MarginHead(4, hidden=7), strength=1.0),
    "mcd": mcd(head=DeepHead(4, hidden=7)),
    "adda": adda(discriminator=SHARED, strength=1.0),
}


@pytest.mark.one_in(4)
@pytest.mark.parametrize(
    ("name", "filled"), [*((name, "one row") for name in HARD), ("dann", "zeros"), ("mdd", "unequal")]
)
def test_small_batches_dead_features_and_domains_of_unequal_size(name, filled):
    term, at = HARD[name], scene()
    owned = begun(term)
    sizes = {"one row": (1, 1), "zeros": (6, 6), "unequal": (6, 2)}[filled]
    cut = lambda tree, size: jax.tree.map(lambda a: a[:size], tree)  # noqa: E731
    outputs = {key: cut(out, size) for (key, out), size in zip(at.outputs.items(), sizes)}
    if filled == "zeros":
        outputs = jax.tree.map(jnp.zeros_like, outputs)
    batches = {key: cut(batch, size) for (key, batch), size in zip(at.batches.items(), sizes)}

    def total(outputs):
        phases = [phase.name for phase in term.phases if phase.name not in ("all", "backbone")]  # parts of "heads"
        scenes = [at._replace(outputs=outputs, batches=batches, phase=phase) for phase in phases or [None]]
        found = [term.apply(owned, now) for now in scenes]
        return sum(value for value, _, _ in found), [metrics for _, _, metrics in found]

    found = jax.jit(jax.value_and_grad(total, has_aux=True))(outputs)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found))


def test_init_needs_shapes_only():
    at, term = scene(), cdan(randomized=3, discriminator=nn.Dense(1))
    shapes = jax.eval_shape(lambda: (at.outputs, at.batches))
    abstract = at._replace(outputs=shapes[0], batches=shapes[1])
    owned = jax.jit(lambda key: term.init(key, abstract))(jax.random.key(1))
    for a, b in zip(jax.tree.leaves(owned), jax.tree.leaves(begun(term)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)
