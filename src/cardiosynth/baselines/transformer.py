"""A decoder-only transformer over codes in raster order (GPT; Esser et al. 2021 put it on VQGAN's), with a cache.

It gives p(s_i | s_<i, c): the sequence is the condition's tokens c, one per latent voxel, then the codes s. Code i - 1
enters with the place i that is to be predicted, and a symbol of its own begins. Condition and codes share the table of
places, so that a code finds what the condition says of its own place.
"""

import pydantic
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from cardiosynth.core.config import Settings

INITIAL_STD = 0.02
"""Of embeddings and kernels, as GPT-2 begins."""


class TransformerSettings(Settings):
    """Its size.

    Attributes:
        layers: how many. Published (VQGAN) 24.
        heads: of attention, which share the width. Published (VQGAN) 16.
        width: features of a token. Published (VQGAN) 1024.
        dropout: of embeddings and of what each half of a layer adds. Published (VQGAN) 0.
    """

    layers: int = pydantic.Field(default=4, ge=1)
    heads: int = pydantic.Field(default=4, ge=1)
    width: int = pydantic.Field(default=128, ge=1)
    dropout: float = pydantic.Field(default=0.0, ge=0, lt=1)

    @pydantic.model_validator(mode="after")
    def _divided(self) -> "TransformerSettings":
        if self.width % self.heads:
            raise ValueError(f"a width of {self.width} cannot be shared by {self.heads} heads; give a multiple")
        return self


