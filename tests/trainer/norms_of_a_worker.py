"""One of two worker processes of `test_a_conditional_norm_over_two_workers_is_one_over_the_whole_batch`.

Arguments: port, rank. Each takes half of a batch through a conditional network with global batch norms, and compares
images, statistics and summed gradients with plain batch norms on the whole batch.
"""

import copy
import sys

import torch
import torch.distributed as dist

from gebm.trainer.batch_norm import GlobalBatchNorm2d, use_global_batch
from gebm.trainer.model import ModelSettings, build_model
from tests.trainer.gloo_group import gloo_group


def check(rank: int) -> None:
    settings = ModelSettings(network="sngan_resnet", latent_dimension=4, width_factor=1 / 32, conditional=True)
    whole = build_model(settings, (1, 28, 28), classes=3, seed=0).double().base
    for table in (module for module in whole.modules() if isinstance(module, torch.nn.Embedding)):
        torch.nn.init.normal_(table.weight, generator=torch.Generator().manual_seed(table.weight.shape[1]))
    part = copy.deepcopy(whole)
    use_global_batch(part)
    assert sum(isinstance(module, GlobalBatchNorm2d) for module in part.modules()) == 5

    generator = torch.Generator().manual_seed(1)
    latent = torch.randn(8, 4, generator=generator).double()
    labels = torch.randint(3, (8,), generator=generator)
    weights = torch.randn(8, 1, 28, 28, generator=generator).double()
    rows = slice(4 * rank, 4 * rank + 4)
    images, expected = part(latent[rows], labels[rows]), whole(latent, labels)
    torch.testing.assert_close(images, expected[rows])
    (images * weights[rows]).sum().backward()
    (expected * weights).sum().backward()
    for (name, mine), theirs in zip(part.named_parameters(), whole.parameters(), strict=True):
        dist.all_reduce(mine.grad)
        torch.testing.assert_close(mine.grad, theirs.grad, msg=lambda text, name=name: f"{name}: {text}")
    for mine, theirs in zip(part.buffers(), whole.buffers(), strict=True):
        torch.testing.assert_close(mine, theirs)

    # Of vectors too, with a gain and shift of their own: a foreign generator may have them.
    flat = torch.nn.Sequential(torch.nn.BatchNorm1d(4).double())
    flat_part = copy.deepcopy(flat)
    use_global_batch(flat_part)
    torch.testing.assert_close(flat_part(latent[rows]), flat(latent)[rows])
    torch.testing.assert_close(flat_part[0].running_var, flat[0].running_var)


if __name__ == "__main__":
    with gloo_group(rank := int(sys.argv[2]), world=2, port=sys.argv[1]):
        check(rank)
