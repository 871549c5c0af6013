"""A log of calls of a model, made from a seed."""

from collections.abc import Mapping

import numpy as np

COMPILE = 2.5  # seconds that the first call takes longer
Call = Mapping[str, float]


def recorded_calls(seed: int, count: int = 12) -> list[dict[str, float]]:
    """Calls with `prompt_tokens`, `cached_tokens`, `generated_tokens`, `first_token` and `total` (seconds).

    A prompt's token takes about 1 ms, a generated one about 8 ms. The first call compiles; some calls find a part of
    their prompt in the prefix cache; two calls are disturbed, one in its prompt and one after it.
    """
    random = np.random.default_rng(seed)
    slow_prompt, slow_answer = random.choice(np.arange(1, count), 2, replace=False).tolist()
    calls = []
    for number in range(count):
        prompt, answer = int(random.integers(80, 400)), int(random.integers(8, 60))
        cached = int(random.integers(prompt // 3, prompt - 20)) if number and random.random() < 0.6 else 0
        first = 1e-3 * (prompt - cached) * random.lognormal(0, 0.05) * (9 if number == slow_prompt else 1)
        later = 8e-3 * (answer - 1) * random.lognormal(0, 0.05) * (12 if number == slow_answer else 1)
        first += COMPILE if number == 0 else 0
        later += COMPILE / 2 if number == 0 else 0
        calls.append({"prompt_tokens": prompt, "cached_tokens": cached, "generated_tokens": answer,
                      "first_token": round(first, 6), "total": round(first + later, 6)})  # fmt: skip
    return calls
