"""The text transformer of the paper (section 2.4): causal mask, the feature is read at the end-of-text token."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from model.config import Activation, TextConfig
from model.transformer import LayerNorm, Transformer


class TextTransformer(nn.Module):
    """Tokens (B, L), L at most the context length -> feature (B, embed_dim).

    The end-of-text token has the largest id of the vocabulary, so it is found by argmax. Nothing after it can reach it
    through the causal mask: a batch may be cut to its longest text without changing a feature.
    """

    def __init__(self, config: TextConfig, embed_dim: int, activation: Activation = "quick_gelu") -> None:
        super().__init__()
        self.context_length = config.context_length
        self.transformer = Transformer(config.width, config.layers, config.heads, causal=True, activation=activation)
        self.token_embedding = nn.Embedding(config.vocab_size, config.width)
        self.positional_embedding = nn.Parameter(torch.empty(config.context_length, config.width))
        self.ln_final = LayerNorm(config.width)
        self.text_projection = nn.Parameter(torch.empty(config.width, embed_dim))
        nn.init.normal_(self.token_embedding.weight, std=0.02)
        nn.init.normal_(self.positional_embedding, std=0.01)
        nn.init.normal_(self.text_projection, std=config.width**-0.5)
        self.transformer.init_as_gpt2()

    def encode_text(self, tokens_BL: Tensor) -> Tensor:
        """Features (B, embed_dim) of the texts, not normalised."""
        length = tokens_BL.shape[1]
        x_BLC = self.token_embedding(tokens_BL) + self.positional_embedding[:length]
        x_BLC = self.transformer(x_BLC)
        x_BC = x_BLC[torch.arange(tokens_BL.shape[0], device=tokens_BL.device), tokens_BL.argmax(dim=-1)]
        text_BD: Tensor = self.ln_final(x_BC) @ self.text_projection
        return text_BD
