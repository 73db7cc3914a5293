"""Feature expansion and compression."""

from __future__ import annotations

from torch import Tensor, nn

from trainer.layers.masks import check, zeroed


class ExpandCompress(nn.Module):
    """Features expanded to `factor` times their dimension and compressed back, ReLU after both. (B, T, dim) -> (B, T, dim).

    Weights as He et al. initialise them (arXiv 1502.01852, equation 10), biases zero.
    Source: Nguyen et al. (ABAW3), section 3.2, equation 8. The paper does not say k; the authors' code takes 1.5.
    """

    def __init__(self, dim: int, *, factor: float = 1.5) -> None:
        super().__init__()
        wide = int(dim * factor)
        self.expand, self.compress = nn.Linear(dim, wide), nn.Linear(wide, dim)
        for layer in (self.expand, self.compress):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """x: (B, T, dim), mask: (B, T) -> (B, T, dim), not negative."""
        check(x, mask)
        return zeroed(self.compress(self.expand(zeroed(x, mask)).relu()).relu(), mask)
