"""Fit a scaling law to finished runs: `python benchmarks/scaling_law.py OUT/results.jsonl [PLOT.png]`.

Each line holds `parameters` (the weights that every token is multiplied with), `tokens` and `bits_per_byte`, as
`benchmarks/ablations.py` writes them. The law is L(N, D) = E + A / N^a + B / D^b, fitted with the Huber loss on
logarithms (Hoffmann et al. 2022, "Training Compute-Optimal Large Language Models"). Its uncertainty is estimated by
bootstrap: the fit is repeated on as many runs, drawn with replacement.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import minimize
from scipy.special import huber

from keylm.model.flops import flops_per_token, num_matmul_parameters
from keylm.recipe import Recipe, load_recipe

Array = np.ndarray[Any, np.dtype[Any]]
BOOTSTRAPS = 200
HUBER = 1e-3
H100_FLOPS = 989e12
"""Dense bfloat16, by the data sheet."""
UTILIZATION = (0.25, 0.40)
"""Fraction of it that small models reach in practice, from low to high: an assumption, not a measurement."""
DOLLARS_PER_HOUR = 3.0
"""Price of one rented H100: an assumption."""


def fit(sizes: Array, tokens: Array, losses: Array, start: Array | None = None) -> Array:
    """Fit (log A, log B, log E, a, b) from `start`, or from the best of a grid of starts.

    Exponents are bounded to between 0.1 and 1, and E to above 0.3 bits per byte, which a few small runs leave open
    otherwise.
    """
    logs = np.log(losses)

    def objective(x: Array) -> float:
        # Divided by its scale, because the minimizer mistakes small values for a minimum.
        return float(huber(HUBER, _log_loss(x, sizes, tokens) - logs).sum()) / HUBER**2

    bounds = [(-5, 15), (-5, 15), (np.log(0.3), np.log(losses.min())), (0.1, 1.0), (0.1, 1.0)]
    grid = [(a * 10, b * 10, np.log(e), a, b) for a in (0.2, 0.5) for b in (0.2, 0.5) for e in (0.5, 0.9)]
    starts = grid if start is None else [start]
    fits = [minimize(objective, first, method="L-BFGS-B", bounds=bounds) for first in starts]
    return np.asarray(min(fits, key=lambda result: result.fun).x)


def predict(x: Array, size: float, tokens: float) -> float:
    """Bits per byte of a model with `size` parameters after `tokens`."""
    return float(np.exp(_log_loss(x, np.array([size]), np.array([tokens])))[0])


def _log_loss(x: Array, sizes: Array, tokens: Array) -> Array:
    log_a, log_b, log_e, a, b = x
    terms = [log_a - a * np.log(sizes), log_b - b * np.log(tokens), np.full(len(sizes), log_e)]
    return np.asarray(np.logaddexp.reduce(terms, axis=0))


def main() -> None:
    """Print the law, its predictions for the largest size and for keylm-75m, and the cost of training that."""
    runs = [json.loads(line) for line in Path(sys.argv[1]).read_text().splitlines()]
    columns = ("parameters", "tokens", "bits_per_byte")
    sizes, tokens, losses = (np.array([run[key] for run in runs], float) for key in columns)
    x = fit(sizes, tokens, losses)
    log_a, log_b, log_e, a, b = x
    print(f"L = {np.exp(log_e):.3f} + {np.exp(log_a):.3g} / N^{a:.3f} + {np.exp(log_b):.3g} / D^{b:.3f}")
    fitted = np.array([predict(x, n, d) for n, d in zip(sizes, tokens, strict=True)])
    rmse = float(np.sqrt(np.mean((fitted - losses) ** 2)))
    print(f"{len(runs)} runs of {len(set(sizes))} sizes; root mean square error {rmse:.4f}")
    _predict_largest(sizes, tokens, losses)
    recipe = load_recipe(Path("recipes/keylm-75m.yaml"))
    size = num_matmul_parameters(recipe.model)
    rng = np.random.default_rng(0)
    drawn = [rng.integers(0, len(runs), len(runs)) for _ in range(BOOTSTRAPS)]
    laws = [fit(sizes[pick], tokens[pick], losses[pick], x) for pick in drawn]
    for length in (1e9, 18e9):
        low, middle, high = np.quantile([predict(law, size, length) for law in laws], (0.05, 0.5, 0.95))
        interval = f"(bootstrap median {middle:.3f}, 90% {low:.3f} to {high:.3f})"
        prediction = f"{predict(x, size, length):.3f} {interval}"
        print(f"keylm-75m, {size / 1e6:.1f}M matmul parameters, {length:.3g} tokens: {prediction}")
    _print_cost(recipe)
    if len(sys.argv) > 2:
        _plot(Path(sys.argv[2]), x, sizes, tokens, losses)


def _predict_largest(sizes: Array, tokens: Array, losses: Array) -> None:
    """Fit the law without the largest size, and print its predictions for that."""
    small = sizes < sizes.max()
    x = fit(sizes[small], tokens[small], losses[small])
    for n, d, loss in zip(sizes[~small], tokens[~small], losses[~small], strict=True):
        print(f"left out: N {n:.3g}, D {d:.3g}: measured {loss:.4f}, predicted {predict(x, n, d):.4f}")


def _print_cost(recipe: Recipe) -> None:
    """Print the hours and dollars that the recipe's pretraining costs on rented GPUs."""
    flops = flops_per_token(recipe.model, recipe.train.sequence_length) * recipe.train.tokens
    print(f"{recipe.train.tokens:.3g} tokens are {flops:.3g} FLOPs")
    for gpus in (1, 8):
        slow, fast = (flops / (gpus * H100_FLOPS * share * 3600) for share in UTILIZATION)
        dollars = [gpus * hours * DOLLARS_PER_HOUR for hours in (fast, slow)]
        print(f"{gpus} H100: {fast:.1f} to {slow:.1f} hours, {dollars[0]:.0f} to {dollars[1]:.0f} dollars")


def _plot(path: Path, x: Array, sizes: Array, tokens: Array, losses: Array) -> None:
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

    figure = Figure(figsize=(5, 3.4), layout="constrained")
    axes = figure.subplots()
    for index, size in enumerate(sorted(set(sizes))):
        of_size = sizes == size
        along = np.geomspace(tokens.min(), 4 * tokens.max(), 40)
        axes.plot(along, [predict(x, size, d) for d in along], color=f"C{index}", linewidth=1)
        axes.plot(tokens[of_size], losses[of_size], "o", color=f"C{index}", label=f"{size / 1e6:.2g}M", markersize=4)
    axes.set(xscale="log", xlabel="tokens", ylabel="bits per byte, held out")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.legend(title="matmul parameters", frameon=False)
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main()
