"""The paper model of what a step sends, beside the collectives of compiled steps on eight simulated devices."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tljax.models import mlp
from tljax.objectives import cross_entropy
from tljax.plans import linear_probe, plan
from tljax.training import collectives, layout, mesh, step_traffic
from tljax.training.options import options_from
from tljax.training.prepare import prepare
from tljax.training.traffic import Collective
from tljax.tree import nbytes

MODEL = mlp((64, 32), num_classes=3)
X = np.random.default_rng(0).normal(size=(32, 16)).astype(np.float32)
Y = np.arange(32, dtype=np.int32) % 3
PARAMS = MODEL.init(jax.random.key(0), X)
WHOLE = nbytes(PARAMS)
FEW = 64
"""Bytes of what is summed beside gradients: the loss, what is logged, and whether all is finite."""


def compiled(rules, over, above=float("inf")):
    options = options_from({"steps": 3, "batch_size": 16, "mesh": over, "layout": layout(above=above)})
    prepared = prepare(MODEL, PARAMS, cross_entropy(), rules, (X, Y), None, optax.sgd(0.1), options)
    start = prepared.placement.put(PARAMS), jnp.uint32(0), jnp.float32(1)
    run = prepared.program.start(*start, prepared.streams)
    return collectives(prepared.program.advance.lower(run, prepared.streams, jnp.int32(3)).compile())


def sent(found, kind, devices=None):
    return sum(one.sent for one in found if one.kind == kind and devices in (None, one.devices))


@pytest.mark.one_in(2)
@pytest.mark.parametrize(("rules", "learnt"), [(plan(), PARAMS), (linear_probe(), PARAMS["head"])], ids=["all", "head"])
def test_data_parallelism_sends_the_gradients_of_what_learns(rules, learnt):
    found = compiled(rules, mesh())
    assert {one.kind for one in found} == {"all-reduce"}
    paper = step_traffic(whole=nbytes(learnt), data=8).total
    assert paper <= sent(found, "all-reduce") <= paper + 2 * FEW


@pytest.mark.slow
def test_divided_parameters_are_put_together_once_and_their_gradients_summed_in_two_stages():
    found = compiled(plan(), mesh(fsdp=4), above=0)
    odd = nbytes(PARAMS["head"])  # of its axes none divides but that of the kernel
    divided = WHOLE - nbytes(PARAMS["head"]["bias"])
    paper = step_traffic(divided=divided, data=2, fsdp=4)
    assert sent(found, "all-gather") == paper.gather
    assert divided > odd
    # Where other compilers sum and divide in one, that for CPUs sums the whole: twice the bytes. Then each device sums
    # its own part with the other group's.
    over_fsdp, over_data = sent(found, "all-reduce", 4) / 2, sent(found, "all-reduce", 2)
    assert sent(found, "reduce-scatter") == 0
    rest = sent(found, "all-reduce", 8)
    assert paper.reduce <= over_fsdp + over_data + rest <= paper.reduce + 2 * (FEW + odd)


@pytest.mark.slow
def test_of_a_frozen_divided_backbone_only_the_parameters_are_sent():
    found = compiled(linear_probe(), mesh(data=1, fsdp=8), above=0)
    backbone = nbytes(PARAMS["backbone"])
    assert sent(found, "all-gather") >= step_traffic(frozen=backbone, data=1, fsdp=8).gather
    assert sent(found, "all-reduce") <= 2 * (nbytes(PARAMS["head"]) + FEW)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            "%a = (f32[], f32[128,64]{1,0}) all-reduce(%x, %y), replica_groups=mesh['axis_0'=4,'axis_1'=2] {'axis_0'}",
            ("all-reduce", 4 + 4 * 128 * 64, 4),
        ),
        ("%a = bf16[64]{0} all-gather(%x), replica_groups=[2,4]<=[8], dimensions={0}", ("all-gather", 128, 4)),
        (
            "%a = (f32[8]{0}, f32[64]{0}) all-gather-start(%x), replica_groups={{0,1,2,3,4,5,6,7}}, dimensions={0}",
            ("all-gather", 256, 8),
        ),
        ("%a = f32[8]{0} reduce-scatter(%x), replica_groups={{0,1},{2,3}}, dimensions={0}", ("reduce-scatter", 64, 2)),
        ("%a = pred[5]{0} all-reduce(%x), replica_groups=[1,8]<=[8]", ("all-reduce", 5, 8)),
    ],
)
def test_the_text_is_read_as_xla_writes_it(line, expected):
    assert collectives(f"  {line}, channel_id=1") == (Collective(*expected),)
