"""Label-free validators and ridge against NumPy, by hand; and the values of published code."""

import json

import numpy as np
import pytest
from scipy.special import softmax

from tljax import scores

RNG = np.random.default_rng(0)
P = softmax(3 * RNG.normal(size=(40, 5)), axis=1)
Y = RNG.integers(0, 5, 40)


def entropy(p: np.ndarray) -> float:
    return float(-sum(x * np.log(x) for x in p if x > 0))


def test_source_validation() -> None:
    hits = sum(int(p.argmax()) == y for p, y in zip(P, Y)) / 40
    np.testing.assert_allclose(scores.source_validation(P, Y), hits)
    likelihood = sum(np.log(p[y]) for p, y in zip(P, Y)) / 40
    np.testing.assert_allclose(scores.source_validation(P, Y, measure="likelihood"), likelihood, rtol=1e-6)
    assert scores.source_validation([[1.0, 0.0]], [1], measure="likelihood") == -np.inf


@pytest.mark.slow
def test_certainty_and_information() -> None:
    mean = sum(map(entropy, P)) / 40
    np.testing.assert_allclose(scores.certainty(P), -mean, rtol=1e-6)
    np.testing.assert_allclose(scores.information(P), entropy(P.mean(0)) - mean, rtol=1e-5)
    sure = np.eye(5)[Y]
    assert scores.certainty(sure) == 0
    np.testing.assert_allclose(scores.information(np.eye(5)), np.log(5), rtol=1e-6)


def test_nuclear_norm() -> None:
    np.testing.assert_allclose(scores.nuclear_norm(P), np.linalg.norm(P, "nuc") / 40, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("chunk", [7, 1024])
def test_soft_density(chunk: int) -> None:
    z = P / np.sqrt((P**2).sum(1))[:, None]
    found = []
    for i in range(40):
        others = np.array([z[i] @ z[j] / 0.05 for j in range(40) if j != i])
        found.append(entropy(softmax(others)))
    np.testing.assert_allclose(scores.soft_density(P, chunk=chunk), np.mean(found), rtol=1e-5)


@pytest.mark.slow
def test_dev_is_the_weighted_risk_with_a_control_variate() -> None:
    sklearn = pytest.importorskip("sklearn.linear_model")
    train, valid, target = (RNG.normal(size=(n, 3)) * [1, 5, 0.1] + m for n, m in ((60, 0), (50, 0), (90, 0.4)))
    losses = RNG.random(50)
    both = np.concatenate([train, target])
    mean, std = both.mean(0), both.std(0)
    # The loss is a mean over 150 examples, that of scikit-learn C times the sum.
    head = sklearn.LogisticRegression(C=1 / (150 * 1e-3), tol=1e-10, max_iter=1000)
    head.fit((both - mean) / std, np.repeat([1, 0], [60, 90]))
    d = head.predict_proba((valid - mean) / std)[:, 1]
    weights = 60 / 90 * (1 - d) / d
    covariance = np.cov(weights * losses, weights, ddof=1)[0, 1]
    eta = -covariance / weights.var(ddof=1)
    risk = (weights * losses).mean() + eta * weights.mean() - eta
    np.testing.assert_allclose(scores.dev(losses, valid, train, target), -risk, rtol=2e-4)


@pytest.mark.slow
def test_dev_without_a_shift_or_features_is_the_mean_loss() -> None:
    ones, losses = np.ones((9, 2)), RNG.random(9)
    np.testing.assert_allclose(scores.dev(losses, ones, ones, ones), -losses.mean(), rtol=1e-5)


@pytest.mark.slow
def test_dev_takes_no_rounding_for_spread():
    constant, losses = np.full((60, 3), np.float32(0.3)), RNG.random(40)
    other = RNG.normal(size=(40, 3))
    np.testing.assert_allclose(scores.dev(losses, other, constant, constant), -losses.mean(), rtol=1e-5)


@pytest.mark.slow
def test_ridge_is_what_is_predicted_without_an_example() -> None:
    x, y = RNG.normal(size=(20, 4)), RNG.integers(0, 3, 20)
    left_out = np.empty((20, 3))
    for i in range(20):
        rest = np.arange(20) != i
        mean, t = x[rest].mean(0), 2 * np.eye(3)[y[rest]] - 1
        w = np.linalg.solve((x[rest] - mean).T @ (x[rest] - mean) + np.eye(4), (x[rest] - mean).T @ (t - t.mean(0)))
        left_out[i] = (x[i] - mean) @ w + t.mean(0)
    np.testing.assert_allclose(scores.ridge(x, y, strengths=[1.0]), np.mean(left_out.argmax(1) == y), rtol=1e-6)
    best = max(
        np.mean([np.log(softmax(a * row)[label]) for row, label in zip(left_out, y)]) for a in np.logspace(-3, 2, 300)
    )
    found = scores.ridge(x, y, strengths=[1.0], measure="likelihood")
    assert best - 0.02 < found <= best + 1e-4  # the temperature is smoothed by one example


@pytest.mark.slow
def test_ridge_of_a_regression() -> None:
    x = RNG.normal(size=(15, 2))
    t = np.stack([x @ [1.0, 2.0] + 0.1 * RNG.normal(size=15), np.ones(15), RNG.normal(size=15)], axis=1)
    expected = []
    for column in (t[:, 0], t[:, 2]):
        missed = 0.0
        for i in range(15):
            rest = np.arange(15) != i
            mean, middle = x[rest].mean(0), column[rest].mean()
            z = x[rest] - mean
            w = np.linalg.solve(z.T @ z + 0.5 * np.eye(2), z.T @ (column[rest] - middle))
            missed += (column[i] - (x[i] - mean) @ w - middle) ** 2
        expected.append(1 - missed / ((column - column.mean()) ** 2).sum())
    np.testing.assert_allclose(scores.ridge(x, t, regression=True, strengths=[0.5]), np.mean(expected), rtol=1e-4)


@pytest.mark.one_in(2)
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: scores.certainty(np.eye(3) * 2), "sum to 1"),
        (lambda: scores.information([0.5, 0.5]), r"must be \[N, D\]"),
        (lambda: scores.nuclear_norm([[np.nan, 1.0]]), "NaN"),
        (lambda: scores.soft_density([[1.0]]), "two examples or more"),
        (lambda: scores.soft_density(P, temperature=0), "positive"),
        (lambda: scores.source_validation(P, Y + 1), "labels go from 1 to 5"),
        (lambda: scores.source_validation(P, ["a"] * 40), "integers"),
        (lambda: scores.source_validation(P, Y, measure="risk"), "'accuracy' or 'likelihood'"),
        (lambda: scores.dev(Y[:3], P, P, P), "losses must be"),
        (lambda: scores.dev(Y, P, P, P[:, :2]), "one width"),
        (lambda: scores.dev(Y, P, P, P, penalty=0), "penalty"),
        (lambda: scores.ridge(P, Y, measure="r2"), "'accuracy', 'likelihood'"),
        (lambda: scores.ridge(P, np.ones(40), regression=True), "none of the targets varies"),
        (lambda: scores.ridge(P, Y[:3] * 1.0, regression=True), "as many targets"),
        (lambda: scores.ridge(P, Y, strengths=[-1]), "strengths"),
    ],
)
def test_bad_input_is_told(call, message) -> None:
    with pytest.raises(scores.ScoreError, match=message):
        call()


