"""BERT and its kin: encoders of text with post-normalisation."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from tljax.models.attention import attend
from tljax.models.bert_names import from_config, keymaps, recognise
from tljax.models.bert_pooling import sentence_encoder
from tljax.models.bert_sizes import Sizes, sizes_of
from tljax.models.classifier import activation, classifier
from tljax.models.family import Family
from tljax.models.wrapping import ModelError
from tljax.types import Array, Model


def bert(
    variant: str = "base",
    num_classes: int = 2,
    *,
    style: str | None = None,
    width: int | None = None,
    depth: int | None = None,
    heads: int | None = None,
    hidden: int | None = None,
    vocab: int | None = None,
    positions: int | None = None,
    types: int | None = None,
    padding_id: int | None = None,
    epsilon: float | None = None,
    act: str = "gelu",
    pool: str | None = None,
    pooler: bool | None = None,
    normalize: bool = False,
    dropout: float = 0.1,
    attention_dropout: float = 0.1,
) -> Model:
    """An encoder of text: BERT, RoBERTa, DistilBERT or MiniLM, with a linear head on what it pools.

    Args:
      variant: "tiny", "base", "large", "minilm-l6", "minilm-l12", "distilbert", "roberta-base" or "roberta-large".
      num_classes: outputs of the head.
      style: "bert"; "roberta", whose positions are counted from ``padding_id + 1`` over the tokens that are no padding;
        or "distilbert", which has no token types.
      width, depth, heads: instead of the variant's; `hidden` is the width of the MLP, 4 times `width` by default.
      vocab, positions, types, padding_id, epsilon: rows of the embeddings, the token that fills up, and LayerNorm's
        epsilon, by default the style's. RoBERTa reads ``positions - padding_id - 1`` tokens at most.
      act: the activation: "gelu" is the exact one.
      pool: the features: "mean" of the tokens that are no padding, "cls", the first token, or "pooler", a dense layer
        on the first token. Default: "mean" for the variants of MiniLM, else "pooler".
      pooler: whether there is a pooler. With "mean" and "cls" it is carried along for the files' sake and not used. By
        default there is one, but for "distilbert" only where `pool` asks for it.
      normalize: scale the features to unit length, as sentence encoders do for comparisons.
      dropout, attention_dropout: rates after embeddings, branches and pooling, and of the attention's weights.

    `x` is a dict of `ids` `[B, L]` int32, `mask` `[B, L]` (0 for padding) and perhaps `types` `[B, L]` int32; or `ids`
    alone, in which `padding_id` is padding. The features are `[B, width]`.

    Raises `ModelError` for an option that is none, and in `init` and `apply` for inputs that are none or too long.

    Reference: Devlin et al. 2019, arXiv:1810.04805; Liu et al. 2019, RoBERTa, arXiv:1907.11692; Sanh et al. 2019,
    DistilBERT, arXiv:1910.01108; Wang et al. 2020, MiniLM, arXiv:2002.10957.

    >>> import jax
    >>> from tljax.tree import count
    >>> model, ids = bert("base"), jnp.ones((1, 8), jnp.int32)
    >>> count(jax.eval_shape(model.init, jax.random.key(0), {"ids": ids, "mask": ids})["backbone"])
    109482240
    """
    sizes = sizes_of(
        variant, style=style, width=width, depth=depth, heads=heads, hidden=hidden, vocab=vocab, positions=positions,
        types=types, padding_id=padding_id, epsilon=epsilon, act=act, pool=pool, pooler=pooler, normalize=normalize,
        dropout=dropout, attention_dropout=attention_dropout,
    )  # fmt: skip
    groups = ("embed", *(f"block_{i:02d}" for i in range(sizes.depth)), *(["pooler"] if sizes.pooler else []))
    name = variant if variant.startswith(("minilm", "distilbert", "roberta")) else f"bert-{variant}"
    return classifier(_Backbone(sizes), num_classes, groups=groups, name=name, keymaps=keymaps(sizes, num_classes))


class Encoder(nn.Module):
    """All hidden states `[B, L, D]`: the embeddings, then each block's; its parameters are those under ``backbone/``.

    >>> import jax
    >>> sizes = sizes_of("tiny", width=8)
    >>> states, _ = Encoder(sizes).init_with_output(jax.random.key(0), jnp.ones((3, 5), jnp.int32))
    >>> len(states), states[0].shape
    (3, (3, 5, 8))
    """

    sizes: Sizes

    @nn.compact
    def __call__(self, x: Any, train: bool = False) -> tuple[Array, ...]:
        return _hidden_states(self.sizes, *_inputs(x, self.sizes), train)


class _Backbone(nn.Module):
    sizes: Sizes

    @nn.compact
    def __call__(self, x: Any, train: bool) -> Array:
        sizes = self.sizes
        ids, mask, types = _inputs(x, sizes)
        states = _hidden_states(sizes, ids, mask, types, train)[-1]
        first = states[:, 0]
        features = _masked_mean(states, mask) if sizes.pool == "mean" else first
        if sizes.pooler:
            act = nn.relu if sizes.style == "distilbert" else nn.tanh
            pooled = act(_dense(sizes.width, "pooler")(first))
            features = pooled if sizes.pool == "pooler" else features
        if sizes.normalize:
            wide = _wide(features)
            wide /= jnp.maximum(jnp.linalg.norm(wide, axis=1, keepdims=True), 1e-12)
            features = wide.astype(features.dtype)
        return nn.Dropout(sizes.dropout, deterministic=not train)(features)


def _inputs(x: Any, sizes: Sizes) -> tuple[Array, Array, Array | None]:
    """Ids, which of them are no padding, and token types."""
    if isinstance(x, Mapping):
        if "ids" not in x or set(x) - {"ids", "mask", "types"}:
            raise ModelError(f"bert takes a dict of 'ids', 'mask' and perhaps 'types'; found {', '.join(map(repr, x))}")
        ids, mask, types = x["ids"], x.get("mask"), x.get("types")
    else:
        ids, mask, types = x, None, None
    for name, array in (("ids", ids), ("types", types)):
        if array is not None and (array.ndim != 2 or not jnp.issubdtype(array.dtype, jnp.integer)):
            raise ModelError(f"bert: {name} are integers [B, L]; found {array.dtype} {array.shape}")
    if types is not None and not sizes.types:
        raise ModelError("bert: x has 'types', but style='distilbert' has no token types")
    for array in (mask, types):
        if array is not None and array.shape != ids.shape:
            raise ModelError(f"bert: ids {ids.shape} and their mask and types differ in shape: {array.shape}")
    longest = sizes.positions - (sizes.padding_id + 1 if sizes.style == "roberta" else 0)
    if ids.shape[1] > longest:
        raise ModelError(f"bert: sentences of {ids.shape[1]} tokens; there are positions for {longest}: cut them")
    return ids, (ids != sizes.padding_id) if mask is None else mask != 0, types


def _hidden_states(sizes: Sizes, ids: Array, mask: Array, types: Array | None, train: bool) -> tuple[Array, ...]:
    states = [_Embed(sizes, name="embed")(ids, types, train)]
    for i in range(sizes.depth):
        states.append(_Block(sizes, name=f"block_{i:02d}")(states[-1], mask, train))
    return tuple(states)


class _Embed(nn.Module):
    sizes: Sizes

    @nn.compact
    def __call__(self, ids: Array, types: Array | None, train: bool) -> Array:
        sizes = self.sizes

        def table(rows: int, name: str) -> nn.Embed:
            return nn.Embed(rows, sizes.width, embedding_init=nn.initializers.normal(0.02), name=name)

        x = table(sizes.vocab, "token")(ids) + table(sizes.positions, "position")(_positions(ids, sizes))
        if sizes.types:
            x += table(sizes.types, "type")(jnp.zeros_like(ids) if types is None else types)
        x = nn.LayerNorm(sizes.epsilon, name="norm")(x)
        return nn.Dropout(sizes.dropout, deterministic=not train)(x)


def _positions(ids: Array, sizes: Sizes) -> Array:
    """Rows of the table of positions `[B, L]`.

    RoBERTa's come from its first implementation, where the row `padding_id` is that of padding, and counting starts
    after it.
    """
    if sizes.style == "roberta":
        real = (ids != sizes.padding_id).astype(jnp.int32)
        return jnp.cumsum(real, axis=1) * real + sizes.padding_id
    return jnp.broadcast_to(jnp.arange(ids.shape[1], dtype=jnp.int32)[None], ids.shape)


class _Block(nn.Module):
    """``x = norm(x + attention(x))``, then ``norm(x + mlp(x))``."""

    sizes: Sizes

    @nn.compact
    def __call__(self, x: Array, mask: Array, train: bool) -> Array:
        drop = nn.Dropout(self.sizes.dropout, deterministic=not train)
        norm = partial(nn.LayerNorm, self.sizes.epsilon)
        x = norm(name="norm_1")(x + drop(_Attention(self.sizes, name="attention")(x, mask, train)))
        return norm(name="norm_2")(x + drop(_MLP(self.sizes, name="mlp")(x)))


class _Attention(nn.Module):
    """Self-attention over the tokens that are no padding; the projections are matmuls on `[B L, D]`."""

    sizes: Sizes

    @nn.compact
    def __call__(self, x: Array, mask: Array, train: bool) -> Array:
        B, L, D = x.shape
        rows, n = x.reshape(-1, D), self.sizes.heads

        def heads(name: str) -> Array:
            return _dense(D, name)(rows).reshape(B, L, n, -1)

        rate = self.sizes.attention_dropout
        drop = nn.Dropout(rate, deterministic=False) if train and rate else None
        mixed = attend(heads("query"), heads("key"), heads("value"), mask=mask, drop=drop)
        return _dense(D, "out")(mixed.reshape(-1, D)).reshape(B, L, D)


class _MLP(nn.Module):
    sizes: Sizes

    @nn.compact
    def __call__(self, x: Array) -> Array:
        rows = _dense(self.sizes.hidden, "dense_1")(x.reshape(-1, x.shape[-1]))
        return _dense(x.shape[-1], "dense_2")(activation(self.sizes.act)(rows)).reshape(x.shape)


def _dense(width: int, name: str) -> nn.Dense:
    return nn.Dense(width, kernel_init=nn.initializers.normal(0.02), name=name)


def _masked_mean(states: Array, mask: Array) -> Array:
    """The mean `[B, D]` of the tokens that are no padding; of none it is 0."""
    wide = _wide(states)
    weight = mask.astype(wide.dtype)[..., None]
    return (jnp.sum(wide * weight, axis=1) / jnp.maximum(jnp.sum(weight, axis=1), 1)).astype(states.dtype)


def _wide(x: Array) -> Array:
    """Half precision loses sums: of squares in float16, of counts in bfloat16."""
    return x.astype(jnp.float32) if x.dtype.itemsize < 4 else x


FAMILY = Family("bert", bert, from_config, recognise, beside=sentence_encoder)