class Cache:
    """Keys and values of the tokens that every layer has seen.

    Args:
        settings: of the transformer.
        batch: how many sequences.
        length: tokens per sequence that there is room for.
        like: whose device and dtype they have.
    """

    def __init__(self, settings: TransformerSettings, batch: int, length: int, like: Tensor):
        shape = (settings.layers, batch, settings.heads, length, settings.width // settings.heads)
        self._keys, self._values = like.new_zeros(shape), like.new_zeros(shape)
        self.seen = 0

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Take in keys and values (b, heads, n, d) of n tokens and return those of all tokens so far."""
        stop = self.seen + keys.shape[2]
        self._keys[layer, :, :, self.seen : stop] = keys
        self._values[layer, :, :, self.seen : stop] = values
        return self._keys[layer, :, :, :stop], self._values[layer, :, :, :stop]


class Transformer(nn.Module):
    """Logits of every code, from those before it and from the tokens of a condition.

    Args:
        settings: its size.
        codes: how many codes there are.
        places: codes per sequence.
        condition_channels: values per place that the condition has; 0 for none.
    """

    def __init__(self, settings: TransformerSettings, codes: int, places: int, condition_channels: int = 0):
        super().__init__()
        self.settings, self.num_codes, self.num_places = settings, codes, places
        self.code = nn.Embedding(codes + 1, settings.width)  # the last one begins
        self.place = nn.Embedding(places, settings.width)
        # Shares of labels in, a token out: for a place inside one structure, that label's embedding.
        self.told = nn.Linear(condition_channels, settings.width) if condition_channels else None
        self.layers = nn.ModuleList(_Layer(settings) for _ in range(settings.layers))
        self.norm = nn.LayerNorm(settings.width)
        self.head = nn.Linear(settings.width, codes, bias=False)
        self.apply(_begin)

    def forward(
        self, codes: Int[Tensor, "b n"], condition: Float[Tensor, "b n c"] | None = None
    ) -> Float[Tensor, "b n k"]:
        """Return the logits of every code of whole sequences.

        Args:
            codes: in raster order. The logits at i do not see codes from i on.
            condition: per place, where the network has one.
        """
        begin = torch.full_like(codes[:, :1], self.num_codes)
        tokens = self._entered(torch.cat([begin, codes[:, :-1]], 1), 0)
        told = self._condition(condition)
        tokens = tokens if told is None else torch.cat([told, tokens], 1)
        return self._logits(tokens)[:, -codes.shape[1] :]

    def begin(self, batch: int, condition: Float[Tensor, "b n c"] | None = None) -> tuple[Float[Tensor, "b k"], Cache]:
        """Return the logits of the first code of new sequences, and the cache for those that follow."""
        told = self._condition(condition)
        number = 0 if told is None else told.shape[1]
        cache = Cache(self.settings, batch, number + self.num_places, self.place.weight)
        begin = torch.full((batch, 1), self.num_codes, device=self.place.weight.device)
        tokens = self._entered(begin, 0)
        tokens = tokens if told is None else torch.cat([told, tokens], 1)
        return self._logits(tokens, cache)[:, -1], cache

    def follow(self, codes: Int[Tensor, " b"], place: int, cache: Cache) -> Float[Tensor, "b k"]:
        """Return the logits of the codes at ``place`` that follow ``codes``."""
        return self._logits(self._entered(codes[:, None], place), cache)[:, -1]

    def _entered(self, codes: Tensor, first: int) -> Tensor:
        """Return the tokens of codes that predict the places from ``first`` on."""
        return self.code(codes) + self.place.weight[first : first + codes.shape[1]]

    def _condition(self, condition: Tensor | None) -> Tensor | None:
        assert (condition is None) == (self.told is None), "a condition and a network that is told it belong together"
        return None if self.told is None else self.told(condition) + self.place.weight

    def _logits(self, tokens: Tensor, cache: Cache | None = None) -> Tensor:
        x = F.dropout(tokens, self.settings.dropout, self.training)
        for index, layer in enumerate(self.layers):
            x = layer(x, index, cache)
        if cache is not None:
            cache.seen += tokens.shape[1]
        return self.head(self.norm(x)).float()


class _Layer(nn.Module):
    """Causal attention and two linear maps, each after a normalization and added to what came in (GPT-2)."""

    def __init__(self, settings: TransformerSettings):
        super().__init__()
        width = settings.width
        self.heads, self.dropout = settings.heads, settings.dropout
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attend, self.mix = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.widen, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Float[Tensor, "b n w"], index: int, cache: Cache | None) -> Float[Tensor, "b n w"]:
        """Return the next features of n tokens, which follow those of the cache."""
        x = x + F.dropout(self.mix(self._attention(self.norm1(x), index, cache)), self.dropout, self.training)
        wide = F.gelu(self.widen(self.norm2(x)))
        return x + F.dropout(self.narrow(wide), self.dropout, self.training)

    def _attention(self, x: Tensor, index: int, cache: Cache | None) -> Tensor:
        queries, keys, values = self.attend(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        if cache is not None:
            keys, values = cache.extend(index, keys, values)
        count = queries.shape[2]
        assert count in (1, keys.shape[2]), "after the first tokens, one at a time"
        out = F.scaled_dot_product_attention(queries, keys, values, is_causal=count > 1)
        return out.transpose(1, 2).flatten(2)


def _begin(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=INITIAL_STD)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)


@torch.no_grad()
def draw_codes(
    network: Transformer,
    rng: torch.Generator,
    condition: Float[Tensor, "1 n c"] | None = None,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
) -> Int[Tensor, " n"]:
    """Draw one sequence, code by code.

    Args:
        network: in eval mode.
        rng: draws on the CPU, so that every device draws alike.
        condition: per place, where the network has one.
        temperature: divides the logits; below 1 likely codes become likelier.
        top_k: the most likely codes that may be drawn; None for all, 1 for no chance at all.
    """
    logits, cache = network.begin(1, condition)
    drawn: list[Tensor] = []
    for place in range(network.num_places):
        if place:
            logits = network.follow(drawn[-1], place, cache)
        drawn.append(_draw(logits.cpu() / temperature, top_k, rng).to(logits.device))
    return torch.cat(drawn)


def _draw(logits: Float[Tensor, "1 k"], top_k: int | None, rng: torch.Generator) -> Int[Tensor, " 1"]:
    count = logits.shape[1] if top_k is None else min(top_k, logits.shape[1])
    highest, index = logits.topk(count)
    return index[0, torch.multinomial(highest.softmax(1)[0], 1, generator=rng)]