@pytest.mark.slow
@pytest.mark.real_data
def test_values_of_pytorch_adapt(data_dir) -> None:
    arrays = np.load(data_dir / "references/domain/features.npz")
    wanted = json.loads((data_dir / "references/domain/values.json").read_text())
    p = softmax(arrays["target_logits"].astype(np.float64), axis=1)
    np.testing.assert_allclose(scores.certainty(p), -wanted["entropy"], rtol=1e-4)
    np.testing.assert_allclose(scores.nuclear_norm(p), -wanted["bnm"], rtol=1e-5)
    information = -wanted["diversity"] - wanted["entropy"]
    np.testing.assert_allclose(scores.information(p), information, rtol=1e-4)
    source = softmax(arrays["source_logits"], axis=1)
    assert scores.source_validation(source, arrays["source_y"]) == pytest.approx(wanted["acc_source"])


@pytest.mark.slow
@pytest.mark.real_data
@pytest.mark.parametrize("net", ["aka_resnet20", "aka_resnet56"])
def test_values_of_published_code_on_real_features(data_dir, net) -> None:
    arrays = np.load(data_dir / "references/transferability/features.npz")
    wanted = json.loads((data_dir / "references/transferability/scores.json").read_text())["scores"][net]
    x, p, y = arrays[f"{net}_features"], arrays[f"{net}_probs"], arrays["labels"]
    found = {
        "logme_fixed_point": scores.logme(x, y, center=False, form="published"),
        "leep": scores.leep(p, y),
        "nce": scores.nce(p.argmax(1), y),
        "h_score": scores.h_score(x, y),
        "regularized_h_score": scores.shrinkage_h_score(x, y),
        "transrate": scores.transrate(x, y, weights="equal"),
    }
    for name, value in found.items():
        np.testing.assert_allclose(value, wanted[name], rtol=1e-5, err_msg=name)
    # Theirs stop when the ratio moves by less than 1 %, ours at the maximum.
    assert wanted["logme_icml"] < scores.logme(x, y, center=False) < wanted["logme_icml"] + 1e-5
