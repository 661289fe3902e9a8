"""A network in shards: DeepSpeed's ZeRO (Rajbhandari et al. 2020), stages 1 to 3, one engine for each network.

What was found about DeepSpeed 0.19, and is done here because of it:

- forward passes go through the module, not the engine, and there is one `engine.backward` for each micro-batch: the
  `autograd.grad` of a gradient penalty inside `engine(x)` would clear the buckets of stages 1 and 2;
- a base step never goes back through the energy's engine (silently wrong in stage 1): `steps.base_step` cuts the
  graph at the images;
- gradients are averaged over the workers, while ours are parts that are summed;
- gradients are clipped at 1 unless the configuration says 0;
- stage 3 cannot differentiate twice what uses large weights as they are: `why_no_shards`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from gebm.trainer.settings import TrainerSettings
from gebm.trainer.strategies.optimizer import adam
from gebm.trainer.workers import Workers

PERSISTENT_ELEMENTS = 100_000
"""Stage 3 leaves weights of fewer elements whole on every worker."""
MOMENTS = ("exp_avg", "exp_avg_sq")


class ZeroOptimizer:
    """Adam on the weights of `network`, in shards. The engine takes hold of the network: see `close`."""

    def __init__(self, network: nn.Module, stage: int, workers: Workers, settings: TrainerSettings):
        deepspeed = load_deepspeed(workers)
        network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]  # it takes no channels-last
        self.network, self.stage, self.workers = network, stage, workers
        rows = settings.batch_size // workers.world
        micro_batch = min(settings.micro_batch or rows, rows)
        self.micro_batches = -(-rows // micro_batch)
        self.engine, _, _, _ = deepspeed.initialize(
            model=network,
            optimizer=adam(network, settings.betas, fused=False),
            config={
                "train_micro_batch_size_per_gpu": micro_batch,
                "gradient_accumulation_steps": self.micro_batches,
                "gradient_clipping": settings.clip_norm or 0.0,
                "zero_allow_untested_optimizer": True,
                "zero_optimization": {"stage": stage, "stage3_param_persistence_threshold": PERSISTENT_ELEMENTS},
            },
            dist_init_required=False,
        )
        self.zero = self.engine.optimizer
        self.gathered = deepspeed.zero.GatheredParameters

    @property
    def learning_rate(self) -> float:
        return self.zero.param_groups[0]["lr"]

    @learning_rate.setter
    def learning_rate(self, rate: float) -> None:
        for group in self.zero.param_groups:
            group["lr"] = rate

    def zero_grad(self) -> None:
        self.seen = 0

    def backward(self, part: Tensor) -> None:
        self.seen += 1
        self.engine.set_gradient_accumulation_boundary(self.seen == self.micro_batches)
        self.engine.backward(part * self.workers.world, scale_wrt_gas=False)
        if self.seen < self.micro_batches:
            self.engine.step()

    def step(self, *more: Tensor) -> Tensor:
        self.engine.step()
        for tensor in more:
            tensor.copy_(self.workers.sum(tensor))
        return torch.as_tensor(self.engine.get_global_grad_norm(), device=self.workers.device)

    @contextmanager
    def whole(self) -> Iterator[None]:
        with self.gathered(list(self.network.parameters()), enabled=self.stage == 3):
            yield

    def state_dict(self) -> dict[str, Any]:
        from deepspeed.utils import safe_get_full_optimizer_state

        parameters = list(self.network.parameters())
        state: dict[int, dict[str, Tensor]] = {}
        if self._inner.state:
            step = float(next(iter(self._inner.state.values()))["step"])
            state = {
                number: {"step": torch.tensor(step)}
                | {name: safe_get_full_optimizer_state(parameter, name).clone() for name in MOMENTS}
                for number, parameter in enumerate(parameters)
            }
        group = {key: value for key, value in self.zero.param_groups[0].items() if key != "params"}
        return {"state": state, "param_groups": [group | {"params": list(range(len(parameters)))}]}

    def load(self, weights: dict[str, Tensor], memory: dict[str, Any]) -> None:
        from deepspeed.utils import safe_set_full_optimizer_state, safe_set_local_optimizer_state

        with self.gathered(list(self.network.parameters()), modifier_rank=0, enabled=self.stage == 3):
            self.network.load_state_dict(weights)
        self.zero.refresh_fp32_params()
        self.learning_rate = memory["param_groups"][0]["lr"]
        if not memory["state"]:
            return
        for shard in self._shards():
            zeros = {name: torch.zeros_like(shard) for name in MOMENTS}
            self._inner.state[shard] = {"step": torch.as_tensor(memory["state"][0]["step"]).clone(), **zeros}
        if self.stage < 3:
            self.zero._lazy_init_hp_params_optimizer_state()  # else only the first step tells weights of their moments
        for number, parameter in enumerate(self.network.parameters()):
            for name in MOMENTS:
                value = memory["state"][number][name].to(self.workers.device)
                if self.stage < 3:
                    safe_set_full_optimizer_state(parameter, value, name)
                    continue
                # Cut into equal parts, of which the last is filled up: the call for whole values forgets to fill up.
                parts = nn.functional.pad(value.flatten(), (0, -value.numel() % self.workers.world))
                safe_set_local_optimizer_state(parameter, self.workers.own(parts), name)

    def close(self) -> None:
        """The network cannot be used any more: go on with a copy that was made of whole weights."""
        self.engine.destroy()

    @property
    def _inner(self) -> torch.optim.Optimizer:
        return self.zero.optimizer

    def _shards(self) -> list[nn.Parameter]:
        """This worker's flat parts of the weights, which Adam has its memory of."""
        return self.zero.fp32_partitioned_groups_flat if self.stage == 3 else self.zero.single_partition_of_fp32_groups


