"""Two-sample tests in pieces: samples in files, tiles of the kernel matrix as work items, any number of actors."""

from gebm.evaluation.two_sample.distributed.blocks import Tiling
from gebm.evaluation.two_sample.distributed.executor import here, on_farm
from gebm.evaluation.two_sample.distributed.mmd import distributed_mmd_test
from gebm.evaluation.two_sample.distributed.relative import distributed_relative_test
from gebm.evaluation.two_sample.distributed.table import FeatureTable, table_of_file

__all__ = [
    "FeatureTable",
    "Tiling",
    "distributed_mmd_test",
    "distributed_relative_test",
    "here",
    "on_farm",
    "table_of_file",
]
