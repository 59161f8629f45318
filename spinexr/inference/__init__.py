"""Radiograph → Prediction: the bundle of weights, the engines that run it, and the decision."""
