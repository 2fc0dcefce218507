"""What training on answers takes in memory beside the weights: counted from the tensors that are alive.

An expert draws its epoch's answers at once, with a cache of keys and values, and then trains in
micro-batches. The two do not overlap: the larger counts. The reference pass has no gradients, and is smaller.
"""

from __future__ import annotations

from ..config import LoraConfig, RunConfig
from ..models.causal_lm.family import TextOptions
from ..models.causal_lm.shape import TextShape

FLOAT = 4
# TRL's GRPO folds the logits tile by tile: tokens and words of a tile, and how many of its size are alive at
# once in the backward pass, where torch does it on a CPU, and in place on a GPU.
TILE_TOKENS, TILE_WORDS = 4096, 32768
TILES = {"cpu": 8.25, "cuda": 1.0}
# What is kept for the backward pass lies between tensors that are freed. glibc keeps their holes: a forward
# pass holds so much more than it keeps (1.0 with MALLOC_MMAP_THRESHOLD_=65536). A GPU's allocator packs them.
HOLES = {"cpu": 1.75, "cuda": 1.0}
WHOLE_LOGITS = 5  # the other losses hold all logits: as drawn, shifted, and three gradients of that size
DRAWN_LOGITS = 3  # while answers are drawn, of the last token: the logits, the scores, the probabilities
COPIES = 5  # of the adapter: parameters, gradients, AdamW's two moments, the average
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def working_bytes(
    config: RunConfig, shape: TextShape, options: TextOptions, draws: bool, device: str
) -> float:
    """Bytes that an expert takes beside its base model.

    draws: whether its objective draws answers; otherwise it trains on pairs of them. device: cpu or cuda.
    """
    value = 2 if config.model.dtype == "bfloat16" or config.train.autocast else FLOAT
    length = options.prompt_tokens + options.max_tokens
    train = config.train
    tokens = min(train.micro_batch, train.prompts_per_epoch * train.group_size) * length
    if not draws:
        tokens = 2 * min(train.micro_batch, train.prompts_per_epoch) * length
    logits = _logits(tokens, shape, draws, device)
    training = HOLES[device] * tokens * _kept(config, shape, value) + logits
    answers = train.prompts_per_epoch * train.group_size if draws else 0
    drawing = answers * _drawn(shape, options, length, 2 if config.model.dtype == "bfloat16" else FLOAT)
    return adapter_bytes(config.lora, shape) + max(training, drawing)


def adapter_bytes(lora: LoraConfig, shape: TextShape) -> float:
    """The adapter in float32, and what its optimiser holds of it."""
    around = {
        "q_proj": (shape.hidden, shape.head_units), "k_proj": (shape.hidden, shape.key_units),
        "v_proj": (shape.hidden, shape.key_units), "o_proj": (shape.head_units, shape.hidden),
        "gate_proj": (shape.hidden, shape.inner), "up_proj": (shape.hidden, shape.inner),
        "down_proj": (shape.inner, shape.hidden), "c_attn": (shape.hidden, 3 * shape.hidden),
        "c_fc": (shape.hidden, shape.inner), "fc1": (shape.hidden, shape.inner),
        "fc2": (shape.inner, shape.hidden),
    }  # fmt: skip
    square = (shape.hidden, shape.hidden)
    units = sum(sum(around.get(name, square)) for name in lora.targets or TARGETS)
    return float(COPIES * FLOAT * lora.rank * units * shape.layers)


def _kept(config: RunConfig, shape: TextShape, value: int) -> float:
    """Bytes kept of a token for the backward pass. The base is frozen: its own inputs are not kept.

    A layer keeps what enters its two norms (in float32) and what leaves them for the adapter, the queries,
    the repeated keys and values, the attention's result twice, four tensors of the feed-forward part, and
    the adapter's inner ones. With checkpointing that is one layer's, and of the others what enters them.
    """
    units = 2 * shape.hidden + 5 * shape.head_units + 4 * shape.inner + len(TARGETS) * config.lora.rank
    layer = units * value + 2 * shape.hidden * FLOAT
    if config.model.gradient_checkpointing:
        return float(layer + shape.layers * shape.hidden * value)
    return float(shape.layers * layer)


def _logits(tokens: float, shape: TextShape, draws: bool, device: str) -> float:
    """Bytes of scores over the vocabulary in the backward pass, in float32."""
    if not draws:
        return float(WHOLE_LOGITS * tokens * shape.vocabulary * FLOAT)
    tile = min(tokens, TILE_TOKENS) * min(shape.vocabulary, TILE_WORDS)
    return TILES[device] * tile * FLOAT


def _drawn(shape: TextShape, options: TextOptions, length: int, value: int) -> float:
    """Bytes of an answer while the epoch's are drawn: its cache, its logits, its prompt in one layer."""
    cache = 2 * shape.key_units * shape.layers * length * value
    begin = (3 * shape.inner + 4 * shape.hidden) * options.prompt_tokens * value
    return float(cache + DRAWN_LOGITS * shape.vocabulary * FLOAT + begin)
