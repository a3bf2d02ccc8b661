"""Write classification_report.json: calibration and averages of known probabilities, in float64 NumPy.

    python tests/golden/make_classification_report.py

The probabilities are softmax of ``sin`` waves, so that anyone can make them again, and a small literal table; the
metrics are written here from their definitions, class by class and bin by bin, and share no code with the library.
"""

import json
import pathlib

import numpy as np


def probabilities(n, classes, sharpness):
    i, j = np.arange(n)[:, None], np.arange(classes)[None]
    logits = sharpness * np.sin(0.61 * i + 1.7 * j + 0.13 * i * j)
    e = np.exp(logits)
    return (e / e.sum(1, keepdims=True)).round(6)


def report(p, labels, bins=15):
    n, classes = p.shape
    answer, confidence = p.argmax(1), p.max(1)
    recall, precision, f1 = [], [], []
    for c in range(classes):
        right = int(((answer == c) & (labels == c)).sum())
        answered, support = int((answer == c).sum()), int((labels == c).sum())
        recall.append(right / support if support else 0.0)
        precision.append(right / answered if answered else 0.0)
        f1.append(2 * right / (answered + support) if answered + support else 0.0)
    ece = 0.0
    for b in range(bins):
        inside = [k for k in range(n) if b / bins < confidence[k] <= (b + 1) / bins]
        if inside:
            accuracy = np.mean([answer[k] == labels[k] for k in inside])
            ece += len(inside) / n * abs(accuracy - np.mean([confidence[k] for k in inside]))
    return {
        "accuracy": float((answer == labels).mean()),
        "macro_recall": float(np.mean(recall)),
        "macro_precision": float(np.mean(precision)),
        "macro_f1": float(np.mean(f1)),
        "worst_recall": float(min(recall)),
        "ece": float(ece),
        "nll": float(np.mean([-np.log(p[k, labels[k]]) for k in range(n)])),
        "brier": float(np.mean([sum((p[k, c] - (c == labels[k])) ** 2 for c in range(classes)) for k in range(n)])),
    }


LITERAL_LABELS = [0, 0, 0, 2, 2, 2, 1, 1, 1]
LITERAL = [
    [0.09992976537869329, 0.046871411973524395, 0.8531988226477822],
    [0.0575991710705037, 0.7922680086051188, 0.1501328203243775],
    [0.10105856602511827, 0.6428546665275624, 0.2560867674473193],
    [0.02931859189097725, 0.3641895235621835, 0.6064918845468393],
    [0.006636538325320477, 0.9858842108534619, 0.007479250821217585],
    [0.0009203549603701278, 0.9990099581498645, 6.968688976543284e-05],
    [0.12387216183065256, 0.8061817484809894, 0.06994608968835793],
    [0.4198483868802729, 0.5569837835264947, 0.02316782959323241],
    [0.10330365313921604, 0.5920568961929222, 0.30463945066786186],
]


def main():
    waves = {
        "sharp": (probabilities(60, 4, 3.0), np.arange(60) % 4),
        "flat": (probabilities(40, 7, 0.8), np.arange(40) * 3 % 7),
        "binary": (probabilities(50, 2, 1.5), np.arange(50) // 5 % 2),
        "literal": (np.array(LITERAL), np.array(LITERAL_LABELS)),
    }
    cases = {
        name: {"probabilities": p.tolist(), "labels": y.tolist(), "expected": report(p, y)}
        for name, (p, y) in waves.items()
    }
    out = pathlib.Path(__file__).with_name("classification_report.json")
    out.write_text(json.dumps({"numpy": np.__version__, "cases": cases}) + "\n")


if __name__ == "__main__":
    main()
