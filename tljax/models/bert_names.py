"""BERT, RoBERTa and DistilBERT in the files of transformers."""

import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from tljax.checkpoints.keymap import Keymap, Rule, size
from tljax.checkpoints.layers import dense, embedding, norm
from tljax.models.bert_pooling import sentence_files
from tljax.models.bert_sizes import STYLES, Sizes
from tljax.models.family import Found, Shapes, label_config, labels_in
from tljax.models.wrapping import ModelError

_MODEL_TYPES = {
    "bert": "bert",
    "roberta": "roberta",
    "xlm-roberta": "roberta",
    "camembert": "roberta",
    "distilbert": "distilbert",
}
_CLASSES = {"bert": "Bert", "roberta": "Roberta", "distilbert": "DistilBert"}
_BLOCK = "backbone/block_{b:02}"


def keymaps(sizes: Sizes, num_classes: int) -> dict[str, Keymap]:
    """transformers with and without the head, and with the names of LayerNorm that files of 2018 have.

    A model that does not pool as transformers' classifier does has the names for it, but no configuration: the folder
    would load there, and compute something else.
    """
    style, name = sizes.style, _CLASSES[sizes.style]
    config = _config(sizes)
    labelled = config | {"architectures": [f"{name}ForSequenceClassification"]} | label_config(num_classes)
    pooler = {"distilbert": "pre_classifier"}.get(style, f"{style}.pooler.dense")
    if style == "roberta" and sizes.pool == "pooler":
        pooler = "classifier.dense"
    head = "classifier.out_proj" if style == "roberta" else "classifier"
    whole = (*_rules(sizes, f"{style}."), *dense("backbone/pooler", pooler), *dense("head", head))
    base = (*_rules(sizes, ""), *(dense("backbone/pooler", "pooler.dense") if style != "distilbert" else ()))
    as_there = sizes.pool == "pooler" and not sizes.normalize
    maps = {
        "transformers": Keymap(whole, (), _ignored(f"{style}."), labelled if as_there else None),
        "transformers-base": Keymap(
            base,
            (),
            _ignored(""),
            config | {"architectures": [f"{name}Model"]},
            beside=sentence_files(sizes.pool, sizes.width, sizes.normalize),
        ),
    }
    if style == "bert":
        maps["transformers-2018"] = Keymap(tuple(map(_renamed_norm, whole)), (), _ignored("bert."))
    return maps


def _rules(sizes: Sizes, prefix: str) -> tuple[Rule, ...]:
    """Embeddings and blocks."""
    embed = f"{prefix}embeddings"
    shared = (
        *embedding("backbone/embed/token", f"{embed}.word_embeddings"),
        *embedding("backbone/embed/position", f"{embed}.position_embeddings"),
        *embedding("backbone/embed/type", f"{embed}.token_type_embeddings"),
        *norm("backbone/embed/norm", f"{embed}.LayerNorm"),
    )
    if sizes.style == "distilbert":
        block = prefix + "transformer.layer.{b}"
        parts = ["attention.q_lin", "attention.k_lin", "attention.v_lin", "attention.out_lin", "ffn.lin1", "ffn.lin2"]
        norms = ["sa_layer_norm", "output_layer_norm"]
    else:
        block = prefix + "encoder.layer.{b}"
        parts = [f"attention.self.{name}" for name in ("query", "key", "value")]
        parts += ["attention.output.dense", "intermediate.dense", "output.dense"]
        norms = ["attention.output.LayerNorm", "output.LayerNorm"]
    ours = ("attention/query", "attention/key", "attention/value", "attention/out", "mlp/dense_1", "mlp/dense_2")
    layers = [rule for a, b in zip(ours, parts) for rule in dense(f"{_BLOCK}/{a}", f"{block}.{b}")]
    layers += [rule for a, b in zip(("norm_1", "norm_2"), norms) for rule in norm(f"{_BLOCK}/{a}", f"{block}.{b}")]
    return (*shared, *layers)


def _ignored(prefix: str) -> tuple[str, ...]:
    """Buffers of older files, the heads of pre-training and of questions, and a pooler that the model lacks."""
    escaped = re.escape(prefix)
    return (
        rf"{escaped}embeddings\.(position_ids|token_type_ids)",
        rf"{escaped}pooler\.dense\.(weight|bias)",
        r"(cls|lm_head)\..+",
        r"vocab_(transform|layer_norm|projector)\.(weight|bias)",
        r"qa_outputs\.(weight|bias)",
    )


def _renamed_norm(rule: Rule) -> Rule:
    """The first files called scale and bias of LayerNorm gamma and beta."""
    name = rule.theirs[0].replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
    return rule._replace(theirs=(name,))


def _config(sizes: Sizes) -> dict[str, Any]:
    shared = {
        "model_type": sizes.style,
        "vocab_size": size("word_embeddings.weight"),
        "max_position_embeddings": size("position_embeddings.weight"),
        "pad_token_id": sizes.padding_id,
    }
    if sizes.style == "distilbert":
        return shared | {
            "dim": sizes.width,
            "n_layers": sizes.depth,
            "n_heads": sizes.heads,
            "hidden_dim": sizes.hidden,
            "activation": sizes.act,
            "dropout": sizes.dropout,
            "attention_dropout": sizes.attention_dropout,
            "sinusoidal_pos_embds": False,
        }
    return shared | {
        "hidden_size": sizes.width,
        "num_hidden_layers": sizes.depth,
        "num_attention_heads": sizes.heads,
        "intermediate_size": sizes.hidden,
        "hidden_act": sizes.act,
        "type_vocab_size": sizes.types,
        "layer_norm_eps": sizes.epsilon,
        "hidden_dropout_prob": sizes.dropout,
        "attention_probs_dropout_prob": sizes.attention_dropout,
    }


