"""The calls that users of transformers' pipelines know, for all of our models: `madtp.pipeline`."""
