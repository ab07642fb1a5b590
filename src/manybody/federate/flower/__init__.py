"""Flower's strategies over a network of ours: its messages become tasks, and the results of tasks its replies.

A message carries tensors and settings, and no code goes anywhere: nodes run a stage of an installed method. So any
strategy of Flower (FedAvg, FedProx, FedAdam, FedMedian, Krum, privacy wrappers) trains on every backend. Flower's own
runtime is not used. The extra ``manybody[flower]`` brings what this needs; nodes need no Flower.
"""

from manybody.federate.flower import pin
from manybody.federate.flower.grid import FlowerGrid
from manybody.federate.flower.secure import SecureTraining
from manybody.federate.flower.training import Client, Training, record, tensors

__all__ = ["Client", "FlowerGrid", "SecureTraining", "Training", "pin", "record", "tensors"]