def from_config(config: Mapping[str, Any]) -> Found | None:
    """From config.json of transformers with the model_type "bert", "roberta", "xlm-roberta" or "distilbert".

    A model with a classification head pools as transformers does; any other by the mean, as most sentence encoders.

    Raises `ModelError` for a head of another kind, relative positions, and decoders.
    """
    style = _MODEL_TYPES.get(str(config.get("model_type")))
    if style is None:
        return None
    kind = str((config.get("architectures") or ["Model"])[0])
    if kind.endswith(("ForTokenClassification", "ForMultipleChoice", "ForNextSentencePrediction")):
        raise ModelError(
            f"config.json: {kind}: its head is none for sentences; build the model with bert(...) and write "
            "load_pretrained(path, model, example=..., reinit='head/**')"
        )
    if config.get("position_embedding_type", "absolute") != "absolute" or config.get("is_decoder"):
        raise ModelError("config.json: relative positions or a decoder; bert has learned positions and looks both ways")
    classifies = kind.endswith("ForSequenceClassification")
    carried = not kind.endswith(("ForMaskedLM", "ForQuestionAnswering")) and style != "distilbert"
    options = _sizes_in(config, style) | {
        "pool": "pooler" if classifies else "mean",
        "pooler": classifies or carried,
    }
    return Found(options, example(), labels_in(config))


def _sizes_in(config: Mapping[str, Any], style: str) -> dict[str, Any]:
    usual = STYLES[style]
    distil = style == "distilbert"
    names = {
        "width": ("dim" if distil else "hidden_size", 768),
        "depth": ("n_layers" if distil else "num_hidden_layers", 6 if distil else 12),
        "heads": ("n_heads" if distil else "num_attention_heads", 12),
        "hidden": ("hidden_dim" if distil else "intermediate_size", 3072),
        "act": ("activation" if distil else "hidden_act", "gelu"),
        "dropout": ("dropout" if distil else "hidden_dropout_prob", 0.1),
        "attention_dropout": ("attention_dropout" if distil else "attention_probs_dropout_prob", 0.1),
        "vocab": ("vocab_size", usual["vocab"]),
        "positions": ("max_position_embeddings", 512),
        "padding_id": ("pad_token_id", usual["padding_id"]),
    }
    # RoBERTa's configuration class has BERT's defaults, which its published files override.
    names |= {} if distil else {"types": ("type_vocab_size", 2), "epsilon": ("layer_norm_eps", 1e-12)}
    found = {ours: default if config.get(name) is None else config[name] for ours, (name, default) in names.items()}
    return {"style": style, **found}


_HEADS = {128: 2, 256: 4, 312: 12, 384: 12, 512: 8, 768: 12, 1024: 16}
"""Of published encoders by their width: shapes do not tell the number of heads."""


def recognise(shapes: Shapes) -> Found | None:
    """Embeddings of words and the blocks of BERT or DistilBERT, of a width whose number of heads is known.

    >>> recognise({"embeddings.word_embeddings.weight": (100, 8)}) is None
    True
    """
    table = next((name for name in shapes if name.endswith("embeddings.word_embeddings.weight")), None)
    if table is None or len(shapes[table]) != 2:
        return None
    prefix = table.removesuffix("embeddings.word_embeddings.weight")
    distil = f"{prefix}transformer.layer.0.ffn.lin1.weight" in shapes
    layer = "transformer.layer" if distil else "encoder.layer"
    position, types = (shapes.get(f"{prefix}embeddings.{n}_embeddings.weight") for n in ("position", "token_type"))
    hidden = shapes.get(f"{prefix}{layer}.0.{'ffn.lin1' if distil else 'intermediate.dense'}.weight")
    vocab, width = shapes[table]
    if prefix not in ("", "bert.", "roberta.", "distilbert.") or width not in _HEADS or not (position and hidden):
        return None
    if not distil and types is None:
        return None
    style = "distilbert" if distil else "roberta" if prefix == "roberta." or types == (1, width) else "bert"
    found = [m for n in shapes if (m := re.match(rf"{re.escape(prefix)}{re.escape(layer)}\.(\d+)\.", n))]
    names = {"bert": "classifier", "roberta": "classifier.out_proj", "distilbert": "classifier"}
    classifies = f"{names[style]}.weight" in shapes
    options = {
        "style": style,
        "vocab": vocab,
        "width": width,
        "depth": len({m[1] for m in found}),
        "heads": _HEADS[width],
        "hidden": hidden[0],
        "positions": position[0],
        "pool": "pooler" if classifies else "mean",
        "pooler": classifies or f"{prefix}pooler.dense.weight" in shapes,
    }
    return Found(options | ({} if types is None else {"types": types[0]}), example())


def example() -> dict[str, jax.ShapeDtypeStruct]:
    """One sentence of eight tokens."""
    row = jax.ShapeDtypeStruct((1, 8), jnp.int32)
    return {"ids": row, "mask": row}
