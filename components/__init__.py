"""KFP components: one thin file a step. Typed inputs, one call into `coda.steps`, artifacts and metrics out."""
