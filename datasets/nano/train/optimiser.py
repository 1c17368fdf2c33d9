"""Muon for the matrices inside the layers, AdamW for everything else.

Muon replaces the momentum of a matrix by the nearest orthogonal one (a few Newton-Schulz steps), which made the
small runs behind this model learn from visibly fewer samples than AdamW alone.
"""
import torch

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)       # coefficients of Keller Jordan's Muon


def orthogonalise(matrices, steps=5):
    """Approximate U V^T of each matrix [..., rows, columns]."""
    a, b, c = NEWTON_SCHULZ
    x = matrices
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT.contiguous() if tall else x
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    def __init__(self, params, lr, momentum=0.95, weight_decay=0.0):
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                state = self.state[p]
                if not state:
                    state["momentum"] = torch.zeros_like(p)
                state["momentum"].lerp_(p.grad, 1 - group["momentum"])
                update = orthogonalise(p.grad.lerp(state["momentum"], group["momentum"]))
                # Entries of an orthogonal matrix have rms 1 / sqrt(longer side); bring them to 0.2 as AdamW's have.
                scale = 0.2 * max(p.shape[-2:]) ** 0.5
                p.mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=-group["lr"] * scale)


def build(model, lr, weight_decay):
    """[Muon, AdamW] over disjoint parameters; both follow the same learning-rate schedule."""
    matrices, others, plain = [], [], []
    for name, p in model.named_parameters():
        inner = name.startswith("layers.") and "router" not in name
        if inner and p.ndim >= 2 and not name.endswith("bias"):
            matrices.append(p)
        elif p.ndim >= 2 and not name.endswith("bias"):
            others.append(p)
        else:
            plain.append(p)
    adam = torch.optim.AdamW([{"params": others, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}],
                             lr=lr, betas=(0.9, 0.98), eps=1e-9)
    return [Muon(matrices, lr, weight_decay=weight_decay), adam]
