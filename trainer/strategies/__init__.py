"""How a network is trained by several workers: whole on each of them, or in shards (DeepSpeed ZeRO)."""
