"""Train the built-in storyteller and write its GGUF files; a second call resumes.

python data/train.py --texts folder --minutes 80
"""

import argparse
import os
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import corpus
import jax
import jax.numpy as jnp
import numpy as np
import optimiser
from export import export_all
from jaxtyping import Array, Float, Int
from network import Shape, Weights, initialise, loss
from tokenizers import Tokenizer
from tqdm import tqdm

from minillama import env

HERE = Path(__file__).parent


@dataclass(frozen=True)
class TrainingPlan:
    """Length and hyperparameters of a run."""

    minutes: float = 80.0
    steps: int = 0  # instead of minutes, when not 0
    rows: int = 8
    length: int = 256
    long_length: int = 512  # of the last part of the run
    long_from: float = 0.8
    rate: float = 6e-3
    warmup: int = 100
    decay_from: float = 0.6
    seed: int = 0
    bfloat16: bool = True  # multiply in bfloat16
    checkpoint_minutes: float = 3.0
    measure_every: int = 200


@dataclass(frozen=True)
class Checkpoint:
    """State of a run."""

    step: int
    seconds: float
    weights: Weights
    state: optimiser.OptimiserState


def progress(plan: TrainingPlan, step: int, seconds: float) -> float:
    """Completed share of the run, 0 to 1, by steps or by time."""
    return min(1.0, step / plan.steps if plan.steps else seconds / (60 * plan.minutes))


def rate_at(plan: TrainingPlan, step: int, done: float) -> float:
    """Learning rate: a short warmup, a plateau, then a linear decay to 0."""
    down = (1 - done) / (1 - plan.decay_from) if done > plan.decay_from else 1.0
    return plan.rate * down * min(1.0, (step + 1) / plan.warmup)


@partial(jax.jit, static_argnames=("shape", "bfloat16"), donate_argnames=("weights", "state"))
def train_step(
    weights: Weights,
    state: optimiser.OptimiserState,
    rows: Int[Array, "B T1"],
    rate: Float[Array, ""],
    shape: Shape,
    bfloat16: bool,
) -> tuple[Weights, optimiser.OptimiserState, Float[Array, ""]]:
    """One step on one batch; returns the loss before the step."""
    value, gradients = jax.value_and_grad(loss)(weights, rows, shape, bfloat16)
    weights, state, _ = optimiser.update(weights, gradients, state, rate)
    return weights, state, value


@partial(jax.jit, static_argnames=("shape", "bfloat16"))
def _loss(weights: Weights, rows: Int[Array, "B T1"], shape: Shape, bfloat16: bool) -> Float[Array, ""]:
    return loss(weights, rows, shape, bfloat16)


def held_out_loss(weights: Weights, rows: np.ndarray, shape: Shape, bfloat16: bool, batch_size: int = 16) -> float:
    """Mean loss of held-out rows, in nats per token."""
    parts = [rows[start : start + batch_size] for start in range(0, len(rows), batch_size)]
    losses = [float(_loss(weights, jnp.asarray(part), shape, bfloat16)) for part in parts]
    return float(np.average(losses, weights=[len(part) for part in parts]))


