"""The model card that lies beside exported weights."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from gebm.trainer.model import GEBM

if TYPE_CHECKING:
    from gebm.trainer.loop import TrainingJob

TEXT = """# Generalized energy-based model

Generator and energy of a GEBM (Arbel, Zhou, Gretton, ICLR 2021), trained by gebm. `dQ/dQ_base(x) = exp(-E(x) - c)`;
the energy is low where data is likely, and belongs to this generator: do not pair it with another one.

- Images: {shape} (channels, height, width), values in [-1, 1].
- Latent: standard normal in {latent} dimensions.
- Parameters: generator {base:,}, energy {energy:,}.
- Log-partition c = {c:.4f} +- {error:.4f} (Monte-Carlo standard error over {draws:,} prior draws).
- Trained on {data} with seed {seed}.

The generator is an exponential moving average with batch-norm statistics of its own, the energy an average over
the iterates of a last phase on that generator.

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


def model_card(job: TrainingJob, model: GEBM) -> str:
    """The text of the card, in Markdown."""
    return TEXT.format(
        shape="x".join(map(str, model.image_shape)),
        latent=model.latent_dimension,
        base=sum(p.numel() for p in model.base.parameters()),
        energy=sum(p.numel() for p in model.energy_network.parameters()),
        c=float(model.log_partition),
        error=float(model.log_partition_error),
        draws=job.settings.log_partition_draws,
        data=job.data,
        seed=job.seed,
        settings=json.dumps(job.settings.model_dump(mode="json"), indent=1),
    )
