"""The report of a device: limits, agreement with the processor, speeds of models, kernels."""
