"""The class model's training: a hidden Markov model whose words may only have the classes that a dictionary lists.

After Kupiec (1992) and Merialdo (1994). Used by `build` alone; needs numpy.
"""

from typing import Any

import numpy as np

from services.teacher.judges.rules.classes import fine_classes


class Tagger:
    """The dictionary-constrained hidden Markov model while it is being trained. K classes, V words."""

    def __init__(self, lexicon: dict[str, tuple[str, ...]]) -> None:
        self.classes = fine_classes()
        self.index = {c: i for i, c in enumerate(self.classes)}
        self.words = {w: i for i, w in enumerate(lexicon)}
        k = len(self.classes)
        self.allowed_VK = np.zeros((len(lexicon), k))
        for word, i in self.words.items():
            for tag in lexicon[word]:
                self.allowed_VK[i, self.index[tag]] = 1.0
        self.transition_KK = np.full((k, k), 1.0 / k)
        self.emission_VK = self.allowed_VK / np.maximum(self.allowed_VK.sum(0), 1.0)

    def expectation_maximisation(self, batches: list[np.ndarray[Any, Any]]) -> float:
        """One round over `batches` of word ids (B, T); returns the mean log-likelihood a token in nats."""
        k = len(self.classes)
        pairs = np.zeros((k, k))
        emitted = np.zeros(self.allowed_VK.shape)
        log_likelihood = tokens = 0.0
        for ids in batches:
            emit = self.emission_VK[ids] + 1e-12 * self.allowed_VK[ids]  # B T K
            alpha, scale = np.zeros(emit.shape), np.zeros(ids.shape)
            alpha[:, 0] = emit[:, 0] * self.transition_KK[self.index["^"]]
            for t in range(ids.shape[1]):
                if t:
                    alpha[:, t] = (alpha[:, t - 1] @ self.transition_KK) * emit[:, t]
                scale[:, t] = alpha[:, t].sum(1) + 1e-300
                alpha[:, t] /= scale[:, t, None]
            beta = np.ones((len(ids), k))
            for t in range(ids.shape[1] - 1, -1, -1):
                np.add.at(emitted, ids[:, t], alpha[:, t] * beta)
                if t:
                    message = emit[:, t] * beta / scale[:, t, None]
                    pairs += self.transition_KK * (alpha[:, t - 1].T @ message)
                    beta = message @ self.transition_KK.T
                else:
                    pairs[self.index["^"]] += (alpha[:, 0] * beta).sum(0)
            log_likelihood += float(np.log(scale).sum())
            tokens += ids.size
        self.transition_KK = (pairs + 0.05) / (pairs + 0.05).sum(1, keepdims=True)
        self.emission_VK = emitted * self.allowed_VK
        self.emission_VK /= np.maximum(self.emission_VK.sum(0), 1e-12)
        self.posterior_VK = emitted / np.maximum(emitted.sum(1, keepdims=True), 1e-12)
        return log_likelihood / tokens

    def decode(self, ids: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """The most probable class of each token (B, T) given its whole sentence."""
        emit = self.emission_VK[ids] + 1e-12 * self.allowed_VK[ids]
        alpha = np.zeros(emit.shape)
        alpha[:, 0] = emit[:, 0] * self.transition_KK[self.index["^"]]
        for t in range(1, ids.shape[1]):
            alpha[:, t] = (alpha[:, t - 1] @ self.transition_KK) * emit[:, t]
            alpha[:, t] /= alpha[:, t].sum(1, keepdims=True) + 1e-300
        beta = np.ones((len(ids), len(self.classes)))
        path = np.zeros(ids.shape, dtype=np.int64)
        for t in range(ids.shape[1] - 1, -1, -1):
            path[:, t] = (alpha[:, t] * beta).argmax(1)
            beta = (emit[:, t] * beta) @ self.transition_KK.T
            beta /= beta.sum(1, keepdims=True) + 1e-300
        return path
