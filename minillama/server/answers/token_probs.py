"""Probabilities of tokens in answers: `completion_probabilities` and `logprobs`."""

import math
from collections.abc import Sequence

from minillama.engine.result import Piece
from minillama.server.answers.generation import Generation
from minillama.tokenizer import Tokenizer

LEAST = -3.4028234663852886e38  # in place of -inf, which JSON does not have


def token_probs(generation: Generation, pieces: Sequence[Piece], tokenizer: Tokenizer) -> list[dict[str, object]]:
    """One entry for each piece: token, probability, and the likeliest tokens in its place.

    Probabilities are before the sampler chain (`logprob`), or after it with post_sampling_probs (`prob`).
    """
    after = generation.request.is_on("post_sampling_probs")
    top_name = "top_probs" if after else "top_logprobs"
    entries = []
    for piece in pieces:
        logprob = _logprob_after(piece) if after else piece.logprob
        top = [_entry(each.token, each.logprob, tokenizer, after) for each in piece.top]
        entries.append({**_entry(piece.token, logprob, tokenizer, after), top_name: top})
    return entries


def shown_pieces(generation: Generation, tokenizer: Tokenizer) -> Sequence[Piece]:
    """The pieces whose probabilities an answer shows: without those of a stop string."""
    found = generation.stop_string
    if not found:
        return generation.pieces
    hidden = len(tokenizer.encode(found, add_special=False))
    return generation.pieces[: max(len(generation.pieces) - hidden, 0)]


def _logprob_after(piece: Piece) -> float:
    """The log-probability of the sampled token after the sampler chain."""
    return piece.logprob if piece.post_logprob is None else piece.post_logprob


def _entry(token: int, logprob: float, tokenizer: Tokenizer, after: bool) -> dict[str, object]:
    text = tokenizer.piece(token, special=True)
    value = math.exp(logprob) if after else max(logprob, LEAST)
    name = "prob" if after else "logprob"
    return {"id": token, "token": text.decode("utf-8", "replace"), "bytes": list(text), name: value}
