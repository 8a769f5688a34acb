"""Priors for tests: models with a real state, and modules that break the contract in some way."""

from pathlib import Path

import torch
from helpers import HEX_VOCAB, TablePrior, save_scripted
from torch import Tensor, nn

from lmgc_torch import Prior


def load(module: nn.Module, folder: Path) -> Prior:
    path = folder / f"{type(module).__name__}.pt"
    save_scripted(module.eval(), path)
    return Prior.load(path)


# ---- bound priors with a state -------------------------------------------------------------------


class RecurrentPrior(nn.Module):
    """A GRU; its state is one tensor."""

    vocab: list[str]
    context_features: list[str]
    max_context: int
    portable: bool
    units_per_octave: float

    def __init__(self, context: int = 48) -> None:
        super().__init__()
        self.vocab = list(HEX_VOCAB)
        self.context_features = ["digit"]
        self.max_context = context
        self.portable = False
        self.units_per_octave = 0.6931471805599453
        generator = torch.Generator().manual_seed(3)
        self.embedding = nn.Embedding(len(HEX_VOCAB), 12)
        self.cell = nn.GRUCell(13, 16)
        self.head = nn.Linear(16, len(HEX_VOCAB))
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.4, generator=generator)

    def forward(self, tokens: Tensor, features: Tensor) -> Tensor:
        state = self.init_state(tokens.size(0))
        logits: list[Tensor] = []
        for t in range(tokens.size(1)):
            one, state = self.step(tokens[:, t], features[:, t], state)
            logits.append(one)
        return torch.stack(logits, 1)

    @torch.jit.export
    def init_state(self, lanes: int) -> Tensor:
        return torch.zeros([lanes, 16], device=self.head.weight.device)

    @torch.jit.export
    def step(self, tokens: Tensor, features: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        state = self.cell(torch.cat([self.embedding(tokens), features], 1), state)
        return self.head(state), state


class AttentionPrior(nn.Module):
    """One layer of attention with keys and values kept in lists, which grow with the context."""

    vocab: list[str]
    context_features: list[str]
    max_context: int
    portable: bool
    units_per_octave: float

    def __init__(self, context: int = 48) -> None:
        super().__init__()
        self.vocab = list(HEX_VOCAB)
        self.context_features = []
        self.max_context = context
        self.portable = False
        self.units_per_octave = 0.6931471805599453
        generator = torch.Generator().manual_seed(4)
        self.embedding = nn.Embedding(len(HEX_VOCAB), 16)
        self.projection = nn.Linear(16, 48)
        self.head = nn.Linear(16, len(HEX_VOCAB))
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.4, generator=generator)

    def forward(self, tokens: Tensor, features: Tensor) -> Tensor:
        query, key, value = self.projection(self.embedding(tokens)).chunk(3, -1)
        scores = query @ key.transpose(1, 2) / 4
        later = torch.ones_like(scores, dtype=torch.bool).triu(1)
        return self.head(torch.softmax(scores.masked_fill(later, -1e9), -1) @ value)

    @torch.jit.export
    def init_state(self, lanes: int) -> dict[str, list[Tensor]]:
        empty = torch.zeros([lanes, 0, 16], device=self.head.weight.device)
        return {"cache": [empty, empty]}

    @torch.jit.export
    def step(
        self, tokens: Tensor, features: Tensor, state: dict[str, list[Tensor]]
    ) -> tuple[Tensor, dict[str, list[Tensor]]]:
        query, key, value = self.projection(self.embedding(tokens))[:, None].chunk(3, -1)
        key = torch.cat([state["cache"][0], key], 1)
        value = torch.cat([state["cache"][1], value], 1)
        scores = torch.softmax(query @ key.transpose(1, 2) / 4, -1)
        return self.head((scores @ value)[:, 0]), {"cache": [key, value]}


