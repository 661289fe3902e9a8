"""The model card that lies beside exported weights."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from gebm.trainer.model import GEBM

if TYPE_CHECKING:
    from gebm.trainer.checkpoints.manifest import CheckpointRecord
    from gebm.trainer.job import TrainingJob
    from gebm.trainer.settings import TrainerSettings

TEXT = """# Generalized energy-based model

Generator and energy of a GEBM (Arbel, Zhou, Gretton, ICLR 2021), trained by gebm. `dQ/dQ_base(x) = exp(-E(x) - c)`;
the energy is low where data is likely, and belongs to this generator: do not pair it with another one.

- {points}.
- Latent: {prior} in {latent} dimensions.
- Parameters: generator {base:,}, energy {energy:,}.
- Log-partition c = {c:.4f} +- {error:.4f} (Monte-Carlo standard error over {draws:,} prior draws).
- Trained on {data} with seed {seed}.

{history}

```python
from gebm.sampler import draw
from gebm.trainer.model import load_model

images = draw(load_model("."), 16, name="ula", inverse_temperature=1.0, step_size=0.01, steps=100)
```

Settings:

```json
{settings}
```
"""


def model_card(job: TrainingJob, model: GEBM, best: CheckpointRecord | None = None) -> str:
    """The text of the card, in Markdown. `best` is the checkpoint that the model is of, None for the last state."""
    shape = "x".join(map(str, model.image_shape))
    vectors = len(model.image_shape) == 1
    return TEXT.format(
        points=f"Vectors of {shape} numbers" if vectors else f"Images: {shape} (channels, height, width) in [-1, 1]",
        prior=prior_words(model),
        latent=model.latent_dimension,
        base=sum(p.numel() for p in model.base.parameters()),
        energy=sum(p.numel() for p in model.energy_network.parameters()),
        c=float(model.log_partition),
        error=float(model.log_partition_error),
        draws=job.settings.log_partition_draws,
        data=job.data,
        seed=job.seed,
        history=history(job.settings) + (f"\n{chosen(job.settings, best)}" if best is not None else ""),
        settings=json.dumps(job.settings.model_dump(mode="json"), indent=1),
    )


def prior_words(model: GEBM) -> str:
    """The law of the latent, in words."""
    if model.prior.kind == "normal":
        return "standard normal"
    low, high = model.prior.bounds
    law = "uniform" if model.prior.kind == "uniform" else "standard normal, truncated, each coordinate"
    return f"{law} on [{low:g}, {high:g}]"


def history(settings: TrainerSettings) -> str:
    """How base and energy came about, a sentence each."""
    base, joint, energy = settings.base.steps, settings.joint.steps, settings.energy.steps
    of_base = [
        *([f"{base:,} steps of maximum likelihood"] if base else []),
        *([f"{joint:,} base steps against the energy"] if joint else []),
    ]
    sentences = ["The generator was not trained here: it is used as it came."]
    if of_base:
        sentences = [f"The generator is an exponential moving average over {' and '.join(of_base)}."]
    if energy:
        sentences.append(f"The energy is an average over the last of {energy:,} steps on that generator alone.")
    elif joint:
        sentences.append("The energy is its last iterate against a generator that still moved.")
    else:
        sentences.append("**The energy was not trained: samples of the model are no better than the generator's.**")
    return "\n".join(sentences)


def chosen(settings: TrainerSettings, best: CheckpointRecord) -> str:
    """Which state of the last phase the model is of."""
    return (
        f"Of the last phase, the state after round {best.round:,} of {settings.rounds:,} was taken: the best by "
        f"{settings.keep_best} on validation data ({best.reading:.4g})."
    )
