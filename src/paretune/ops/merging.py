"""Merge N experts into one: the table of methods, and the iteration over modules.

Experts are N mappings module name -> LowRank. Modules are read one at a time, so a lazy mapping has one
module in memory. The reducers are in `reducers`.
"""

from __future__ import annotations

import inspect
import math
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch

from ..foreign.entry_points import added, load_added
from .distilling import OPTIONS as DISTIL_OPTIONS
from .lowrank import LowRank, as_given, compress, distance, gram, modules_of, normalised, stack
from .merge_options import OPTIONS, Option, fit, hint
from .merge_weights import min_norm_weights, search_weights
from .reducers import compressed, dare, dare_q, exact, factor, nesterov, outer_momentum, ties
from .spherical import slerp

Experts = Sequence[Mapping[str, LowRank]]
FirstPass = Callable[[Experts, dict[str, Any]], list[float]]
CUT = {"rank", "energy"}  # options of every merge: each method's result can be cut
RAW = "normalise"  # the option of the methods that are linear in the weights
DIVISIONS = 4
PROMPTS = 16  # training prompts a reward by which `search` measures
GROUP = "paretune.reducers"


def _min_norm_pass(experts: Experts, options: dict[str, Any]) -> list[float]:
    return min_norm_weights(gram(experts))


def _search_pass(experts: Experts, options: dict[str, Any]) -> list[float]:
    evaluate = options.pop("evaluate", None)
    if evaluate is None:
        raise ValueError("search needs evaluate, a function from weights to a value")
    divisions = int(options.pop("divisions", DIVISIONS))
    return search_weights(evaluate, len(experts), divisions).weights