def save(path: Path, point: Checkpoint) -> None:
    """Write a checkpoint atomically."""
    arrays = {f"weights/{name}": np.asarray(value) for name, value in point.weights.items()}
    arrays |= {f"mean/{name}": np.asarray(value) for name, value in point.state.mean.items()}
    arrays |= {f"square/{name}": np.asarray(value) for name, value in point.state.square.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        np.savez(file, step=np.int32(point.step), seconds=np.float64(point.seconds), **arrays)
    os.replace(part, path)


def restore(path: Path) -> Checkpoint:
    """Read a checkpoint that `save` wrote."""
    with np.load(path) as arrays:
        groups: dict[str, Weights] = {"weights": {}, "mean": {}, "square": {}}
        for name in arrays.files:
            group, _, tensor = name.partition("/")
            if tensor:
                groups[group][tensor] = jnp.asarray(arrays[name])
        state = optimiser.OptimiserState(jnp.int32(arrays["step"]), groups["mean"], groups["square"])
        return Checkpoint(int(arrays["step"]), float(arrays["seconds"]), groups["weights"], state)


def new_run(shape: Shape, plan: TrainingPlan) -> Checkpoint:
    weights = initialise(shape, plan.seed)
    return Checkpoint(0, 0.0, weights, optimiser.initial_state(weights))


def load_tokenizer(path: Path, texts: corpus.Texts, shape: Shape) -> Tokenizer:
    """The tokenizer of the run, trained on the first call."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        corpus.train_tokenizer(texts.train, shape.vocabulary).save(str(path))
    return Tokenizer.from_file(str(path))


def train(
    point: Checkpoint,
    plan: TrainingPlan,
    shape: Shape,
    tokenizer: Tokenizer,
    texts: corpus.Texts,
    checkpoint: Path,
    log: Path,
    until: float = 1.0,
) -> Checkpoint:
    """Train from `point` to the end of the plan, or to its share `until`.

    Writes checkpoints and held-out losses during the run.
    """
    step, weights, state = point.step, point.weights, point.state
    started = time.monotonic() - point.seconds
    saved = point.seconds
    checks = {
        "synthetic": corpus.held_out(tokenizer, (), 48, plan.length + 1),
        **({"tinystories": corpus.held_out(tokenizer, texts.held_out, 48, plan.length + 1)} if texts.held_out else {}),
    }
    smooth = None
    bar = tqdm(desc="training", unit="step", initial=step, total=plan.steps or None, mininterval=5)
    while (done := progress(plan, step, point.seconds)) < until:
        long = done >= plan.long_from
        rows, length = (plan.rows // 2, plan.long_length) if long else (plan.rows, plan.length)
        mix = corpus.LATE if done > plan.decay_from else corpus.EARLY
        batch = corpus.batch(tokenizer, texts.train, rows, length + 1, plan.seed, step, mix)
        rate = jnp.float32(rate_at(plan, step, done))
        weights, state, value = train_step(weights, state, jnp.asarray(batch), rate, shape, plan.bfloat16)
        step += 1
        smooth = float(value) if smooth is None else 0.95 * smooth + 0.05 * float(value)
        bar.update()
        point = Checkpoint(step, time.monotonic() - started, weights, state)
        if step % plan.measure_every == 0:
            losses = {name: held_out_loss(weights, rows, shape, plan.bfloat16) for name, rows in checks.items()}
            losses_text = ", ".join(f"{name} {value:.3f}" for name, value in losses.items())
            bar.set_postfix_str(f"loss {smooth:.3f}, held out: {losses_text}")
            with log.open("a") as file:
                minutes = point.seconds / 60
                file.write(
                    f"step {step}, {minutes:.1f} min, rate {float(rate):.2e}, loss {smooth:.4f}, {losses_text}\n"
                )
        if point.seconds - saved > 60 * plan.checkpoint_minutes:
            save(checkpoint, point)
            saved = point.seconds
    bar.close()
    save(checkpoint, point)
    return point


def main() -> None:
    env.prepare()
    plan = TrainingPlan()
    parser = argparse.ArgumentParser(description="Train the built-in storyteller and write its GGUF files.")
    parser.add_argument(
        "--texts", type=Path, default=HERE / "texts", help="folder with tinystories.txt (default: data/texts)"
    )
    parser.add_argument(
        "--folder", type=Path, default=HERE / "training", help="checkpoint, tokenizer and log (default: data/training)"
    )
    parser.add_argument("--output", type=Path, default=HERE, help="output folder of the GGUF files (default: data)")
    parser.add_argument(
        "--minutes", type=float, default=plan.minutes, help=f"length of the run (default: {plan.minutes:g})"
    )
    parser.add_argument("--steps", type=int, default=plan.steps, help="length in steps, instead of minutes")
    parser.add_argument(
        "--rows", type=int, default=plan.rows, help=f"rows of {plan.length} tokens (default: {plan.rows})"
    )
    parser.add_argument("--rate", type=float, default=plan.rate, help=f"maximum learning rate (default: {plan.rate})")
    parser.add_argument("--seed", type=int, default=plan.seed)
    parser.add_argument("--float32", action="store_true", help="multiply in float32 instead of bfloat16")
    options = parser.parse_args()
    plan = TrainingPlan(
        minutes=options.minutes,
        steps=options.steps,
        rows=options.rows,
        rate=options.rate,
        seed=options.seed,
        bfloat16=not options.float32,
    )
    shape = Shape()
    texts = corpus.read_texts(options.texts)
    if not texts.train:
        print(f"no tinystories.txt in {options.texts}: training on synthetic stories only")
    tokenizer = load_tokenizer(options.folder / "tokenizer.json", texts, shape)
    checkpoint = options.folder / "checkpoint.npz"
    point = restore(checkpoint) if checkpoint.exists() else new_run(shape, plan)
    point = train(point, plan, shape, tokenizer, texts, checkpoint, options.folder / "log.txt")
    export_all(point.weights, shape, tokenizer, options.output)


if __name__ == "__main__":
    main()
