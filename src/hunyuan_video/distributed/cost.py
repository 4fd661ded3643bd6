"""What a step costs each of many ranks, before there are any: operations, bytes sent and seconds. Arithmetic alone.

Operations and bytes follow sequence.py exactly (tests hold them beside what really happens); seconds divide them by the rates of a
`Card`. The efficiencies of the cards below are fitted to published times; docs/many-gpus.md says which, and what is predicted with them.

Letters: N image tokens, L text tokens, S = N + L, s those of one rank, G those of a Ulysses group, H heads, h heads of one rank,
D hidden size, U and R the Ulysses and the ring degree.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import NamedTuple

from hunyuan_video.config import Runtime
from hunyuan_video.distributed.sequence import head_pieces, shares
from hunyuan_video.distributed.wire import SCALE_BYTES, Wire
from hunyuan_video.distributed.world import Degrees
from hunyuan_video.models.text import MAX_TEXT_TOKENS
from hunyuan_video.models.transformer import TransformerConfig

FREQUENCIES = 256  # that a timestep is made of
MERGED = 18  # bytes that a card moves for each value of a ring's part: to float32 (2 + 4), and both, and what they give (3 x 4)

NEARLY, EVEN = 1.05, 1.03  # less than the seconds below can tell apart; and how much more than its share a rank may have to do


class Work(NamedTuple):
    """Operations of one step on one rank, two for each multiplication: those of its own tokens, of attention for its own heads or tokens,
    and those that every rank does alike (embedding, text, modulation)."""

    tokens: int
    attention: int
    repeated: int

    @property
    def total(self) -> int:
        return sum(self)


class Sent(NamedTuple):
    """Bytes that one rank sends to others in one step: q, k and v for other heads, attention's output back, k and v around the ring, and
    velocities of its tokens."""

    there: int
    back: int
    ring: int
    velocity: int

    @property
    def total(self) -> int:
        return sum(self)


@dataclass(frozen=True)
class Step:
    """One step of one video, a batch of one, on `degrees.ranks` ranks, with numbers of `itemsize` bytes. With two `branches` of guidance
    there are twice as many ranks, of which each half does one."""

    image: int
    text: int = MAX_TEXT_TOKENS
    degrees: Degrees = Degrees()  # noqa: RUF009 (a tuple)
    wire: Wire = Wire.EXACT
    itemsize: int = 2
    branches: int = 1
    density: float = 1.0  # the share of all pairs of tokens that attention computes
    config: TransformerConfig = TransformerConfig()  # noqa: RUF009 (frozen)

    @property
    def blocks(self) -> int:
        return self.config.num_double_blocks + self.config.num_single_blocks

    @property
    def pieces(self) -> int:
        """In how many a rank's heads travel, each going round the ring by itself."""
        return 1 if self.degrees.ulysses == 1 else len(head_pieces(self.config.num_heads, self.degrees.ulysses))

    def work(self, rank: int) -> Work:
        config, (images, texts) = self.config, self._tokens
        size, mlp = config.hidden_size, int(config.hidden_size * config.mlp_ratio)
        patch = math.prod(config.patch_size)
        layer = 4 * size**2 + 2 * size * mlp  # weights: q, k, v, projection, and the MLP, in either kind of block
        final = size * patch * config.out_channels
        heads, group, _ = self._place(rank)
        refiner = config.num_refiner_blocks * (self.text * layer + 2 * self.text**2 * size + 2 * size**2)
        timesteps = 2 * (FREQUENCIES + size) * size  # for the refiner and the blocks
        modulation = (12 * config.num_double_blocks + 3 * config.num_single_blocks + 2) * size**2
        return Work(
            2 * (self.blocks * layer * (images[rank] + texts[rank]) + final * images[rank]),
            round(self.density * 4 * self.blocks * heads * config.head_dim * group * (self.image + self.text)),
            2 * (self.image * config.in_channels * patch * size + refiner + timesteps + modulation),
        )

    def sent(self, rank: int) -> Sent:
        ulysses, ring, _ = self.degrees
        heads, group, groups = self._place(rank)
        images, texts = self._tokens
        own, place = images[rank] + texts[rank], rank // ulysses
        short, exact = self._widths
        passing = sum(groups[place - step] for step in range(ring - 1))  # its own group's tokens first, then those of the one before, …
        patch = self.itemsize * math.prod(self.config.patch_size) * self.config.out_channels
        of_group = sum(images[place * ulysses : (place + 1) * ulysses])
        return Sent(
            self.blocks * own * (self.config.num_heads - heads) * (2 * short + exact),
            self.blocks * (group - own) * heads * short,
            self.blocks * passing * heads * (short + exact),
            patch * ((ulysses - 1) * images[rank] + (ring - 1) * of_group + (self.branches - 1) * self.image),
        )

    @property
    def slowest(self) -> int:
        """The rank with most to do."""
        return max(range(self.degrees.ranks), key=lambda rank: self.work(rank).total)

    @property
    def unevenness(self) -> float:
        """The slowest rank's operations beside an even share of one rank's."""
        alone = Step(self.image, self.text, density=self.density, config=self.config).work(0).total
        return self.work(self.slowest).total * self.degrees.ranks / alone

    @cached_property
    def _tokens(self) -> tuple[list[int], list[int]]:
        """Image and text tokens of each rank."""
        return shares(self.image, self.degrees.ranks), shares(self.text, self.degrees.ranks)[::-1]

    def _place(self, rank: int) -> tuple[int, int, list[int]]:
        """Heads of a rank, tokens of its Ulysses group, and those of all groups."""
        (ulysses, ring, _), (images, texts) = self.degrees, self._tokens
        tokens = [image + text for image, text in zip(images, texts, strict=True)]
        groups = [sum(tokens[number * ulysses : (number + 1) * ulysses]) for number in range(ring)]
        return shares(self.config.num_heads, ulysses)[rank % ulysses], groups[rank // ulysses], groups

    @property
    def _widths(self) -> tuple[int, int]:
        """Bytes of a head's q, v or output on the wire, and of its k."""
        exact = self.config.head_dim * self.itemsize
        return (exact if self.wire is Wire.EXACT else self.config.head_dim + SCALE_BYTES), exact


@dataclass(frozen=True)
class Card:
    """Rates of a GPU among others."""

    name: str
    memory: int
    """bytes"""
    flops: float
    """dense bfloat16 operations a second, as its maker gives them"""
    efficiency: float
    """what a step reaches of them: fitted"""
    link: float
    """bytes a second that it sends to others in its machine, all together"""
    across: float
    """and in other machines"""
    moved: float
    """bytes a second within its memory"""
    hop: float
    """least seconds of a hop of the ring, however few the tokens"""
    latency: float = 2e-5
    """seconds until an exchange begins"""
    per_machine: int = 8


# Links are what is assumed of the nominal 450 (NVLink), 64 (PCIe 5.0) and 32 GB/s (PCIe 4.0 without peer access); across, of an adapter of
# 400 Gb/s for each card, or of 100 Gb/s for eight. Efficiencies and hops: docs/many-gpus.md.
RTX_4090 = Card("RTX 4090 PCIe", 24 * 10**9, 165e12, 0.82, 1.0e10, 1.2e9, 8e11, 4.1e-4)
H100_PCIE = Card("H100 PCIe", 80 * 10**9, 756e12, 0.59, 2.5e10, 1.2e9, 1.6e12, 7.5e-4)
H100 = Card("H100 NVLink", 80 * 10**9, 989e12, 0.59, 2.0e11, 4.0e10, 2.7e12, 7.5e-4)
H200 = Card("H200 NVLink", 141 * 10**9, 989e12, 0.59, 2.0e11, 4.0e10, 3.8e12, 7.5e-4)
CARDS = {"rtx4090-pcie": RTX_4090, "h100-nvlink": H100, "h100-pcie": H100_PCIE, "h200-nvlink": H200}  # of equal memory, the usual one first


def nearest(memory: int) -> Card:
    """Of the cards above, the one with about so many bytes: what is most likely meant where only the memory is known."""
    return min(CARDS.values(), key=lambda card: abs(card.memory - memory))


class Seconds(NamedTuple):
    """Of one step on the slowest rank: computing, and waiting for what nothing hides."""

    computing: float
    waiting: float

    @property
    def total(self) -> float:
        return sum(self)


def step_seconds(step: Step, card: Card, *, overlaps: bool = True) -> Seconds:
    """What a step takes. Where exchanges overlap, the first piece of a rank's heads travels in and the last one out before and after
    computing, the others meanwhile, and so do the ring's k and v but for the first. With branches, of the ranks of one.

    Without a ring, or with one whose hops are long, computing decides; a short hop takes `card.hop`, which no rate explains.
    """
    times = [_of_rank(step, rank, card, overlaps) for rank in {0, step.slowest, step.degrees.ranks - 1}]
    return max(times, key=lambda seconds: seconds.total)


def _of_rank(step: Step, rank: int, card: Card, overlaps: bool) -> Seconds:
    (ulysses, ring, _), work, sent = step.degrees, step.work(rank), step.sent(rank)
    rate, pieces, blocks = card.flops * card.efficiency, step.pieces if overlaps else 1, step.blocks
    inside = ulysses <= card.per_machine, step.degrees.ranks * step.branches <= card.per_machine
    trade, ring_link = (card.link if here else card.across for here in inside)
    attention = work.attention / rate / blocks
    merging = (work.attention / (4 * step.image + 4 * step.text)) / blocks * (ring - 1) * MERGED / card.moved
    traded, round_ = (sent.there + sent.back) / trade / blocks, sent.ring / ring_link / blocks
    exchanges = 0.0 if ulysses == 1 else traded / pieces + 2 * card.latency
    hidden = traded * (pieces - 1) / pieces
    computing = attention + merging
    spent = max(computing, pieces * (ring - 1) * card.hop, round_ + attention / ring if ring > 1 else 0.0, hidden + round_)
    gathering = sent.velocity / ring_link + card.latency * (step.degrees.ranks > 1)
    return Seconds(
        (work.tokens + work.repeated) / rate + blocks * computing,
        blocks * (exchanges + spent - computing) + gathering,
    )


@dataclass(frozen=True)
class Engine:
    """How a program makes a whole video around its steps."""

    alone: float
    """seconds that no further card makes fewer"""
    overlaps: bool = True
    shares_tiles: bool = True
    tile: float = 5.66e13
    """operations to decode a tile of 17 x 32 x 32 latents"""


# The released VAE's convolutions where they are measured: SGLang decodes 77 x 480 x 848 in 5.71 s on an H200 (PR 36012).
VAE_EFFICIENCY = 0.195
OFFICIAL_TILE = 7.30e13  # as official code computes: upsampled before each convolution, and attention with a mask
OURS = Engine(alone=2.0)  # text, noise, frames to the host: an allowance, not measured
XDIT = Engine(alone=64.0, overlaps=False, shares_tiles=False, tile=OFFICIAL_TILE)
SGLANG = Engine(alone=2.0, overlaps=False, tile=OFFICIAL_TILE)
XDIT_H100 = Card("H100 NVLink, FlashAttention 2", H100.memory, H100.flops, 0.337, H100.link, H100.across, H100.moved, H100.hop)


def video_seconds(step: Step, latents: tuple[int, int, int], num_steps: int, card: Card, engine: Engine = OURS, passes: int = 1) -> float:
    """What a whole video takes, loading and saving apart: `latents` are its latent frames, height and width."""
    ranks = step.degrees.ranks * step.branches if engine.shares_tiles else 1
    decoding = engine.tile * largest_load(tiles(latents), ranks) / (card.flops * VAE_EFFICIENCY)
    each = step_seconds(step, card, overlaps=engine.overlaps).total
    return engine.alone + decoding + num_steps * -(-passes // step.branches) * each


def tiles(latents: tuple[int, int, int]) -> list[float]:
    """Sizes of the tiles that a video is decoded in, beside a whole one; the official ones (see tiling.py)."""
    frames, height, width = latents
    whole = max(height, width) <= 32
    in_time = [frames] if frames <= 16 else [min(17, frames - start) for start in range(0, frames - 1, 12)]
    in_space = [[side] if whole else [min(32, side - start) for start in range(0, side, 24)] for side in (height, width)]
    return [math.prod(sides) / (17 * 32 * 32) for sides in product(in_time, *in_space)]


def largest_load(sizes: list[float], ranks: int) -> float:
    """What the fullest rank gets when the largest go first, each to the emptiest."""
    loads = [0.0] * ranks
    for size in sorted(sizes, reverse=True):
        loads[loads.index(min(loads))] += size
    return max(loads)


def all_degrees(ranks: int, heads: int) -> list[Degrees]:
    """Every pair that these ranks can be, Ulysses first."""
    return [Degrees(ulysses, ranks // ulysses) for ulysses in range(min(ranks, heads), 0, -1) if ranks % ulysses == 0]


def best_degrees(ranks: int, heads: int, tokens: int, card: Card = H100, wire: Wire = Wire.EXACT) -> Degrees:
    """Ulysses, where ranks of one machine divide the heads. Else of the pairs that are nearly as fast as the fastest by `step_seconds`, for
    image `tokens` and heads as wide as the released model's:
    one that shares the work evenly, if there is one, and of these the one with most Ulysses ranks, whose exchanges need no merging."""
    if heads % ranks == 0 and ranks <= card.per_machine:
        return Degrees(ranks)
    steps = {degrees: _typical(degrees, heads, tokens, wire) for degrees in all_degrees(ranks, heads)}
    seconds = {degrees: step_seconds(step, card).total for degrees, step in steps.items()}
    fast = [degrees for degrees in steps if seconds[degrees] <= NEARLY * min(seconds.values())]
    return min(fast, key=lambda degrees: (steps[degrees].unevenness > EVEN, -degrees.ulysses))


def degrees_of(runtime: Runtime, ranks: int, branches: int, config: TransformerConfig, tokens: int, card: Card = H100) -> Degrees:
    """How `ranks` share a video of so many image tokens: as the runtime says, or else by the best degrees for them, or for half of them
    where guidance has two `branches`. Ulysses ranks for which there are no attention heads go into the ring.

    Raises:
        ValueError: the degrees do not make the number of ranks, or there are fewer tokens than these would share.
    """
    halves = 2 if branches == 2 and ranks % 2 == 0 else 1
    ulysses, ring = runtime.ulysses_degree, runtime.ring_degree
    counted = "(--gpus, or torchrun's --nproc-per-node, says how many there are)"
    if runtime.pipefusion_patches is not None:
        if (ulysses or 1) * (ring or 1) > 1:
            raise ValueError("pipefusion_patches need every token's keys on one rank; leave them out, or the degrees.")
        degrees = Degrees(stages=runtime.pipefusion_stages)
        if degrees.stages not in (ranks, ranks // halves):
            raise ValueError(
                f"pipefusion_stages is {degrees.stages}, but of {ranks} ranks {ranks // halves} share one pass; make it that {counted}."
            )
    elif ulysses is None and ring is None:
        degrees = best_degrees(ranks // halves, config.num_heads, tokens, card, Wire(runtime.wire))
    else:
        each = ranks // halves if (ulysses or 1) * (ring or 1) != ranks else ranks
        degrees = Degrees(ulysses or max(1, each // (ring or 1)), ring or max(1, each // (ulysses or 1)))
    if degrees.ranks not in (ranks, ranks // halves):
        of_halves = f", or {ranks // 2} for each of two branches of guidance" if halves == 2 else ""
        raise ValueError(
            f"The Ulysses degree {degrees.ulysses} and the ring degree {degrees.ring} are for {degrees.ranks} ranks, but there are "
            f"{ranks}; their product must be {ranks}{of_halves} {counted}."
        )
    if degrees.ulysses > config.num_heads:
        ulysses = max(number for number in range(1, config.num_heads + 1) if degrees.ranks % number == 0)
        degrees = Degrees(ulysses, degrees.ranks // ulysses)
    if tokens < (needed := max(degrees.ulysses * degrees.ring, runtime.pipefusion_patches or 1)):
        raise ValueError(f"A video of {tokens} tokens cannot be shared in {needed} parts; use fewer GPUs or patches, or make it larger.")
    return degrees


def why(ranks: int, heads: int, tokens: int, card: Card = H100, wire: Wire = Wire.EXACT) -> str:
    """The reason for `best_degrees`, in a sentence."""
    best = best_degrees(ranks, heads, tokens, card, wire)
    if best.ring == 1 and heads % ranks == 0:
        return f"Ulysses {ranks}: each of {ranks} ranks has {heads // ranks} of {heads} heads, and sends every token once."
    reason = f"{ranks} ranks do not divide {heads} heads"
    if heads % ranks == 0:
        reason = f"{ranks} ranks are more than the {card.per_machine} of a machine, and a ring sends less between machines"
    others = [degrees for degrees in all_degrees(ranks, heads) if degrees != best]
    steps = [_typical(degrees, heads, tokens, wire) for degrees in (best, *others)]
    seconds = [step_seconds(step, card).total for step in steps]
    compared = "".join(
        f"; {_name(degrees)} would take {time / seconds[0]:.2f} times as long, its fullest rank {step.unevenness:.2f} of its share of work"
        for degrees, step, time in list(zip(others, steps[1:], seconds[1:], strict=True))[:1]
    )
    return f"{_name(best)}: {reason}{compared}."


def _name(degrees: Degrees) -> str:
    return " x ".join(
        f"{kind} {degree}" for kind, degree in zip(("Ulysses", "ring"), (degrees.ulysses, degrees.ring), strict=True) if degree > 1
    )


def _typical(degrees: Degrees, heads: int, tokens: int, wire: Wire) -> Step:
    return Step(tokens, degrees=degrees, wire=wire, config=TransformerConfig(hidden_size=128 * heads, num_heads=heads))
