"""Choosing a step without labels of the target: which number of the validation data decides, and what it reads.

A validator looks at what a model answers on named streams of validation data: `source`, whose labels are known, and
`target`, whose labels are not. Only the oracle reads labels of the target, and it is never what decides unless it was
asked for by its name.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tljax.evaluation.evaluate import EvaluationError
from tljax.objectives.classification import cross_entropy_losses
from tljax.objectives.mean import widened
from tljax.scores import certainty, dev, information, nuclear_norm, soft_density, source_validation
from tljax.tree import nearest


class Answers(NamedTuple):
    """What a model answers on the examples of one stream."""

    logits: Any
    """`[N, C]`."""
    features: Any
    """`[N, D]`, what the head reads; None will do where "dev" is not computed."""
    labels: Any = None
    """Classes `[N]`, integers; None where they are not known."""


Score = Callable[[Mapping[str, Answers]], float]


class _Rule(NamedTuple):
    number: str
    """What it is called in the rows of a log."""
    reads: tuple[str, ...]
    """The streams, by what they are to a validator."""
    labels: tuple[str, ...]
    """Those of them whose labels it reads."""
    score: Score


@dataclasses.dataclass(frozen=True)
class Validator:
    """A named number that chooses the best step, of which more is better; `validator` makes one."""

    name: str
    source: str = "source"
    target: str = "target"
    source_train: str = "source_train"
    oracle: str | None = None
    also: tuple[str, ...] | None = None
    at_least: float | None = None
    start: bool = True

    def __str__(self) -> str:
        usual = {field.name: field.default for field in dataclasses.fields(self)}
        said = {name: value for name, value in vars(self).items() if name != "name" and value != usual[name]}
        return f"validator({', '.join([repr(self.name), *(f'{name}={value!r}' for name, value in said.items())])})"

    @property
    def number(self) -> str:
        """What the rows of a log and `Result.monitor` call it: its name, but the oracle is "oracle_accuracy".

        >>> validator("im").number, validator("oracle").number
        ('im', 'oracle_accuracy')
        """
        return _RULES[self.name].number

    @property
    def streams(self) -> dict[str, str]:
        """The name of every stream that validators may read, by what it is to them."""
        mine = {role: getattr(self, role) for role in ("source", "target", "source_train")}
        return mine | {"oracle": self.oracle or self.target}

    def computed(self, labelled: Mapping[str, bool]) -> tuple[str, ...]:
        """The names of the validators that can be computed, of those that are to be.

        `labelled`: whether labels are known, by the name of each stream that there is. Raises `EvaluationError` where
        one that was asked for by name cannot be computed, or no validator would read a stream.

        >>> validator("im").computed({"source": True, "target": False})
        ('source_accuracy', 'source_likelihood', 'certainty', 'im', 'bnm', 'snd')
        """
        asked = (self.name, *(self.also or ()), *(("source_accuracy",) if self.at_least is not None else ()))
        for name in asked:
            lacking = self._lacking(name, labelled)
            if lacking:
                raise EvaluationError(f"the validator {name!r} {lacking}")
        found = tuple(
            name for name in VALIDATORS if (self.also is None or name in asked) and not self._lacking(name, labelled)
        )
        known = list(dict.fromkeys(self.streams.values()))
        for stream in labelled:
            if stream not in known:
                close = nearest(stream, known)
                raise EvaluationError(
                    f"{self} reads the validation streams {', '.join(map(repr, known))}, and no {stream!r}"
                    + (f". Did you mean {close[0]!r}?" if close else "")
                )
        return found

    def read(self, labelled: Mapping[str, bool]) -> set[str]:
        """The names of the streams that are read for what is computed.

        >>> sorted(validator("im", also=[]).read({"source": True, "target": False}))
        ['target']
        """
        return {self.streams[role] for name in self.computed(labelled) for role in _RULES[name].reads}

    def _lacking(self, name: str, labelled: Mapping[str, bool]) -> str:
        """What the validator `name` needs and does not have, or nothing."""
        for role in _RULES[name].reads:
            stream = self.streams[role]
            if stream not in labelled:
                known = ", ".join(map(repr, labelled)) or "none"
                return f"reads the validation stream {stream!r}; there are: {known}"
            if role in _RULES[name].labels and not labelled[stream]:
                return f"needs labels of the validation stream {stream!r}, which has none"
        return ""

    def value(self, numbers: Mapping[str, float]) -> float:
        """What is compared with other steps: the number that chooses; NaN where the source's accuracy is too low.

        >>> validator("snd", at_least=0.5).value({"source_accuracy": 0.4, "snd": 3.0})
        nan
        """
        if self.at_least is not None and not numbers["source_accuracy"] >= self.at_least:
            return float("nan")
        return numbers[self.number]

    def __call__(self, answers: Mapping[str, Answers]) -> dict[str, float]:
        """The number of every validator that can be computed, by its name in a log; NaN of answers that are no numbers.

        >>> sure, x = np.array([[4.0, 0.0], [0.0, 4.0]]), np.zeros((2, 3))
        >>> found = validator("im")({"source": Answers(sure, x, np.array([0, 0])), "target": Answers(sure, x)})
        >>> found["source_accuracy"], round(found["im"], 3)
        (0.5, 0.603)
        """
        computed = self.computed({name: given.labels is not None for name, given in answers.items()})
        roles = {role: answers[stream] for role, stream in self.streams.items() if stream in answers}
        return {_RULES[name].number: _number(_RULES[name], roles) for name in computed}


def validator(
    name: str,
    *,
    source: str = "source",
    target: str = "target",
    source_train: str = "source_train",
    oracle: str | None = None,
    also: Sequence[str] | None = None,
    at_least: float | None = None,
    start: bool = True,
) -> Validator:
    """What chooses the best step of a run without labels of the target, as `fit` takes it for its `metric`.

        fit(..., valid={"source": (x, y), "target": (x, None)}, metric=validator("im"))

    Of each more is better:

    * "source_accuracy", "source_likelihood": how right the model is on the source's validation examples;
    * "certainty", or "entropy": minus the mean entropy of the predictions for the target;
    * "im": the information that predictions have of the class, "bnm": their nuclear norm, "snd": the density of their
      soft neighbourhoods, on the target;
    * "dev": minus the error rate on the target, estimated from that on the source: see `tljax.scores.dev`. It reads the
      features of a stream more, "source_train": examples of the source's training data, with labels or without;
    * "oracle": the accuracy on the target, which needs its labels. In use they are not known: it is there to tell how
      much the others lose.

    Args:
        name: of the one that chooses.
        source, target, source_train: the names of the streams of validation data.
        oracle: the stream, with labels, on which the oracle is computed; default: the target's. So the accuracy on a
            test set can be followed beside the choice, which it has no part in.
        also: the others to be computed at every evaluation. Default: all for which there are data; of N target examples
            "snd" takes N^2 time.
        at_least: the accuracy on the source's validation examples, 0..1, that a step needs to be chosen. Some take a
            model that answers nothing for a good one: to "snd" answers that are all alike are dense, so it would choose
            a head that has not learnt yet. With fewer everywhere the start is kept, at a best value of minus infinity.
        start: whether the start may be chosen, step 0, which is evaluated too: not so where its head is a new one.

    Raises:
        EvaluationError: a name of no validator, `at_least` outside 0..1; when it is used, streams or labels that it
            needs and that are missing.

    Reference: Musgrave et al. 2021, Unsupervised domain adaptation: a reality check, arXiv:2111.15672; those of each in
    `tljax.scores`.

    >>> print(validator("IM"), validator("entropy", also=["snd"]))
    validator('im') validator('certainty', also=('snd',))
    """
    others = None if also is None else tuple(map(_known, [also] if isinstance(also, str) else also))
    if at_least is not None and not 0 <= at_least <= 1:
        raise EvaluationError(f"at_least is an accuracy on the source, from 0 to 1; found {at_least!r}")
    return Validator(_known(name), source, target, source_train, oracle, others, at_least, start)


def _known(name: Any) -> str:
    plain = str(name).strip().lower()
    plain = {"entropy": "certainty"}.get(plain, plain)
    if plain in _RULES:
        return plain
    close = [known for known in VALIDATORS if plain and plain in known] or nearest(plain, VALIDATORS)
    raise EvaluationError(
        f"there is no validator {name!r}; there are {', '.join(VALIDATORS)}"
        + (f". Did you mean {close[0]!r}?" if close else "")
    )


def _number(rule: _Rule, answers: Mapping[str, Answers]) -> float:
    """The score in float32, as the best so far is kept; NaN where an answer that it reads is no number."""
    with_features = rule.number == "dev"
    for role in rule.reads:
        given = answers[role]
        if not _finite(given.logits) or (with_features and not _finite(given.features)):
            return float("nan")
    with np.errstate(over="ignore", invalid="ignore"):  # weights beyond float64 make NaN, which is never the best
        return float(np.float32(rule.score(answers)))


def _finite(values: Any) -> bool:
    return bool(np.all(np.isfinite(np.asarray(values, np.float64))))


def _probabilities(answers: Answers) -> jax.Array:
    """`[N, C]`, in float32 at least."""
    return jax.nn.softmax(widened(jnp.asarray(answers.logits)), axis=-1)


def _right(answers: Answers) -> np.ndarray:
    """`[N]`: whether the answer is the label."""
    return np.asarray(answers.logits).argmax(-1) == np.asarray(answers.labels)


def _rows(answers: Answers) -> np.ndarray:
    features = np.asarray(answers.features)
    return features.reshape(len(features), -1)


def _accuracy(answers: Mapping[str, Answers]) -> float:
    return source_validation(_probabilities(answers["source"]), answers["source"].labels)


def _likelihood(answers: Mapping[str, Answers]) -> float:
    """From the logits: the probability of the right class may be too small for a float."""
    logits, _, labels = answers["source"]
    return -float(np.mean(np.asarray(cross_entropy_losses(jnp.asarray(logits), labels), np.float64)))


def _target(score: Callable[[Any], float]) -> Score:
    return lambda a: score(_probabilities(a["target"]))


def _dev(answers: Mapping[str, Answers]) -> float:
    wrong = 1.0 - _right(answers["source"])
    return dev(wrong, *(_rows(answers[role]) for role in ("source", "source_train", "target")))


_RULES = {
    "source_accuracy": _Rule("source_accuracy", ("source",), ("source",), _accuracy),
    "source_likelihood": _Rule("source_likelihood", ("source",), ("source",), _likelihood),
    "certainty": _Rule("certainty", ("target",), (), _target(certainty)),
    "im": _Rule("im", ("target",), (), _target(information)),
    "bnm": _Rule("bnm", ("target",), (), _target(nuclear_norm)),
    "snd": _Rule("snd", ("target",), (), _target(soft_density)),
    "dev": _Rule("dev", ("source", "source_train", "target"), ("source",), _dev),
    "oracle": _Rule("oracle_accuracy", ("oracle",), ("oracle",), lambda a: float(np.mean(_right(a["oracle"])))),
}
VALIDATORS = tuple(_RULES)
"""The names of all validators."""
