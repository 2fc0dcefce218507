"""A reducer of one's own: a weighted mean in which no expert's change is much larger than the others'."""

from statistics import median_low

from paretune.ops.lowrank import normalised, stack
from paretune.ops.merge_options import Option
from paretune.ops.merging import Reducer


def clipped(deltas, weights, *, limit=1.0):
    """Σ w_i min(1, limit · m / ‖ΔW_i‖) ΔW_i, m the median norm. deltas: N LowRanks, None for zero."""
    norms = [0.0 if delta is None else delta.norm() for delta in deltas]
    most = limit * median_low(norm for norm in norms if norm) if any(norms) else 0.0
    shares = normalised(weights, len(deltas))
    return stack(deltas, [w * min(1.0, most / n) if n else w for w, n in zip(shares, norms, strict=True)])


CLIPPED = Reducer(
    clipped,
    paper="an example",
    formula="Σ w_i min(1, c·m/‖ΔW_i‖) ΔW_i",
    own={"limit": Option(float, "the largest norm, in medians", "it is positive", lambda x: x > 0)},
)