@dataclass(frozen=True)
class Reducer:
    """A method of merging.

    function: merges one module. paper: the source. formula: what it computes.
    first_pass: computes the weights from all modules before the sum, for the methods that do so.
    first_options: options of the first pass. run_options: options that only a run takes, which measures
    models for the search.
    own: the numeric options of this reducer alone, by the names of its function's keywords, or of
    `run_options`.
    """

    function: Callable[..., LowRank]
    paper: str
    formula: str
    first_pass: FirstPass | None = field(default=None)
    first_options: tuple[str, ...] = ()
    run_options: tuple[str, ...] = ()
    own: Mapping[str, Option] = field(default_factory=dict[str, Option])

    def options(self) -> list[str]:
        """The names of the keyword options that a merge by this method takes."""
        parameters = inspect.signature(self.function).parameters.values()
        keywords = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.name not in CUT | {RAW}]
        return [*keywords, *self.first_options]

    @property
    def sums(self) -> bool:
        """Whether it accepts weights without normalisation: signed, and with any sum."""
        return self.first_pass is None and RAW in inspect.signature(self.function).parameters

    def settings(self) -> list[str]:
        """The options that are numbers: what a recipe or a command line may set."""
        return [name for name in [*self.options(), *self.run_options] if name in OPTIONS or name in self.own]

    def fitted(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Options, those that are numbers checked and read. Raises ValueError, in one line."""
        known = {**OPTIONS, **self.own}
        return {n: fit(n, v, known[n]) if n in known else v for n, v in given.items()}


REDUCERS: dict[str, Reducer] = {
    "exact": Reducer(exact, "arXiv 2511.20629 (MapReduce LoRA)", "Σ w_i s_i B_i A_i"),
    "compressed": Reducer(compressed, "Eckart and Young 1936", "SVD_R(Σ w_i s_i B_i A_i)"),
    "factor": Reducer(factor, "SHI-Labs/MapReduce-LoRA (its code)", "(Σ w_i B_i)(Σ w_i A_i)"),
    "ties": Reducer(ties, "arXiv 2306.01708 (TIES)", "mean of trim(ΔW_i) that agree with the sign"),
    "dare": Reducer(dare, "arXiv 2311.03099 (DARE)", "Σ w_i M_i∘ΔW_i / (1 - p)"),
    "dare-q": Reducer(dare_q, "arXiv 2410.09344 (DAREx)", "Σ w_i M_i∘ΔW_i / q_i"),
    "min-norm": Reducer(
        exact,
        "Désidéri 2012 (MGDA); arXiv 1810.04650",
        "Σ w_i ΔW_i, w_i ∝ v_i/‖ΔW_i‖, v = argmin ‖Σ v_i ΔW_i/‖ΔW_i‖‖ on the simplex",
        _min_norm_pass,
    ),
    "slerp": Reducer(
        slerp, "arXiv 2406.16768 (WARP)", "sin((1-λ)Ω)/sin Ω ΔW_1 + sin(λΩ)/sin Ω ΔW_2, one after another"
    ),
    "nesterov": Reducer(nesterov, "arXiv 2311.08105 (DiLoCo)", "η(ΔW̄ + μM), M ← μM + ΔW̄"),
    "search": Reducer(
        exact,
        "arXiv 2306.04488 (Rewarded Soups)",
        "Σ w_i ΔW_i, w = argmax of a validation value on the simplex lattice",
        _search_pass,
        ("evaluate", "divisions"),
        ("prompts",),
    ),
    "distil": Reducer(
        exact,
        "arXiv 2605.08063 (Flow-OPD)",
        "student from Σ w_i ΔW_i, argmin E ‖v - v_i‖² on its own samples of the prompts of expert i",
        run_options=tuple(DISTIL_OPTIONS),
        own=DISTIL_OPTIONS,
    ),
}


def reducer_of(method: str) -> Reducer:
    """The method of that name, one of another package too (the entry point group `GROUP`).

    Raises ValueError with the names there are, and the nearest; ParetuneError where one cannot be imported.
    """
    if method in REDUCERS:
        return REDUCERS[method]
    others = added(GROUP)
    if method not in others:
        known = [*REDUCERS, *others]
        raise ValueError(f"unknown merge method {method}; there are {', '.join(known)}{hint(method, known)}")
    reducer = load_added("the reducer", others[method])
    if not isinstance(reducer, Reducer):
        raise ValueError(f"the reducer {method} ({others[method].value}) is no Reducer")
    return reducer


def _refuse_unknown(method: str, names: Iterable[str], allowed: Sequence[str]) -> None:
    settings = reducer_of(method).settings()
    for name in names:
        if name not in allowed:
            takes = ", ".join(settings) or "none"
            raise ValueError(
                f"the method {method} has no option {name}; it takes: {takes}{hint(name, settings)}"
            )


def read_settings(method: str, settings: Mapping[str, Any]) -> dict[str, float]:
    """The method's options as a user gave them, checked and as numbers. Raises ValueError."""
    reducer = reducer_of(method)
    _refuse_unknown(method, settings, reducer.settings())
    return reducer.fitted(settings)


@dataclass(frozen=True)
class MergedModule:
    """One merged module. error and size: ‖delta - Σ w_i ΔW_i‖_F and ‖Σ w_i ΔW_i‖_F.

    momentum: the outer momentum for the next round (nesterov only).
    """

    name: str
    delta: LowRank
    error: float
    size: float
    momentum: LowRank | None = None


@dataclass(frozen=True)
class MergeResult:
    """All merged modules.

    relative_error: ‖merged - Σ w_i ΔW_i‖_F / ‖Σ w_i ΔW_i‖_F over the whole model, where the sum is exact and
    uses `weights`. It says what compression or factor averaging lost. For methods that do not compute the
    mean (ties, dare, nesterov) it says how far from the mean their result is.
    weights: the weights used, normalised; min-norm and search compute them.
    state: nesterov's momentum, to pass as `state` in the next round; None for other methods.
    """

    deltas: dict[str, LowRank]
    relative_error: float
    weights: list[float]
    state: dict[str, LowRank] | None = None


@dataclass(frozen=True)
class Merge:
    """A merge that is ready to run: its weights are known and its options are checked.

    modules() yields one merged module after another and keeps none in memory.
    """

    experts: Experts
    weights: list[float]
    method: str
    rank: int | None
    energy: float | None
    options: dict[str, Any]
    normalise: bool = True

    @cached_property
    def reducer(self) -> Reducer:
        """The method itself."""
        return reducer_of(self.method)

    def modules(self) -> Iterator[MergedModule]:
        """Every module of any expert (and of nesterov's state), in order of first appearance.

        A module whose result is zero by construction (rank 0) is left out.
        """
        state: Mapping[str, LowRank] = self.options.get("state") or {}
        for name in modules_of([*self.experts, state]):
            deltas = [expert.get(name) for expert in self.experts]
            try:
                merged = self._module(name, deltas, state.get(name))
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from error
            except Exception as error:
                if self.method in REDUCERS:
                    raise
                reason = " ".join(f"{type(error).__name__}: {error}".split())
                raise ValueError(f"the reducer {self.method} failed at {name}: {reason}") from error
            if merged.delta.rank > 0:
                yield merged

    def _module(
        self, name: str, deltas: Sequence[LowRank | None], state: LowRank | None
    ) -> MergedModule:
        options, momentum = dict(self.options), None
        if self.method == "nesterov":
            options["state"] = state
            rate = float(options.get("momentum", 0.9))
            momentum = outer_momentum(deltas, self.weights, state, rate)
        if "seed" in self.reducer.options():
            # Equal masks in all modules would form a pattern; a hash of the name keeps runs reproducible.
            options["seed"] = zlib.crc32(f"{options.get('seed', 0)}:{name}".encode())
        if self.method == "compressed":
            options.update(rank=self.rank, energy=self.energy)
        if not self.normalise:
            options[RAW] = False
        delta = self.reducer.function(deltas, self.weights, **options)
        if self.method not in REDUCERS:
            check_result(delta, deltas)
        if self.method != "compressed" and (self.rank is not None or self.energy is not None):
            delta = compress(delta, self.rank, self.energy).delta
        untouched = self.rank is None and self.energy is None
        mean = stack([*deltas, state], [*self.weights, 0.0])
        is_sum = untouched and self.reducer.function is exact
        error = 0.0 if is_sum else distance(delta, mean)
        return MergedModule(name, delta, error, mean.norm(), momentum)


def plan_merge(
    experts: Experts,
    weights: Sequence[float] | None = None,
    method: str = "exact",
    rank: int | None = None,
    energy: float | None = None,
    normalise: bool = True,
    **options: Any,
) -> Merge:
    """Check all arguments, run the first pass of min-norm or search, and return the merge to run.

    Args:
        experts: N experts.
        weights: N weights of a mean; uniform when None.
        method: a key of REDUCERS.
        rank: cut the result of every module to this rank (`compress`).
        energy: or to the least rank that keeps this energy. The method "compressed" needs one of the two.
        normalise: off, the weights are coefficients of a sum (1 each when None), which only the methods that
            are linear in the weights accept.
        **options: the reducer's options (density, seed, q, state, momentum, outer_lr; evaluate and divisions
            for search).

    Raises:
        ValueError: an unknown method or option, no experts, bad weights, weights for a method that computes
            them, or both rank and energy.
    """
    reducer = reducer_of(method)
    if not experts:
        raise ValueError("nothing to merge: no adapter given")
    if rank is not None and energy is not None:
        raise ValueError("give either a rank or an energy to compress to")
    if method == "compressed" and rank is None and energy is None:
        raise ValueError("the method compressed needs a rank or an energy")
    _refuse_unknown(method, options, reducer.options())
    options |= reducer.fitted({n: v for n, v in options.items() if v is not None})
    if not normalise and not reducer.sums:
        known = ", ".join(name for name, other in REDUCERS.items() if other.sums)
        raise ValueError(f"{method} averages: weights as they are go with {known}")
    given = [1.0] * len(experts) if weights is None else weights
    shares = normalised(given, len(experts)) if normalise else as_given(given, len(experts))
    if reducer.first_pass is not None:
        if max(shares) - min(shares) > 1e-12:
            raise ValueError(f"{method} finds the weights itself; leave them out")
        shares = reducer.first_pass(experts, options)
    return Merge(experts, shares, method, rank, energy, options, normalise)


def check_result(delta: Any, deltas: Sequence[LowRank | None]) -> None:
    """Raise ValueError where another package's reducer gave no change of its module, or no numbers."""
    shape = next(d.shape for d in deltas if d is not None)
    if not isinstance(delta, LowRank) or delta.shape != shape:
        told = f"one of shape {delta.shape}" if isinstance(delta, LowRank) else f"a {type(delta).__name__}"
        raise ValueError(f"the reducer must return a LowRank of shape {shape}, not {told}")
    if not (torch.isfinite(delta.A).all() and torch.isfinite(delta.B).all()):
        raise ValueError("the reducer returned NaN or infinity")


def relative(errors: Sequence[float], sizes: Sequence[float]) -> float:
    """The relative error of the whole model from errors and sizes of modules: √(Σ e² / Σ s²), 0 for 0/0."""
    lost, total = math.hypot(*errors), math.hypot(*sizes)
    return lost / total if total > 0 else (0.0 if lost == 0 else math.inf)


def merge_experts(
    experts: Experts,
    weights: Sequence[float] | None = None,
    method: str = "exact",
    rank: int | None = None,
    energy: float | None = None,
    normalise: bool = True,
    **options: Any,
) -> MergeResult:
    """Merge whole experts, module by module. Arguments and errors: see `plan_merge`."""
    merge = plan_merge(experts, weights, method, rank, energy, normalise, **options)
    modules = list(merge.modules())
    return MergeResult(
        deltas={m.name: m.delta for m in modules},
        relative_error=relative([m.error for m in modules], [m.size for m in modules]),
        weights=merge.weights,
        state={m.name: m.momentum for m in modules if m.momentum is not None}
        if method == "nesterov"
        else None,
    )
