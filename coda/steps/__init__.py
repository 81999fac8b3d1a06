"""The steps of the pipelines: one function each, called by the CLI, the KFP components, the DVC stages and the tests.

A step takes paths and Params and returns a contract or numbers; only here and in the service packages do object
storage and the registry appear.
"""
