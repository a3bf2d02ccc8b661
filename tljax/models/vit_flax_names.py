"""Vision transformers in the files of Flax: big_vision, and Google's first ViT."""

from tljax.checkpoints.keymap import Keymap, Rule
from tljax.checkpoints.layers import leaf
from tljax.checkpoints.layouts import one

_EMBED, _BLOCK = "backbone/embed", "backbone/block_{b:02}"


def flax_keymaps(heads: int) -> dict[str, Keymap]:
    """For `heads` attention heads, which Flax's kernels tell apart.

    >>> rules = flax_keymaps(12)["vit_jax"].rules
    >>> rules[1].theirs
    ('Transformer/posembed_input/pos_embedding',)
    """
    position = "Transformer/posembed_input/pos_embedding"
    return {
        "big_vision": Keymap(_names("_0", ("_0", "_1"), "_0", "pos_embedding", heads)),
        "vit_jax": Keymap(_names("_1", ("_0", "_2"), "_3", position, heads)),
    }


def _attention(part: str, heads: int) -> tuple[Rule, ...]:
    split = one(f"heads({heads})", lambda a: a.reshape(a.shape[0], -1), lambda a: a.reshape(a.shape[0], heads, -1))
    biases = one(f"heads({heads})", lambda a: a.reshape(-1), lambda a: a.reshape(heads, -1))
    merged = one(f"merged({heads})", lambda a: a.reshape(-1, a.shape[-1]), lambda a: a.reshape(heads, -1, a.shape[-1]))
    rules: tuple[Rule, ...] = ()
    for name in ("query", "key", "value"):
        rules += leaf(f"{_BLOCK}/attention/{name}/kernel", f"{part}/{name}/kernel", split)
        rules += leaf(f"{_BLOCK}/attention/{name}/bias", f"{part}/{name}/bias", biases)
    return (
        *rules,
        *leaf(f"{_BLOCK}/attention/out/kernel", f"{part}/out/kernel", merged),
        *leaf(f"{_BLOCK}/attention/out/bias", f"{part}/out/bias"),
    )


def _dense(ours: str, theirs: str) -> tuple[Rule, ...]:
    return tuple(rule for name in ("kernel", "bias") for rule in leaf(f"{ours}/{name}", f"{theirs}/{name}"))


def _norm(ours: str, theirs: str) -> tuple[Rule, ...]:
    return tuple(rule for name in ("scale", "bias") for rule in leaf(f"{ours}/{name}", f"{theirs}/{name}"))


def _names(attention: str, norms: tuple[str, str], mlp: str, position: str, heads: int) -> tuple[Rule, ...]:
    """With the numbers that Flax gave the modules of a block."""
    block = "Transformer/encoderblock_{b}"
    return (
        *leaf(f"{_EMBED}/cls", "cls"),
        *leaf(f"{_EMBED}/position", position),
        *_dense(f"{_EMBED}/patch", "embedding"),
        *_norm(f"{_BLOCK}/norm_1", f"{block}/LayerNorm{norms[0]}"),
        *_attention(f"{block}/MultiHeadDotProductAttention{attention}", heads),
        *_norm(f"{_BLOCK}/norm_2", f"{block}/LayerNorm{norms[1]}"),
        *_dense(f"{_BLOCK}/mlp/dense_1", f"{block}/MlpBlock{mlp}/Dense_0"),
        *_dense(f"{_BLOCK}/mlp/dense_2", f"{block}/MlpBlock{mlp}/Dense_1"),
        *_norm("backbone/norm", "Transformer/encoder_norm"),
        *_dense("backbone/pre_logits", "pre_logits"),
        *_dense("head", "head"),
    )
