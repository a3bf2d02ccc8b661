"""Transfer learning in JAX: graft a pretrained model, adapt it, and tell whether transfer helped.

Names are imported on first use, so that `import tljax` and `tljax --help` cost next to nothing.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "types": ("Batch", "Model", "Output", "TljaxError"),
    "tree": ("GraftReport", "Selector", "graft", "merge", "select", "split"),
    "checkpoints": ("load_weights", "read_weights", "save_weights"),
    "models": ("export", "from_flax", "from_nnx", "load_pretrained", "with_bottleneck"),
    "plans": (
        "Plan", "adapters_only", "auto_rgn", "bitfit", "decay", "discriminative", "freeze",
        "gradual_unfreeze", "layerwise_decay", "linear_probe", "lora_plus", "norm_only", "plan", "rate",
        "surgical", "unfreeze",
    ),
    "objectives": (
        "Phase", "Term", "adda", "adda_from", "afn", "binary_cross_entropy", "bnm", "bsp", "bss", "cdan",
        "co_tuning", "coral", "cross_entropy", "dan", "dann", "delta", "distillation", "entropy_minimization",
        "fixmatch", "huber", "information_maximization", "irm", "jan", "l2_sp", "lwf", "mae", "mcc", "mcd", "mdd",
        "mean_teacher", "mse", "objective", "ramp_up", "reversed_gradient", "separate", "stateless", "swd", "vrex",
        "warm_up",
    ),
    "data": ("Dataset",),
    "features": ("extract",),
    "evaluation": ("evaluate", "interval", "paired_gain", "predict", "validator", "verdict"),
    "probes": ("logistic", "ridge"),
    "selection": ("Candidate", "rank_features"),
    "training": ("Result", "compile_all", "fit", "fit_many", "layout", "make_step", "mesh", "shard"),
    "recipes": ("closed_form_head", "lp_ft", "probe", "rank_models"),
}  # fmt: skip
_PACKAGES = (
    "checkpoints",
    "data",
    "evaluation",
    "features",
    "merging",
    "models",
    "objectives",
    "peft",
    "plans",
    "probes",
    "recipes",
    "scores",
    "selection",
    "training",
    "tree",
)
_WHERE = {name: package for package, names in _HOME.items() for name in names}

__all__ = ["__version__", *sorted([*_WHERE, *_PACKAGES])]


def __getattr__(name: str) -> Any:
    if name in _PACKAGES:
        return importlib.import_module(f"{__name__}.{name}")
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_WHERE[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
