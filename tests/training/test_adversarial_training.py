"""Adversarial adaptation in the trainer: what is carried and resumed, and a shift that it mends."""

import jax
import numpy as np
import optax
import pytest

import tljax as tl
from tljax.objectives import Discriminator, StreamError
from tljax.training import make_step
from tljax.types import Batch

MODEL = tl.models.mlp((16,), num_classes=2)
SMALL = Discriminator(hidden=16)


def domain(n, seed, shift):
    """Two features that tell the classes everywhere, and a clearer one that lies elsewhere in the other domain."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, n).astype("int32")
    sign = (2 * y - 1)[:, None]
    lasting = sign * np.ones((1, 2)) + 0.7 * rng.normal(size=(n, 2))
    shifted = sign + 0.4 * rng.normal(size=(n, 1)) + shift
    return np.concatenate([lasting, shifted], axis=1).astype("float32"), y


SOURCE, TARGET = domain(600, 0, 0.0), domain(600, 1, 2.5)
DOMAINS = {"source": SOURCE, "target": (TARGET[0], None)}


def trained(objective, train, start, rate=1e-2, steps=300, rules=tl.plan(), **options):  # noqa: B008
    return tl.fit(
        MODEL, start, objective, rules, train=train, optimizer=optax.adam(rate), steps=steps, batch_size=64,
        progress=False, **options,
    )  # fmt: skip


def accuracy(params):
    return float((np.argmax(MODEL.apply(params, TARGET[0]).logits, axis=1) == TARGET[1]).mean())


@pytest.fixture(scope="module")
def start():
    return MODEL.init(jax.random.key(0), SOURCE[0])


@pytest.fixture(scope="module")
def source_only(start):
    return trained(tl.cross_entropy(), SOURCE, start).params


@pytest.mark.slow
@pytest.mark.parametrize(
    "term",
    [
        tl.dann(discriminator=SMALL, strength=1.0),
        tl.mcd(weight=3.0),
        tl.adda(discriminator=SMALL, weight=1.0, strength=1.0),
    ],
    ids=["dann", "mcd", "adda"],
)
def test_a_shift_is_mended(term, start, source_only):
    assert accuracy(source_only) < 0.75
    assert accuracy(trained(tl.cross_entropy() + term, DOMAINS, start).params) > accuracy(source_only) + 0.1


@pytest.mark.slow
def test_the_discriminator_and_its_statistics_learn_and_live_in_the_state(start):
    step = make_step(
        MODEL, tl.cross_entropy() + tl.dann(discriminator=SMALL), tl.plan().resolve(start), optax.adam(1e-2)
    )
    batches = {"source": Batch(SOURCE[0][:8], SOURCE[1][:8]), "target": Batch(TARGET[0][:8])}
    first = step.init(start, batches, seed=0)
    state, metrics = jax.jit(step.update)(first, batches)
    for part in (lambda s: s.trainable["terms"][1], lambda s: s.terms[1]):
        before, after = jax.tree.leaves(part(first)), jax.tree.leaves(part(state))
        assert before
        assert all(not np.array_equal(a, b) for a, b in zip(before, after, strict=True))
    assert {"dann", "domain_accuracy", "cross_entropy"} <= metrics.keys()


@pytest.mark.slow
def test_adda_is_to_update_the_model_and_then_the_discriminator_as_in_torch():
    torch = pytest.importorskip("torch")
    objective = tl.cross_entropy(stream="source") + tl.adda(weight=0.5, strength=0.7, discriminator=SMALL)
    model = tl.models.mlp((5,), num_classes=2)
    params = model.init(jax.random.key(0), SOURCE[0])
    step = make_step(model, objective, tl.plan().resolve(params), optax.sgd(0.3, 0.9, nesterov=True))
    batches = [
        {"source": Batch(*(a[i : i + 8] for a in SOURCE)), "target": Batch(TARGET[0][i : i + 8])} for i in (0, 8, 16)
    ]
    state = step.init(params, batches[0], seed=0)
    own = state.trainable["terms"][1]

    def linear(layer):
        made = torch.nn.Linear(*np.shape(layer["kernel"]))
        with torch.no_grad():
            made.weight.copy_(torch.tensor(np.asarray(layer["kernel"]).T))
            made.bias.copy_(torch.tensor(np.asarray(layer["bias"])))
        return made

    hidden = [(linear(own["backbone"][f"dense_{i}"]), torch.nn.BatchNorm1d(16), torch.nn.ReLU()) for i in range(2)]
    told = torch.nn.Sequential(*hidden[0], *hidden[1], linear(own["head"]))
    features, head = linear(params["backbone"]["block_00"]["dense"]), linear(params["head"])
    players = [[*features.parameters(), *head.parameters()], [*told.parameters()]]
    optimizers = [torch.optim.SGD(each, 0.3, momentum=0.9, nesterov=True) for each in players]
    bce, update = torch.nn.functional.binary_cross_entropy_with_logits, jax.jit(step.update)
    for batch in batches:
        state, metrics = update(state, batch)
        x = torch.tensor(np.concatenate([batch["source"].x, batch["target"].x]))
        f = torch.relu(features(x))
        told.eval()
        fooled = bce(told(f)[:8, 0], torch.zeros(8)) + bce(told(f)[8:, 0], torch.ones(8))
        entropy = torch.nn.functional.cross_entropy(head(f[:8]), torch.tensor(batch["source"].y).long())
        optimizers[0].zero_grad()
        (entropy + 0.7 * 0.5 * 0.5 * fooled).backward()
        optimizers[0].step()
        told.train()
        before = [norm.running_var.clone() for _, norm, _ in hidden]
        logits = told(f.detach())[:, 0]
        caught = 0.5 * (bce(logits[:8], torch.ones(8)) + bce(logits[8:], torch.zeros(8)))
        optimizers[1].zero_grad()
        caught.backward()
        optimizers[1].step()
        for (_, norm, _), old in zip(hidden, before):  # torch's running variance is over N - 1 = 15, Flax's over N
            norm.running_var.copy_(0.9 * old + (norm.running_var - 0.9 * old) * 15 / 16)
        assert float(metrics["adda_discriminator"]) == pytest.approx(caught.item(), rel=1e-4)
        assert float(metrics["adda"]) == pytest.approx(0.25 * fooled.item(), rel=1e-4)
    pairs = [
        (state.trainable["model"]["backbone"]["block_00"]["dense"], features), (state.trainable["model"]["head"], head),
        (state.trainable["terms"][1]["backbone"]["dense_0"], hidden[0][0]),
        (state.trainable["terms"][1]["head"], told[6]),
    ]  # fmt: skip
    for ours, theirs in pairs:
        np.testing.assert_allclose(ours["kernel"], theirs.weight.detach().numpy().T, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(ours["bias"], theirs.bias.detach().numpy(), rtol=1e-4, atol=1e-5)


class Stopped(Exception):  # noqa: N818
    pass


@pytest.mark.slow
def test_a_run_that_is_stopped_ends_the_same(start, tmp_path):
    objective = tl.cross_entropy() + tl.cdan(randomized=5, discriminator=SMALL)
    whole = trained(objective, DOMAINS, start, steps=6, log_every=3)

    def stop(row):
        raise Stopped

    options = {"steps": 6, "log_every": 3, "save_every": 3, "run_dir": tmp_path}
    with pytest.raises(Stopped):
        trained(objective, DOMAINS, start, on_log=[stop], **options)
    again = trained(objective, DOMAINS, start, **options)
    for a, b in zip(jax.tree.leaves(whole.params), jax.tree.leaves(again.params), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_adda_from_leaves_the_head_and_moves_the_backbone(start):
    rules = tl.plan(tl.plans.freeze("head/**"))
    params = trained(
        tl.adda_from(start, discriminator=SMALL, strength=1.0), DOMAINS, start, steps=5, rules=rules
    ).params
    for a, b in zip(jax.tree.leaves(start["head"]), jax.tree.leaves(params["head"])):
        np.testing.assert_array_equal(a, b)
    kernels = [tree["backbone"]["block_00"]["dense"]["kernel"] for tree in (start, params)]
    assert not np.array_equal(*kernels)


def test_mcd_needs_labels_for_the_source(start):
    with pytest.raises(StreamError, match="needs labels"):
        trained(tl.mcd(), {"source": (SOURCE[0], None), "target": (TARGET[0], None)}, start, steps=2)
