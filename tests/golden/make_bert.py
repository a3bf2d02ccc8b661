"""Writes bert.npz: hidden states, pooled and logits of tiny text encoders of transformers.

python tests/golden/make_bert.py

Run by hand where torch and transformers are installed. made_weights.py makes the weights, `sentences` the inputs, so
the file holds names, shapes, configurations and outputs only.
"""

import json
import pathlib
import sys

import numpy as np

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE))

from made_weights import made_weights, uniform  # noqa: E402

PATH = HERE / "bert.npz"
VOCAB = 40
BERT = {
    "vocab_size": VOCAB, "hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 20,
    "max_position_embeddings": 16,
}  # fmt: skip
ROBERTA = BERT | {"type_vocab_size": 1, "layer_norm_eps": 1e-5, "pad_token_id": 1}
DISTILBERT = {
    "vocab_size": VOCAB, "dim": 12, "n_layers": 2, "n_heads": 3, "hidden_dim": 20, "max_position_embeddings": 16,
}  # fmt: skip
CASES = {
    "bert classifier": ("BertForSequenceClassification", "BertConfig", BERT | {"num_labels": 3}),
    "bert": ("BertModel", "BertConfig", BERT),
    "bert relu": ("BertModel", "BertConfig", BERT | {"hidden_act": "relu", "layer_norm_eps": 1e-3}),
    "bert masked": ("BertForMaskedLM", "BertConfig", BERT),
    "bert pretraining": ("BertForPreTraining", "BertConfig", BERT),
    "roberta classifier": ("RobertaForSequenceClassification", "RobertaConfig", ROBERTA | {"num_labels": 3}),
    "roberta": ("RobertaModel", "RobertaConfig", ROBERTA),
    "roberta masked": ("RobertaForMaskedLM", "RobertaConfig", ROBERTA),
    "xlm-roberta": ("XLMRobertaForSequenceClassification", "XLMRobertaConfig", ROBERTA | {"num_labels": 4}),
    "distilbert classifier": (
        "DistilBertForSequenceClassification",
        "DistilBertConfig",
        DISTILBERT | {"num_labels": 3},
    ),
    "distilbert": ("DistilBertModel", "DistilBertConfig", DISTILBERT),
    "distilbert masked": ("DistilBertForMaskedLM", "DistilBertConfig", DISTILBERT),
}
"""The class, its configuration's class, and the configuration."""


def sentences(padding_id, types):
    """Ids, mask and token types `[3, 7]`, where the second and third sentence have padding."""
    ids = (2 + (VOCAB - 2) * (0.5 + 0.5 * uniform("ids", (3, 7)))).astype(np.int64)
    mask = (np.arange(7)[None] < np.array([7, 4, 2])[:, None]).astype(np.int64)
    ids = np.where(mask == 1, ids, padding_id)
    kinds = np.broadcast_to(np.arange(7) >= 3, (3, 7)).astype(np.int64) if types > 1 else None
    return ids, mask, kinds


def result(case):
    """What the model of `case` is, and what it makes of the sentences, by name."""
    import torch
    import transformers

    name, config_name, options = CASES[case]
    config = getattr(transformers, config_name)(**options)
    config.architectures = [name]
    config._attn_implementation = "eager"
    model = getattr(transformers, name)(config).eval()
    shapes = {name: tuple(leaf.shape) for name, leaf in model.state_dict().items()}
    weights = made_weights(shapes)
    tied = getattr(model, "_tied_weights_keys", None) or {}
    weights |= {name: weights[source] for name, source in tied.items()}
    model.load_state_dict({name: torch.from_numpy(leaf) for name, leaf in weights.items()})
    made = sentences(config.pad_token_id, getattr(config, "type_vocab_size", 0))
    ids, mask, kinds = (None if array is None else torch.from_numpy(array) for array in made)
    inputs = {"input_ids": ids, "attention_mask": mask} | ({} if kinds is None else {"token_type_ids": kinds})
    seen = []
    for module in model.modules():  # what the last dense layer of a classifier reads
        if isinstance(module, torch.nn.Linear) and module.out_features == options.get("num_labels"):
            module.register_forward_hook(lambda module, args, out: seen.append(args[0]))
    with torch.no_grad():
        out = model(**inputs, output_hidden_states=True)
    found = {"hidden": torch.stack(out.hidden_states)}
    if getattr(out, "pooler_output", None) is not None:
        found["pooled"] = out.pooler_output
    if "num_labels" in options:
        found |= {"logits": out.logits, "pooled": seen[-1]}
    about = {"shapes": shapes, "config": json.loads(model.config.to_json_string(use_diff=False))}
    return {"about": np.array(json.dumps(about))} | {key: value.numpy() for key, value in found.items()}


def main() -> None:
    arrays = {f"{case}/{key}": value for case in CASES for key, value in result(case).items()}
    np.savez_compressed(PATH, **arrays)
    print(PATH, PATH.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
