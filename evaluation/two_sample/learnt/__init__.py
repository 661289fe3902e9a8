"""Tests that learn on one half of the samples how to compare the other."""

from gebm.evaluation.two_sample.learnt.bandwidth import optimise_bandwidth
from gebm.evaluation.two_sample.learnt.classifier import Classifier, ClassifierSettings, train_classifier
from gebm.evaluation.two_sample.learnt.deep_kernel import DeepKernelSettings, train_deep_kernel
from gebm.evaluation.two_sample.learnt.feature_test import FeatureTestResult, learnt_feature_test
from gebm.evaluation.two_sample.learnt.learnt_kernel import LearntKernel
from gebm.evaluation.two_sample.learnt.learnt_test import LearntResult, learnt_mmd_test
from gebm.evaluation.two_sample.learnt.locations import Locations, LocationSettings, optimise_locations

__all__ = [
    "Classifier",
    "ClassifierSettings",
    "DeepKernelSettings",
    "FeatureTestResult",
    "LearntKernel",
    "LearntResult",
    "LocationSettings",
    "Locations",
    "learnt_feature_test",
    "learnt_mmd_test",
    "optimise_bandwidth",
    "optimise_locations",
    "train_classifier",
    "train_deep_kernel",
]