class LearningPrior(nn.Module):
    """Counts what it has seen in its context: a longer one makes it better."""

    vocab: list[str]
    context_features: list[str]
    max_context: int
    portable: bool
    units_per_octave: float

    def __init__(self, context: int = 192) -> None:
        super().__init__()
        self.vocab = list(HEX_VOCAB)
        self.context_features = ["digit"]
        self.max_context = context
        self.portable = False
        self.units_per_octave = 1.0

    def forward(self, tokens: Tensor, features: Tensor) -> Tensor:
        state = self.init_state(tokens.size(0))
        logits: list[Tensor] = []
        for t in range(tokens.size(1)):
            one, state = self.step(tokens[:, t], features[:, t], state)
            logits.append(one)
        return torch.stack(logits, 1)

    @torch.jit.export
    def init_state(self, lanes: int) -> tuple[Tensor, Tensor]:
        return torch.full([lanes, 96, 22], 0.2), torch.full([lanes], -1)

    @torch.jit.export
    def step(
        self, tokens: Tensor, features: Tensor, state: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        counts, place = state[0].clone(), state[1]
        rows = torch.arange(tokens.size(0))[place >= 0]
        counts[rows, place[rows], tokens[rows]] += 1.0
        digit = features[:, 0].long().clamp(0, 2)
        place = 32 * digit + torch.where(digit == 0, 0, tokens)
        return torch.log2(counts[torch.arange(tokens.size(0)), place]), (counts, place)


class TablePriorOf(TablePrior):
    """`TablePrior` with the options that most of the modules below leave as they are."""

    def __init__(self, portable: bool = False, context: int = 32) -> None:
        super().__init__(HEX_VOCAB, [], context, portable)


class MixesLanes(TablePriorOf):
    """A lane's logits depend on all lanes of the batch, as rounding may make them do."""

    @torch.jit.export
    def step(self, tokens: Tensor, features: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        place = torch.arange(len(self.vocab)) % 4
        shift = (tokens.float().mean() * 16).floor() % 8 + tokens.size(0) % 8
        return self.look_up(tokens, state, features) + place * shift, tokens.clone()


# ---- modules that do not keep the contract -------------------------------------------------------


class DropsOut(TablePriorOf):
    def look_up(self, before: Tensor, before_that: Tensor, features: Tensor) -> Tensor:
        logits = self.table[(31 * before + 17 * before_that) % self.rows]
        return torch.nn.functional.dropout(logits, 0.1, True)


class DropsOutInSteps(TablePriorOf):
    @torch.jit.export
    def step(self, tokens: Tensor, features: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.look_up(tokens, state, features)
        return logits + torch.rand_like(logits), tokens.clone()


class Remembers(TablePriorOf):
    """Every call changes the next one, after call `first`."""

    def __init__(self, first: int = 0) -> None:
        super().__init__()
        self.first = first
        self.calls = 0

    def look_up(self, before: Tensor, before_that: Tensor, features: Tensor) -> Tensor:
        self.calls += 1
        place = torch.arange(len(self.vocab)) % 4
        logits = self.table[(31 * before + 17 * before_that) % self.rows]
        return logits + place * 16 * (max(self.calls - self.first, 0) % 5)


class StepsDiffer(TablePriorOf):
    """Says that it is portable, and its step is not its forward."""

    def __init__(self) -> None:
        super().__init__(portable=True)

    @torch.jit.export
    def step(self, tokens: Tensor, features: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        return self.look_up(tokens, state, features) * 0.5, tokens.clone()


class RowsDiffer(TablePriorOf):
    """Says that it is portable, and the number of rows matters."""

    def __init__(self) -> None:
        super().__init__(portable=True)

    def look_up(self, before: Tensor, before_that: Tensor, features: Tensor) -> Tensor:
        place = torch.arange(len(self.vocab)) % 4
        return self.table[(31 * before + 17 * before_that) % self.rows] + place * before.size(0)


class NotFinite(TablePriorOf):
    """Writes `value` where `digit` is predicted; the vocabulary's index, so 16 is no digit."""

    def __init__(self, digit: int, value: float, portable: bool) -> None:
        super().__init__(portable)
        self.digit = digit
        self.value = value

    def look_up(self, before: Tensor, before_that: Tensor, features: Tensor) -> Tensor:
        logits = self.table[(31 * before + 17 * before_that) % self.rows].clone()
        logits[..., self.digit] = self.value
        return logits


class NotFinitePadding(TablePrior):
    """What it answers for rows' padding, which is ignored, is NaN."""

    def __init__(self) -> None:
        super().__init__(HEX_VOCAB, ["mantissa_bits"], 96, True)

    def look_up(self, before: Tensor, before_that: Tensor, features: Tensor) -> Tensor:
        logits = self.table[(31 * before + 17 * before_that) % self.rows]
        return torch.where(features[..., :1] == 0, torch.full_like(logits, float("nan")), logits)


class Hungry(TablePriorOf):
    """Its state is larger than any memory."""

    @torch.jit.export
    def init_state(self, lanes: int) -> Tensor:
        return torch.empty([lanes, 1 << 48], dtype=torch.float64)


class HungryForward(TablePriorOf):
    def __init__(self) -> None:
        super().__init__(portable=True)

    def forward(self, tokens: Tensor, features: Tensor) -> Tensor:
        return torch.empty([tokens.size(0), tokens.size(1), 1 << 48], dtype=torch.float64)


class LargeState(TablePriorOf):
    """Its state seems to have a MiB in each lane, and it fails with more than `most` lanes."""

    def __init__(self, portable: bool, most: int, context: int = 32) -> None:
        super().__init__(portable, context)
        self.most = most

    @torch.jit.export
    def init_state(self, lanes: int) -> Tensor:
        if lanes > self.most:
            raise ValueError("too many lanes: " + str(lanes))
        return torch.zeros([lanes, 1], dtype=torch.int64).expand(lanes, 1 << 17)

    @torch.jit.export
    def step(self, tokens: Tensor, features: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        return self.look_up(tokens, state[:, 0], features), tokens[:, None].expand(-1, 1 << 17)


class FewerLanes(TablePriorOf):
    @torch.jit.export
    def step(self, tokens: Tensor, features: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        return self.look_up(tokens, state, features)[1:], tokens.clone()


class ThreeResults(TablePriorOf):
    @torch.jit.export
    def step(
        self, tokens: Tensor, features: Tensor, state: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        return self.look_up(tokens, state, features), tokens.clone(), tokens


class NoNewState(TablePriorOf):
    @torch.jit.export
    def step(self, tokens: Tensor, features: Tensor, state: Tensor) -> Tensor:
        return self.look_up(tokens, state, features)


class OtherState(TablePriorOf):
    @torch.jit.export
    def init_state(self, lanes: int) -> list[Tensor]:
        return [torch.zeros([lanes], dtype=torch.int64)]


class LanesAreTensors(TablePriorOf):
    @torch.jit.export
    def init_state(self, lanes: Tensor) -> Tensor:
        return lanes


class TokensAreLists(TablePriorOf):
    @torch.jit.export
    def step(self, tokens: list[int], features: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        return features, state


class ForwardGivesPairs(TablePriorOf):
    def forward(self, tokens: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        return tokens, features


class Raises(TablePriorOf):
    def forward(self, tokens: Tensor, features: Tensor) -> Tensor:
        if tokens.size(0) > 0:
            raise ValueError("no such luck")
        return features


class IntegerLogits(TablePriorOf):
    def forward(self, tokens: Tensor, features: Tensor) -> Tensor:
        return torch.zeros([tokens.size(0), tokens.size(1), len(self.vocab)], dtype=torch.int64)
