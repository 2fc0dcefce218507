"""What training on answers takes in memory beside the weights: counted from the tensors that are alive.

An expert draws its epoch's answers at once, with a cache of keys and values, and then trains in
micro-batches. The two do not overlap: the larger counts. The reference pass has no gradients, and is smaller.
"""

from __future__ import annotations

from ..config import LoraConfig, RunConfig
from ..models.causal_lm.family import TextOptions
from ..models.causal_lm.shape import TextShape
from .media import Work

FLOAT = 4
# TRL folds the logits tile by tile: tokens and words of a tile, and how many of its size are alive at once in
# the backward pass, where torch does it on a CPU, and in place on a GPU.
TILE_TOKENS, TILE_WORDS = 4096, 32768
TILES = {"cpu": 8.25, "cuda": 1.0}
# What is kept for the backward pass lies between tensors that are freed. glibc keeps their holes: a forward
# pass holds so much more than it keeps (1.0 with MALLOC_MMAP_THRESHOLD_=65536). A GPU's allocator packs them.
HOLES = {"cpu": 1.75, "cuda": 1.0}
WHOLE_LOGITS = 5  # some losses hold all logits: as computed, shifted, and three gradients of that size
DRAWN_LOGITS = 3  # while answers are drawn, of the last token: the logits, the scores, the probabilities
COPIES = 5  # of the adapter: parameters, gradients, AdamW's two moments, the average
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def working_bytes(
    config: RunConfig, shape: TextShape, options: TextOptions, work: Work
) -> float:
    """Bytes that an expert takes beside its base model."""
    value = 2 if config.train.autocast else config.model.bytes_each
    length = options.prompt_tokens + options.max_tokens
    train = config.train
    prompts = -(-train.prompts_per_epoch // config.executor.devices_per_expert)  # of this device
    epoch = prompts * (train.group_size if work.draws else 1)
    micro = min(train.micro_batch, -(-epoch // train.updates_per_epoch))
    tokens = micro * length * (1 if work.draws else work.answers)
    logits = _logits(tokens, shape, work)
    training = HOLES[work.device] * tokens * _kept(config, shape, value) + logits
    stored = config.model.bytes_each
    drawing = (epoch if work.draws else 0) * _drawn(shape, options, length, stored)
    return adapter_bytes(config.adapter, shape) + max(training, drawing)


def adapter_bytes(lora: LoraConfig, shape: TextShape) -> float:
    """The adapter in float32, and what its optimiser holds of it."""
    return float(COPIES * FLOAT * adapter_size(lora, shape))


def adapter_size(lora: LoraConfig, shape: TextShape) -> int:
    """How many numbers an adapter has."""
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
    return lora.rank * units * shape.layers


def _kept(config: RunConfig, shape: TextShape, value: int) -> float:
    """Bytes kept of a token for the backward pass. The base is frozen: its own inputs are not kept.

    A layer keeps what enters its two norms (in float32) and what leaves them for the adapter, the queries,
    the repeated keys and values, the attention's result twice, four tensors of the feed-forward part, and
    the adapter's inner ones. With checkpointing that is one layer's, and of the others what enters them.
    """
    units = 2 * shape.hidden + 5 * shape.head_units + 4 * shape.inner + len(TARGETS) * config.adapter.rank
    layer = units * value + 2 * shape.hidden * FLOAT
    if config.model.gradient_checkpointing:
        return float(layer + shape.layers * shape.hidden * value)
    return float(shape.layers * layer)


def _logits(tokens: float, shape: TextShape, work: Work) -> float:
    """Bytes of scores over the vocabulary in the backward pass, in float32."""
    if work.whole_logits:
        return float(WHOLE_LOGITS * tokens * shape.vocabulary * FLOAT)
    tile = min(tokens, TILE_TOKENS) * min(shape.vocabulary, TILE_WORDS)
    return TILES[work.device] * tile * FLOAT


def _drawn(shape: TextShape, options: TextOptions, length: int, value: int) -> float:
    """Bytes of an answer while the epoch's are drawn: its cache, its logits, its prompt in one layer."""
    cache = 2 * shape.key_units * shape.layers * length * value
    begin = (3 * shape.inner + 4 * shape.hidden) * options.prompt_tokens * value
    return float(cache + DRAWN_LOGITS * shape.vocabulary * FLOAT + begin)