def load_deepspeed(workers: Workers) -> Any:
    """The package `deepspeed`, joined to the process group that there is, or to one of this worker alone."""
    if workers.world == 1:
        os.environ.setdefault("LOCAL_RANK", "0")
    if workers.device.type == "cpu":
        os.environ["DS_ACCELERATOR"] = "cpu"
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    import deepspeed

    # Its all-reduce through shared memory is for one machine, and wants a compiler on it. The name has two ends.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    if not dist.is_initialized():
        dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    if not deepspeed.comm.is_initialized():
        deepspeed.init_distributed(dist.get_backend(), dist_init_required=False)
    return deepspeed


def why_no_shards(settings: TrainerSettings, energy: nn.Module, gpus_per_worker: float) -> str | None:
    """Why training in shards cannot work with these settings, None when it can."""
    zero = settings.zero
    if not (zero.base or zero.energy):
        return None
    if settings.dtype == "float64":
        return 'trainer.dtype = "float64": DeepSpeed keeps float32; set trainer.zero.base and energy to 0'
    if settings.compile:
        return "trainer.compile = true: not together with trainer.zero; set one of them to its default"
    if settings.transform_gradients:
        return (
            "trainer.transform_gradients = true: with trainer.zero no worker has the whole gradients between the "
            "reduction and Adam; set it to false, or trainer.zero.base and energy to 0"
        )
    if 0 < gpus_per_worker < 1:
        return "trainer.zero needs a GPU for each worker (NCCL), and workers share them; give --gpus-per-worker 1"
    # Weights that are computed from others, as spectral norms compute them, are never in shards themselves.
    plain = [
        name
        for name, parameter in energy.named_parameters()
        if parameter.dim() > 1 and parameter.numel() >= PERSISTENT_ELEMENTS and not name.endswith(".original")
    ]
    penalised = settings.joint.gradient_penalty or settings.energy.gradient_penalty
    if zero.energy == 3 and penalised and plain:
        return (
            f"trainer.zero.energy = 3: the gradient penalty is differentiated twice, which DeepSpeed cannot do with "
            f"{plain[0]} in shards; set it to 2, or take an energy with spectral norms (sngan_convnet, sngan_resnet)"
        )
    return None
